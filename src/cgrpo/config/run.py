"""What every run has, whatever its method."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

from pydantic import model_validator

from cgrpo.config.data import Data
from cgrpo.config.evaluation import Evaluation
from cgrpo.config.guard import Guard
from cgrpo.config.logging import Logging
from cgrpo.config.sampling import Sampling
from cgrpo.config.training import Training
from cgrpo.policies.settings import AnyPolicySettings, PolicySettings
from cgrpo.rewards import AnyReward, RewardSettings
from cgrpo.rewards.clip import ClipSettings
from cgrpo.rewards.dino_seg import DinoSegSettings
from cgrpo.section import Section

DEFAULT_REWARDS: dict[str, RewardSettings] = {"identity": DinoSegSettings(), "prompt": ClipSettings()}


class Run(Section):
    """The tables that all methods share. A method's own configuration adds to them, and widens some."""

    method: str
    """How the policy is trained."""
    policy: AnyPolicySettings = PolicySettings()
    data: Data = Data()
    sampling: Sampling = Sampling()
    rewards: dict[str, AnyReward] = DEFAULT_REWARDS
    """Rewards by name. "identity" and "prompt" carry the weights; any other is watched only. What is not said of
    these two stays as here; type = "none" leaves one out."""
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    guard: Guard = Guard()
    logging: Logging = Logging()

    @abstractmethod
    def share(self) -> tuple[int, str]:
        """The tasks of an iteration over all processes, among which they are dealt evenly, and that number's key."""

    @abstractmethod
    def title(self) -> str:
        """The method in the field's words, as precisely as the settings say."""

    @abstractmethod
    def facts(self) -> dict[str, str]:
        """The method's own main settings in words, by heading."""

    @model_validator(mode="before")
    @classmethod
    def _keep_default_rewards(cls, table: Any) -> Any:
        if isinstance(table, dict) and isinstance(table.get("rewards"), dict):
            return table | {"rewards": _with_defaults(table["rewards"])}
        return table

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.policy.quantise != "none" and self.training.parallel == "fsdp2":
            raise ValueError("policy.quantise and training.parallel = fsdp2 do not go together; choose one")
        if not self.rewards:
            raise ValueError("rewards must name at least one reward")
        for name in self.guard.scorers:
            if name in self.rewards:
                raise ValueError(f"guard.scorers.{name}: a reward has this name; a judge needs another")
        return self


def _with_defaults(table: dict[str, Any]) -> dict[str, Any]:
    """A recipe's rewards over the default ones.

    What is not said of "identity" and "prompt" stays as there, unless another type is asked for; type "none" leaves
    a reward out.
    """
    merged: dict[str, Any] = dict(DEFAULT_REWARDS)
    for name, given in table.items():
        default = DEFAULT_REWARDS.get(name)
        if isinstance(given, dict) and default is not None and given.get("type", default.type) == default.type:
            given = default.model_dump() | given
        merged[name] = given
    return {name: s for name, s in merged.items() if not (isinstance(s, dict) and s.get("type") == "none")}
