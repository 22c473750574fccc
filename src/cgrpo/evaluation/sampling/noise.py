"""What held-out pictures start from. Two kinds, since published figures rest on each.

task noise   of the task's name: training's evaluation and the guard; each task has a noise of its own
seed noise   of a seed alone, the same for every prompt, as diffusers' pipelines draw it: benchmarks and `cgrpo sample`
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from cgrpo.data import derive
from cgrpo.policies.base import Policy


def task_noise(policy: Policy, ids: Sequence[str], seed: int = 0) -> Tensor:
    """fp32 [N, L, C] for tasks of these names: the same (seed, name) always has the same."""
    return torch.stack([torch.randn(policy.latent_shape, generator=derive("evaluation", seed, name)) for name in ids])


def seed_noise(policy: Policy, seeds: Iterable[int]) -> Tensor:
    """fp32 [N, L, C], one row a seed, as the policy's stock pipeline draws it."""
    return torch.cat([policy.noise(seed) for seed in seeds])
