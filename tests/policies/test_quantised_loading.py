"""What loading a quantised base takes, counted: a card that holds the result must be enough to load it."""

from __future__ import annotations

import itertools
import time

import torch
from support.tiny_flux import golden_transformer
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import cgrpo.policies.lora
from cgrpo.build import make_policy
from cgrpo.config import load_config
from cgrpo.policies.adapters.layers import fuse
from cgrpo.policies.memory import quantise_blocks

SETTINGS = ("policy.offload=true", "policy.dtype=bfloat16", "policy.rank=1")


class Arrivals(TorchDispatchMode):
    """Bytes of the tensors that are made on the meta device, which stands for a card."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            self.sizes += [t.nbytes for t in tree_leaves(out) if type(t) is torch.Tensor and t.is_meta]
        return out


def matrices(transformer: nn.Module) -> int:
    """Numbers in the blocks' matrices."""
    return sum(m.weight.numel() for name, m in transformer.named_modules()
               if isinstance(m, nn.Linear) and "transformer_blocks." in name)  # fmt: skip


def test_a_quantised_base_arrives_on_the_card_as_it_stays(monkeypatch) -> None:
    with Arrivals() as seen:

        def quantise(blocks: list[nn.Module]) -> None:
            assert not any(parameter.is_meta for block in blocks for parameter in block.parameters())
            quantise_blocks(blocks)
            seen.sizes.clear()  # diffusers reads into empty models, on that device too

        monkeypatch.setattr(cgrpo.policies.lora, "quantise_blocks", quantise)
        policy = make_policy(load_config("toybox", (*SETTINGS, "policy.quantise=int8")), torch.device("meta"))
    assert all(parameter.is_meta for parameter in policy.transformer.parameters())
    blocks = [p for name, p in policy.transformer.named_parameters() if "transformer_blocks." in name and p.ndim == 2]
    frozen = [p for p in blocks if not p.requires_grad]
    assert frozen and {p.qdata.dtype for p in frozen} == {torch.int8}  # pyright: ignore
    assert max(seen.sizes) < max(p.numel() for p in frozen)  # nothing of a block's size came along as it was read


def test_quantising_needs_little_beside_the_base() -> None:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        base = golden_transformer().to(torch.bfloat16)
        began, numbers = time.time_ns(), matrices(base)
        blocks = [*base.transformer_blocks, *base.single_transformer_blocks]
        largest = max(sum(p.numel() for p in block.parameters()) for block in blocks)
        fuse(base)
        quantise_blocks(blocks)
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]  # pyright: ignore
    events.sort(key=lambda event: event.start_ns())
    live = list(itertools.accumulate(event.nbytes() for event in events))
    start = sum(event.start_ns() < began for event in events)
    before, after = live[start - 1], live[start:]
    assert max(after) - before <= 2 * largest  # bytes: as much as the largest block in bfloat16
    assert after[-1] - before <= -0.7 * numbers  # at the end nearly a byte a number is free
