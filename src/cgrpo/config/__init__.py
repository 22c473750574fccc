"""Every knob. Frozen, typed, unknown keys refused; the defaults are the vetted setting of the embedded world.

A recipe (TOML) states only differences from these defaults; ``--set dotted.key=value`` states more.
This package imports neither torch nor anything heavy.
"""

from cgrpo.config.recipes import load_config, override, parse_config, recipes
from cgrpo.config.rewards import (
    REWARD_TYPES,
    AestheticSettings,
    ClipImageSettings,
    ClipSettings,
    DinoSegSettings,
    DinoSettings,
    FunctionSettings,
    HpsV2Settings,
    HpsV3Settings,
    ImageRewardSettings,
    ModelSettings,
    PickScoreSettings,
    RemoteSettings,
    RewardSettings,
    VlmSettings,
)
from cgrpo.config.section import TOYBOX, Section
from cgrpo.config.settings import Config, Policy, Shaping, Weights

__all__ = [
    "REWARD_TYPES",
    "TOYBOX",
    "AestheticSettings",
    "ClipImageSettings",
    "ClipSettings",
    "Config",
    "DinoSegSettings",
    "DinoSettings",
    "FunctionSettings",
    "HpsV2Settings",
    "HpsV3Settings",
    "ImageRewardSettings",
    "ModelSettings",
    "PickScoreSettings",
    "Policy",
    "RemoteSettings",
    "RewardSettings",
    "Section",
    "Shaping",
    "VlmSettings",
    "Weights",
    "load_config",
    "override",
    "parse_config",
    "recipes",
]
