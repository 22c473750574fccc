"""Batch sizes by measurement: the fastest that fits, for what the configuration leaves to "auto"."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from cgrpo.config import Config, GroupConfig, with_batches
from cgrpo.data import Source
from cgrpo.policies.base import Policy
from cgrpo.training.loop import now
from cgrpo.training.runtime import Runtime

C = TypeVar("C", bound=Config)
MOST = 128  # rows that are tried
GAIN = 0.98  # a size is taken if its seconds per row are below this share of the size before's
ROOM = 0.9  # share of a GPU's memory that may be in use


def measured_batches(cfg: C, policy: Policy, source: Source, runtime: Runtime) -> C:
    """``cfg`` with the fastest sizes that fit in place of "auto", the same on all processes.

    A trial is one forward and backward, or one forward and the decoding, on the source's first task. Sizes are doubled
    for as long as that is faster per row. On a GPU AdamW's moments must fit, too; on a CPU memory is not looked at.
    """
    micro_batch, batch = cfg.training.micro_batch, cfg.sampling.batch if isinstance(cfg, GroupConfig) else 1
    if "auto" not in (micro_batch, batch):
        return cfg
    tasks = cfg.share()[0] // runtime.world
    (one,) = policy.encode_parts(source.batch([0]), [[0]])
    moments = 2 * sum(p.numel() * p.element_size() for p in policy.trainable_parameters().values())
    latents = torch.randn(MOST, *policy.latent_shape, generator=torch.Generator().manual_seed(0))

    def replay(size: int) -> None:
        x_NLC = latents[:size].to(policy.device, policy.dtype)
        v_NLC = policy.velocity(x_NLC, torch.full((size,), 0.5, device=policy.device), one.repeat(size))
        v_NLC.float().square().mean().backward()

    @torch.no_grad()
    def sample(size: int) -> None:
        x_NLC = latents[:1].to(policy.device, policy.dtype).repeat(size, 1, 1)
        policy.decode(policy.velocity(x_NLC, torch.full((size,), 0.5, device=policy.device), one.repeat(size)))

    def fastest(sizes: Sequence[int], trial: Callable[[int], None]) -> int:
        return fastest_size(sizes, lambda size: _slowest(lambda: trial(size), moments, policy, runtime))

    if micro_batch == "auto":
        rows = tasks * (cfg.training.group_size * cfg.sampling.steps if isinstance(cfg, GroupConfig) else 3)
        micro_batch = fastest(doubled(1, min(rows, MOST)), replay)
    if isinstance(cfg, GroupConfig) and batch == "auto":
        group = cfg.training.group_size
        batch = fastest(doubled(group, tasks * group), sample)
    return with_batches(cfg, micro_batch, batch)


def doubled(first: int, most: int) -> list[int]:
    """``first``, twice that and so on, up to ``most``, which comes last."""
    sizes = [first * 2**power for power in range(max(1, most // first).bit_length())]
    return sizes if most <= sizes[-1] else [*sizes, most]


def fastest_size(sizes: Sequence[int], seconds: Callable[[int], float]) -> int:
    """The last of ``sizes`` that was worth its step: fewer seconds per row than the one before; infinite: no room."""
    best, least = sizes[0], math.inf
    for size in sizes:
        per_row = seconds(size) / size
        if not per_row < GAIN * least:
            break
        best, least = size, per_row
    return best


def _slowest(trial: Callable[[], None], moments: int, policy: Policy, runtime: Runtime) -> float:
    """Seconds of the second of two trials, on the slowest process; infinite where they don't fit on one."""
    cuda, seconds = policy.device.type == "cuda", math.inf
    if cuda:
        torch.cuda.reset_peak_memory_stats(policy.device)
    try:
        for _ in range(2):
            start = now()
            trial()
            seconds = now() - start
    except torch.OutOfMemoryError:
        seconds = math.inf
    if cuda:
        most = ROOM * torch.cuda.get_device_properties(policy.device).total_memory
        if torch.cuda.max_memory_allocated(policy.device) + moments > most:
            seconds = math.inf
        torch.cuda.empty_cache()
    for parameter in policy.trainable_parameters().values():
        parameter.grad = None
    return runtime.gather(torch.tensor([seconds], device=runtime.device)).max().item()
