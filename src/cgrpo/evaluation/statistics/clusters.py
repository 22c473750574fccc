"""Which tasks are one observation: those of one subject; where there is one subject alone, those of one prompt."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from cgrpo.evaluation.statistics.paired import cluster_numbers
from cgrpo.rewards.base import digest
from cgrpo.types import Batch

Unit = Literal["subjects", "prompts"]
# What intervals over each say.
MEANING: dict[Unit, str] = {
    "subjects": "how it would be on other subjects like these",
    "prompts": "how it would be with other prompts like these for this one subject; of other subjects they say nothing",
}


@dataclass(frozen=True)
class Clusters:
    """``number_N`` int64 [N], the cluster of each task from 0 on; ``unit``, what a cluster is."""

    number_N: Tensor
    unit: Unit

    @property
    def count(self) -> int:
        return len(self.number_N.unique())


def clusters_of(batch: Batch) -> Clusters:
    """Tasks that show one subject, as the data set says or by the very same references, are no independent sample.

    Where all tasks show one, its prompts are the sample instead, if there are several.
    """
    ids = batch.subject_ids or ("",) * len(batch)
    shown: list[Hashable] = [
        name or frozenset(digest(picture) for picture in pictures)
        for name, pictures in zip(ids, batch.references, strict=True)
    ]
    return cluster(shown, batch.prompts)


def cluster(subjects: Sequence[Hashable], prompts: Sequence[str]) -> Clusters:
    """By the subjects' names, or by prompts where there is one subject alone with several."""
    alone = len(set(subjects)) == 1 < len(set(prompts))
    return Clusters(cluster_numbers(prompts if alone else subjects), "prompts" if alone else "subjects")
