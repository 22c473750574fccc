"""Policies of tiny checkpoints, and the reference code's tiny FLUX with and without an adapter."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import FluxPipeline
from torch import Tensor

from cgrpo.policies.adapters import layers
from cgrpo.policies.adapters.files import read_for
from cgrpo.policies.adapters.keys import State
from cgrpo.policies.base import Policy
from cgrpo.policies.flux.family import LAYOUT
from cgrpo.policies.flux.policy import FluxCondition, FluxPolicy
from cgrpo.policies.referenced import ReferencedPolicy
from cgrpo.policies.settings import PolicySettings
from support.tiny_flux import golden, golden_transformer

Kind = TypeVar("Kind", bound=ReferencedPolicy)
Kept = TypeVar("Kept", bound=Policy)

# On FLUX.1's layers.
add_adapter = partial(layers.add_adapter, layout=LAYOUT)
merge_start = partial(layers.merge_start, layout=LAYOUT)
continue_start = partial(layers.continue_start, layout=LAYOUT)
load_adapter = partial(layers.load_adapter, layout=LAYOUT)

GOLDEN = PolicySettings(height=64, width=96, reference_size=32)  # the pictures of the golden vectors


def from_folder(kind: type[Kind], folder: Path | str, **settings: Any) -> Kind:
    """The bare policy of a checkpoint under these settings of the table ``policy``."""
    return kind.from_checkpoint(PolicySettings(path=str(folder), **settings))


def read_adapter(path: Path | str) -> tuple[State, dict[str, str]]:
    """(tensors by fused key, header) of a FLUX.1 adapter in any layout."""
    return read_for(path, LAYOUT)


def golden_policy(dtype: torch.dtype = torch.float32) -> FluxPolicy:
    """The reference code's tiny FLUX, driven by tensors alone."""
    return FluxPolicy(golden_transformer().to(dtype), None, None, GOLDEN)  # pyright: ignore


def with_adapter(rank: int = 4, seed: int = 0, lively: bool = True) -> FluxPolicy:
    policy = golden_policy()
    add_adapter(policy.transformer, rank, seed)
    return shake(policy, 9) if lively else policy  # B is 0 at the start


def inputs(policy: FluxPolicy) -> tuple[Tensor, Tensor, FluxCondition]:
    forward = golden("golden_uno/tiny_forward.safetensors")
    latents = [forward["ref1_latent"]]
    cond = policy.condition(forward["txt"], forward["vec"], latents, forward["guidance"])
    return forward["img_tokens"], forward["timesteps"], cond


@torch.no_grad()
def velocity(policy: FluxPolicy) -> Tensor:
    return policy.velocity(*inputs(policy))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def stock_with(adapter: Path) -> Any:
    """The stock transformer of a stock pipeline that has loaded an adapter's file or folder."""
    pipeline = FluxPipeline(None, None, None, None, None, None, golden_transformer())  # type: ignore[arg-type]
    pipeline.load_lora_weights(str(adapter))
    return pipeline.transformer


def stock_velocity(policy: FluxPolicy, transformer: torch.nn.Module) -> Tensor:
    x_NLC, sigma_N, cond = inputs(policy)
    with torch.no_grad():
        (v_NLC,) = transformer(
            hidden_states=torch.cat((x_NLC, cond.reference_NLC), dim=1), encoder_hidden_states=cond.text_NLC,
            pooled_projections=cond.pooled_NC, timestep=sigma_N, guidance=cond.guidance_N, img_ids=cond.ids_LD,
            txt_ids=torch.zeros(cond.text_NLC.shape[1], 3), return_dict=False,
        )  # fmt: skip
    return v_NLC[:, : x_NLC.shape[1]]


def shake(policy: Kept, seed: int = 7, by: float = 0.1) -> Kept:
    """The policy with its trained weights moved away from where they are."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.trainable_parameters().values():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return policy
