"""The table ``guard``: held-out tasks that are watched while training."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cgrpo.rewards import AnyReward
from cgrpo.section import Place, Positive, Section


class Guard(Section):
    every: Annotated[int, Field(ge=0)] = 10
    """Iterations between two checks on held-out tasks while training; 0 is off."""
    source: Place = ""
    """A manifest of held-out tasks. Empty: the toy world's validation split, and no guard over a data set of one's
    own."""
    tasks: Positive = 64
    """Held-out tasks of a check: a manifest's first rows, all of it if it has fewer; in the toy world each has a
    subject of its own, which tells more than several prompts for one."""
    batch: Positive = 16
    """Held-out pictures made at a time. Such batches are dealt to the processes, so a check is shared evenly where
    there are as many of them."""
    scorers: dict[str, AnyReward] = Field(default_factory=dict)
    """Judges by name: scorers that are not trained on, with the settings of rewards.NAME. Empty with the toy world's
    tasks: its read-back judges."""
    patience: Annotated[int, Field(ge=0)] = 0
    """The run stops after this many checks in a row that brought no better one; 0 never stops it."""
