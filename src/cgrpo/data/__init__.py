"""Where tasks come from, and in which order and with which noise they are met."""

from cgrpo.data.order import GroupNoise, derive, task_indices
from cgrpo.data.records import ManifestSource, Source, read_manifest
from cgrpo.data.toybox import ToyboxSource

__all__ = ["GroupNoise", "ManifestSource", "Source", "ToyboxSource", "derive", "read_manifest", "task_indices"]
