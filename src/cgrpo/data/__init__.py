"""Where tasks come from, and in which order and with which noise they come."""

from cgrpo.data.check import check_manifest
from cgrpo.data.order import GroupNoise, derive, task_indices
from cgrpo.data.readers import read_tasks
from cgrpo.data.report import CheckReport, Problem
from cgrpo.data.sources import ManifestSource, PairSource, Source
from cgrpo.data.syncd import Rules, filter_syncd, hold_out, write_manifest
from cgrpo.data.syncd_scores import Scorers
from cgrpo.data.worlds import ToyboxSource, toy_source

__all__ = [
    "CheckReport",
    "GroupNoise",
    "ManifestSource",
    "PairSource",
    "Problem",
    "Rules",
    "Scorers",
    "Source",
    "ToyboxSource",
    "check_manifest",
    "derive",
    "filter_syncd",
    "hold_out",
    "read_tasks",
    "task_indices",
    "toy_source",
    "write_manifest",
]
