"""From the configuration to a trainer: where every method gets its class."""

from __future__ import annotations

from cgrpo.config import Config, ForwardConfig, GrpoConfig, PreferenceConfig, SftConfig
from cgrpo.data import PairSource, Source
from cgrpo.errors import UserError
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward
from cgrpo.training.forward import Forward
from cgrpo.training.grpo import GRPO
from cgrpo.training.preference import Preference
from cgrpo.training.runtime import Runtime
from cgrpo.training.sft import SFT
from cgrpo.training.trainer import Trainer


def make_trainer(cfg: Config, policy: Policy, rewards: dict[str, Reward], source: Source, runtime: Runtime) -> Trainer:
    """The method's loop over ``source``."""
    match cfg:
        case GrpoConfig():
            return GRPO(cfg, policy, rewards, source, runtime)
        case ForwardConfig():
            return Forward(cfg, policy, rewards, source, runtime)
        case SftConfig():
            return SFT(cfg, policy, rewards, source, runtime)
        case PreferenceConfig():
            if not isinstance(source, PairSource):
                raise UserError("method preference trains on pairs: name a file of them as preference.pairs")
            return Preference(cfg, policy, rewards, source, runtime)
