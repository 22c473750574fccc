"""Every knob. Frozen, typed, unknown keys refused; the defaults are the vetted setting of the embedded world.

A recipe (TOML) states only differences from these defaults; ``--set dotted.key=value`` states more.
This package imports neither torch nor anything heavy.
"""

from cgrpo.config.recipes import load_config, override, parse_config, recipes
from cgrpo.config.rewards import (
    REWARD_TYPES,
    ClipSettings,
    DinoSegSettings,
    FunctionSettings,
    HpsV3Settings,
    RewardSettings,
)
from cgrpo.config.section import TOYBOX, Section
from cgrpo.config.settings import Config, Policy, Shaping, Weights

__all__ = [
    "REWARD_TYPES",
    "TOYBOX",
    "ClipSettings",
    "Config",
    "DinoSegSettings",
    "FunctionSettings",
    "HpsV3Settings",
    "Policy",
    "RewardSettings",
    "Section",
    "Shaping",
    "Weights",
    "load_config",
    "override",
    "parse_config",
    "recipes",
]
