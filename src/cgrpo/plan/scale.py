"""What several GPUs add to an iteration: exchanging gradients and parameters, and waiting for the slowest."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cgrpo.plan.gpus import Gpu
from cgrpo.plan.policy import CountedPolicy
from cgrpo.plan.work import Work

NODE = 8  # GPUs that share a node's links
REACHED = 0.8  # share of a link's data sheet that an exchange of gigabytes reaches, assumed
SPREAD = 0.02  # standard deviation of the GPUs' speeds, and of one GPU's from phase to phase, as shares; assumed
DRAWS = 400  # simulated iterations


@dataclass(frozen=True)
class Scale:
    """Seconds of one iteration beyond a GPU's own work.

    gradients  summing the adapter's gradients over all GPUs, once per optimizer step
    gathers    gathering the sharded base's blocks, as far as the blocks' own work does not hide it
    waiting    for the slowest GPU, where the processes meet: after the scores, and at each optimizer step; simulated
    """

    gradients: float = 0.0
    gathers: float = 0.0
    waiting: float = 0.0

    @property
    def seconds(self) -> float:
        return self.gradients + self.gathers + self.waiting


def estimate_scale(
    work: Work, policy: CountedPolicy, gpu: Gpu, gpus: int, master: int, base: int, rate: float, *, sharded: bool
) -> Scale:
    """``master``, ``base``: bytes of a number of the adapter and of the base; ``rate``: operations per second."""
    if gpus == 1:
        return Scale()
    bandwidth = REACHED * 1e9 * (gpu.link if gpus <= NODE else min(gpu.link, gpu.network))
    share = (gpus - 1) / gpus
    gradients = work.updates * 2 * share * policy.trained * master / bandwidth  # a ring's reduce-scatter and gather
    update = sum(count for part, count in work.operations.items() if _in_update(part)) / rate
    sampling = work.operations.get("sampling", 0.0) / rate
    rest = work.total / rate - update - sampling
    gathers = 0.0
    if sharded:
        whole = share * sum(block.parameters for block in policy.blocks) * base / bandwidth
        replays = work.updates * -(-work.passes // (work.updates * work.micro_batch))
        gathers = max(0.0, work.sampling_calls * whole - sampling) + max(0.0, 2 * replays * whole - update)
    return Scale(gradients, gathers, _waiting([sampling + rest, *[update / work.updates] * work.updates], gpus))


def _waiting(phases: list[float], gpus: int) -> float:
    """Expected seconds that a GPU of average speed waits at the ends of ``phases``, in which it works so long."""
    rng = torch.Generator().manual_seed(0)
    own_DN = 1 + SPREAD * torch.randn(DRAWS, gpus, generator=rng)
    slowest = [(own_DN + SPREAD * torch.randn(DRAWS, gpus, generator=rng)).amax(1).mean().item() for _ in phases]
    return sum(seconds * (factor - 1) for seconds, factor in zip(phases, slowest, strict=True))


def _in_update(part: str) -> bool:
    return part.startswith(("training", "reference policy", "old policy"))
