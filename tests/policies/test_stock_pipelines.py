"""Our sampling against stock diffusers pipelines on the same tiny weights and noise: FLUX, FLUX with LoRA, Kontext."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxPipeline
from PIL import Image
from support.policies import add_adapter, from_folder, shake
from torch import Tensor

from cgrpo.algorithm import integrate, shifted_sigmas
from cgrpo.policies.adapters.layers import save_adapter
from cgrpo.policies.flux.inputs import position_ids
from cgrpo.policies.flux.policy import FluxPolicy
from cgrpo.types import Batch

PROMPT = "a red cube on the beach"
HEIGHT, WIDTH, STEPS, GUIDANCE = 32, 48, 5, 2.5


def policy_of(folder: Path, **settings) -> FluxPolicy:
    return from_folder(FluxPolicy, folder, height=HEIGHT, width=WIDTH, reference_size=32, guidance=GUIDANCE, **settings)


def ours(policy: FluxPolicy, references: tuple[Image.Image, ...]) -> Tensor:
    """The final latents [1, L, C] from seed 7."""
    cond = policy.encode(Batch(("0",), (PROMPT,), (references,), ("",)))
    sigmas = shifted_sigmas(STEPS, "flux", policy.latent_shape[0])
    return integrate(lambda x, sigma: policy.velocity(x, sigma, cond), policy.noise(7), sigmas)


def stock(kind: type, folder: Path):
    pipeline = kind.from_pretrained(folder, local_files_only=True)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def call(pipeline, **settings) -> Tensor:
    """The pipeline's final latents from the same seed, prompt and size."""
    return pipeline(
        prompt=PROMPT, height=HEIGHT, width=WIDTH, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(7), max_sequence_length=12, output_type="latent", **settings,
    ).images  # fmt: skip


@pytest.fixture(scope="module")
def adapter(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[FluxPolicy, Path]:
    """A policy with an adapter that does something, and its file."""
    policy = policy_of(tiny_folder)
    add_adapter(policy.transformer, rank=4, seed=0)
    shake(policy, 1, 0.3)
    return policy, save_adapter(policy.transformer, tmp_path_factory.mktemp("adapter"), origin=policy.origin)


def test_flux_is_the_stock_pipeline_with_and_without_an_adapter(tiny_folder: Path, adapter) -> None:
    policy, file = adapter
    pipeline = stock(FluxPipeline, tiny_folder)
    plain = call(pipeline)
    assert (ours(policy_of(tiny_folder), ()) - plain).abs().max() <= 1e-4
    pipeline.load_lora_weights(str(file.parent))
    found = call(pipeline)
    assert (ours(policy, ()) - found).abs().max() <= 1e-4
    assert (plain - found).abs().max() > 0.01  # the adapter does something


@pytest.mark.parametrize("trained", [False, True])
def test_kontext_is_the_stock_pipeline(tiny_folder: Path, adapter, trained: bool) -> None:
    reference = Image.effect_noise((32, 32), 60).convert("RGB")
    policy, file = adapter if trained else (policy_of(tiny_folder), None)
    policy.geometry = replace(policy.geometry, scheme="kontext")  # the reference is of the right size already
    pipeline = stock(FluxKontextPipeline, tiny_folder)
    if file is not None:
        pipeline.load_lora_weights(str(file.parent))
    found = call(pipeline, image=reference, max_area=HEIGHT * WIDTH, _auto_resize=False)
    made = ours(policy, (reference,))
    assert (made - found).abs().max() <= 1e-4
    policy.geometry = replace(policy.geometry, scheme="d")
    assert (ours(policy, (reference,)) - found).abs().max() > 1e-3  # the check tells the schemes apart


def test_kontext_ids() -> None:
    """(number, row, column): references count on the first axis and stay in place."""
    ids = position_ids((1, 2), [(2, 1), (1, 1)], "kontext")
    assert ids.tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0], [2, 0, 0]]
