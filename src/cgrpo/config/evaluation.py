"""The table ``evaluation``: base against trained on held-out tasks, after the run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cgrpo.section import Place, Positive, Section


class Evaluation(Section):
    enabled: bool = True
    """Compare base and trained policy on held-out tasks after the run, where there are any."""
    source: Place = ""
    """A manifest of held-out tasks. Empty: the toy world's split, or with a data set of one's own guard.source."""
    tasks: Positive = 64
    """Of a manifest, at most its first so many tasks."""
    subjects: Positive = 48
    """Of the toy world: held-out subjects; the intervals are clustered by them."""
    prompts_per_subject: Positive = 8
    """Of the toy world: held-out prompts for each subject."""
    split: Literal["test", "validation"] = "test"
    """Of the toy world; choose settings on "validation" only."""
    batch: Positive = 96
    """Pictures generated at a time."""
    best_of: Annotated[int, Field(ge=1, lt=4096)] = 1
    """Pictures that the trained policy draws for each task, from as many noises; the one with the greatest sum of the
    run's rewards is kept. The base draws one. With ``training.iterations = 0``: best of n without any training."""
    copies: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """A held-out picture is a copy of its reference where its copy_paste measure (1: the same pixels) lies above this;
    the share of copies is then measured, here and by the guard. 0 leaves it out."""
