"""From the configuration to a trainer: where every method gets its class."""

from __future__ import annotations

from typing import Any

from cgrpo.config import Config, ForwardConfig, GrpoConfig, PreferenceConfig, SftConfig
from cgrpo.data import Source
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward
from cgrpo.training.forward import Forward
from cgrpo.training.grpo import GRPO
from cgrpo.training.loop import Loop
from cgrpo.training.preference import Preference
from cgrpo.training.runtime import Runtime
from cgrpo.training.sft import SFT


def make_trainer(
    cfg: Config, policy: Policy, rewards: dict[str, Reward], source: Source, runtime: Runtime
) -> Loop[Any]:
    """The method's loop over ``source``."""
    match cfg:
        case GrpoConfig():
            return GRPO(cfg, policy, rewards, source, runtime)
        case ForwardConfig():
            return Forward(cfg, policy, rewards, source, runtime)
        case SftConfig():
            return SFT(cfg, policy, rewards, source, runtime)
        case PreferenceConfig():
            return Preference(cfg, policy, rewards, source, runtime)
