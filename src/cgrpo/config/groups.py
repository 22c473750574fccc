"""What methods share that draw a group of samples for each prompt and reinforce them by the credit table."""

from __future__ import annotations

from typing import Annotated, Any, Self, TypeVar

from pydantic import Field, model_validator

from cgrpo.config.credit import Shaping, Weights
from cgrpo.config.run import BatchSize, Config, Sampling, Training
from cgrpo.section import Positive

C = TypeVar("C", bound=Config)


class GroupSampling(Sampling):
    batch: BatchSize = 96
    """Samples per forward while sampling, in whole groups, at least one; bounds memory. "auto" as for
    ``training.micro_batch``."""


class GroupTraining(Training):
    group_size: Annotated[int, Field(ge=2)] = 12
    """Samples per prompt, G; advantages compare them, so at least 2."""
    prompts_per_iteration: Positive = 6
    """Prompts per rollout over all processes together; must be divisible by their number."""
    updates_per_rollout: Positive = 2
    """Optimizer steps per rollout: every group's samples are dealt to this many equal parts."""
    clamp: Annotated[float, Field(gt=0)] = 5.0
    """Credit is clamped to +- this."""
    max_failed_groups: Positive = 3
    """The run stops when a reward fails on all samples of a group, or gives all samples of each group one score,
    this many iterations running."""

    @model_validator(mode="after")
    def _equal_parts(self) -> Self:
        group, updates = self.group_size, self.updates_per_rollout
        if group % updates:
            raise ValueError(f"updates_per_rollout ({updates}) must divide group_size ({group})")
        return self


class GroupConfig(Config):
    """Prompts are sampled in groups; ``shaping`` and ``weights`` make the credit table; the loss is the method's."""

    sampling: GroupSampling = GroupSampling()
    training: GroupTraining = GroupTraining()
    shaping: Shaping = Shaping()
    weights: Weights = Weights()

    @model_validator(mode="after")
    def _weighted_rewards(self) -> Self:
        shares = {"prompt": self.weights.prompt, "identity": 1 - self.weights.prompt}
        for name in self.weights.others:
            if name not in self.rewards or name in shares:
                raise ValueError(f"weights.others.{name}: must be a reward of that name beside identity and prompt")
        for name, share in shares.items():
            if name not in self.rewards and (share > 0 or self.weights.type != "constant"):
                raise ValueError(f"reward {name!r} carries weight but is left out; give rewards.{name}, or set weights")
        return self

    @model_validator(mode="after")
    def _known_credit(self) -> Self:
        measured, steps = self.weights.measured, self.sampling.steps
        if self.weights.type == "measured" and len(measured) != steps:
            raise ValueError(f"weights.measured: {len(measured)} weights for sampling.steps = {steps}; give one a step")
        by_one_reward = self.shaping.focal or self.shaping.type == "one-sided"
        if self.weights.subjects > 1 and self.shaping.type == "one-sided":
            raise ValueError("shaping.type = one-sided guards one reward; set weights.subjects = 1")
        if by_one_reward and self.shaping.focal_reward not in self.rewards:
            name = self.shaping.focal_reward
            raise ValueError(f"shaping.focal_reward: reward {name!r} is left out; name one of the rewards")
        return self

    def batches(self) -> dict[str, int | str]:
        return super().batches() | {"sampling.batch": self.sampling.batch}

    def share(self) -> tuple[int, str]:
        return self.training.prompts_per_iteration, "training.prompts_per_iteration"

    def facts(self) -> dict[str, str]:
        training = self.training
        return {
            "Samples": f"{training.prompts_per_iteration} prompts \N{MULTIPLICATION SIGN} {training.group_size} "
            f"an iteration, {training.updates_per_rollout} updates a rollout",
            "Credit": f"shaping {self.shaping.type}, weights {self.weights.type}",
        }


def with_batches(cfg: C, micro_batch: int | str = 1, batch: int | str = 1) -> C:
    """``cfg`` with these numbers where it says "auto"; the smallest by default."""
    changed: dict[str, Any] = {}
    if cfg.training.micro_batch == "auto":
        changed["training"] = cfg.training.model_copy(update={"micro_batch": micro_batch})
    if isinstance(cfg, GroupConfig) and cfg.sampling.batch == "auto":
        changed["sampling"] = cfg.sampling.model_copy(update={"batch": batch})
    return cfg.model_copy(update=changed)
