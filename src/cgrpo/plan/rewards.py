"""The models behind a recipe's rewards: parameters, bytes, operations per picture. What is unknown stays None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from cgrpo.config import TOYBOX, Config
from cgrpo.plan.count import count_call, parameters
from cgrpo.rewards import ModelSettings, RewardSettings


@dataclass(frozen=True)
class RewardModel:
    """One model of one reward, sizes in bytes. ``operations`` and ``work`` (memory while it runs): for one picture,
    ``chunk`` of which are scored at a time. ``offload``: it waits in the CPU's memory between calls."""

    reward: str
    model: str
    parameters: int | None
    memory: int | None
    operations: int | None
    work: int = 0
    chunk: int = 1
    offload: bool = False


def reward_models(rewards: Mapping[str, RewardSettings]) -> list[RewardModel]:
    """The models of all rewards, in the configuration's order. Raises UserError for an unreadable local folder."""
    return [
        replace(model, reward=name, offload=isinstance(settings, ModelSettings) and settings.offload)
        for name, settings in rewards.items()
        for model in _models(settings)
    ]


def guard_models(cfg: Config) -> list[RewardModel]:
    """Those of the held-out guard's own scorers, where there is one."""
    return reward_models(cfg.guard.scorers) if has_guard(cfg) else []


def has_guard(cfg: Config) -> bool:
    """Whether held-out tasks are watched while the run trains."""
    guard = cfg.guard
    return 0 < guard.every <= cfg.training.iterations and bool(guard.source or cfg.data.source == TOYBOX)


@cache
def _models(settings: RewardSettings) -> tuple[RewardModel, ...]:
    models = []
    for sketch in settings.models():
        if sketch.build is None:
            models.append(RewardModel("", sketch.name, None, None, None))
            continue
        model = sketch.build()
        memory = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        found = RewardModel("", sketch.name, parameters(model), memory, 0, chunk=sketch.chunk)
        if (run := sketch.run) is not None:
            counted = count_call(model, lambda run=run, model=model: run(model, 1))
            found = replace(found, operations=counted.operations, work=counted.at_work)
        models.append(found)
    return tuple(models)
