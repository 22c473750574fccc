"""The models behind a recipe's rewards: parameters, bytes, operations per picture. What is unknown stays None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cgrpo.config import Config
from cgrpo.plan.count import count_call, parameters
from cgrpo.rewards import ModelSettings, RewardSettings
from cgrpo.rewards.sketch import ModelSketch
from cgrpo.section import TOYBOX_WORLDS


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
    return 0 < guard.every <= cfg.training.iterations and bool(guard.source or cfg.data.source in TOYBOX_WORLDS)


_COUNTED: dict[str, tuple[RewardModel, ...]] = {}


def _models(settings: RewardSettings) -> tuple[RewardModel, ...]:
    """Those of one reward, counted once per process."""
    key = settings.model_dump_json()
    if key not in _COUNTED:
        _COUNTED[key] = tuple(_counted(sketch) for sketch in settings.models())
    return _COUNTED[key]


def _counted(sketch: ModelSketch) -> RewardModel:
    if sketch.build is None:
        return RewardModel("", sketch.name, None, None, None)
    model, run = sketch.build(), sketch.run
    memory = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    found = RewardModel("", sketch.name, parameters(model), memory, 0, chunk=sketch.chunk)
    if run is None:
        return found
    counted = count_call(model, lambda: run(model, 1))
    return replace(found, operations=counted.operations, work=counted.at_work)
