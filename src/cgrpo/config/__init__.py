"""Every setting of a run. Frozen, typed, unknown keys refused; the defaults are the vetted setting of the toy dataset.

A run is told apart by ``method`` (methods.py): each method has its own configuration, a subclass of ``Config`` (run.py)
or of ``GroupConfig`` (groups.py), in a folder of its own alongside its loop (training/). A recipe (TOML) states only
differences from the defaults; ``--set dotted.key=value`` states more. Imports neither torch nor anything heavy.
"""

from cgrpo.config.credit import CREDITS, Shaping, Weights
from cgrpo.config.groups import GroupConfig, GroupSampling, GroupTraining, with_batches
from cgrpo.config.methods import METHODS
from cgrpo.config.recipes import load_config, override, parse_config, recipes, sentence
from cgrpo.config.run import Config, Sampling, Training
from cgrpo.section import TOYBOX, Section, settled

__all__ = [
    "CREDITS",
    "METHODS",
    "TOYBOX",
    "Config",
    "GroupConfig",
    "GroupSampling",
    "GroupTraining",
    "Sampling",
    "Section",
    "Shaping",
    "Training",
    "Weights",
    "load_config",
    "override",
    "parse_config",
    "recipes",
    "sentence",
    "settled",
    "with_batches",
]
