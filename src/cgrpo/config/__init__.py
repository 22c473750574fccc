"""Every knob. Frozen, typed, unknown keys refused; the defaults are the vetted setting of the embedded world.

A run is one of a closed union told apart by ``method`` (methods.py). run.py has the tables that all methods share, a
file each; groups.py what is shared by those that fill the credit table; a file per method has the rest.
A recipe (TOML) states only differences from these defaults; ``--set dotted.key=value`` states more.
This package imports neither torch nor anything heavy.
"""

from cgrpo.config.credit import CREDITS, Shaping, Weights
from cgrpo.config.forward import ForwardConfig
from cgrpo.config.groups import GroupRun
from cgrpo.config.grpo import GrpoConfig
from cgrpo.config.methods import METHODS, Config
from cgrpo.config.preference import PreferenceConfig
from cgrpo.config.recipes import load_config, override, parse_config, parse_run, recipes
from cgrpo.config.sft import SftConfig
from cgrpo.config.training import Training
from cgrpo.section import TOYBOX, Section, settled

__all__ = [
    "CREDITS",
    "METHODS",
    "TOYBOX",
    "Config",
    "ForwardConfig",
    "GroupRun",
    "GrpoConfig",
    "PreferenceConfig",
    "Section",
    "SftConfig",
    "Shaping",
    "Training",
    "Weights",
    "load_config",
    "override",
    "parse_config",
    "parse_run",
    "recipes",
    "settled",
]
