"""Scores of a benchmark's pictures, as tidy rows."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cgrpo.data.archives import container, open_picture
from cgrpo.data.masks import mask_of
from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.candidates import Candidate
from cgrpo.evaluation.benchmark.suite import Masks
from cgrpo.evaluation.metrics import Scorer
from cgrpo.pictures import side_by_side
from cgrpo.rewards import Reward, scored
from cgrpo.rewards.base import to_tensor
from cgrpo.scores import Key, Protocol, ScoreRow, last_scored, open_part, protocol_of, read_scores, write_row
from cgrpo.types import Batch

# Per subject: its word, the photos that a picture is compared with, and their masks.
Compared = list[tuple[str, tuple[Image.Image, ...], tuple[Image.Image | None, ...]]]


@dataclass(frozen=True)
class ProtocolMetric:
    """A metric under a protocol."""

    name: str
    reward: Reward
    protocol: Protocol

    def applies_to(self, candidate: Candidate) -> bool:
        """Real photos follow no prompt."""
        return self.protocol != "prompt" or candidate.prompt is not None

    def row(self, candidate: Candidate, score: float | None, error: str | None) -> ScoreRow:
        return ScoreRow(
            method=candidate.method,
            subject=candidate.subject,
            prompt_index=candidate.prompt_index,
            prompt=candidate.prompt,
            seed=candidate.seed,
            metric=self.name,
            protocol=self.protocol,
            score=score,
            picture=candidate.picture,
            error=error,
            subject_kind=candidate.subject_kind,
            prompt_kind=candidate.prompt_kind,
        )


class Photos:
    """A dataset's photos and masks, read when they are needed. ``root``: what their names are relative to."""

    def __init__(self, root: Path, masks: Masks):
        self.root, self.masks = root, masks
        self.read = functools.lru_cache(maxsize=16)(open_picture)

    def compared(self, candidate: Candidate, protocol: Protocol) -> Compared:
        """What a picture is compared with. Raises UserError for a photo or a mask that can't be read."""
        compared: Compared = []
        for subject, (word, names) in zip(candidate.subjects, candidate.references(protocol), strict=True):
            photos = tuple(self.read(self.root / name) for name in names)
            given = [self.masks.get((subject, name)) for name in names]
            masks = (mask and mask_of(photo, *mask) for photo, mask in zip(photos, given, strict=True))
            compared.append((word, photos, tuple(masks)))
        return compared


def score_candidates(
    metrics: Mapping[str, Scorer],
    candidates: Sequence[Candidate],
    root: Path,
    out: Path,
    *,
    masks: Masks | None = None,
    protocols: Sequence[Protocol] = ("one",),
    chunk: int = 32,
    rank: int = 0,
    world: int = 1,
    progress: Any = None,
) -> list[Key]:
    """Score ``candidates`` with all ``metrics``; rows are appended to ``out/scores.partRANK.jsonl`` as they come.

    Returns the order in which ``collect_rows`` joins the parts when all processes have finished. Photos' names are
    relative to ``root``, and ``masks`` are the dataset's own. An identity score is the metric against the one reference
    of a subject ("one") or the mean over all its photos ("all"), of several subjects their mean.

    A row that has a score already is kept unless its picture is newer; one without is tried again. A picture, photo or
    mask that can't be read gives rows without a score, with the error. Process ``rank`` of ``world`` takes every
    ``world``-th chunk of ``chunk`` candidates. A chunk that was broken off is scored whole again for the rows it lacks:
    at equal threads every digit is that of an undisturbed single process. Raises UserError for a broken metric.
    """
    wanted = _under_protocols(metrics, protocols)
    done = {row.key for row in read_scores(out) if row.score is not None}
    done = _without_newer(done, candidates, last_scored(out), rank)
    photos = Photos(root, masks or {})
    with open_part(out, rank) as part:
        for first in range(rank * chunk, len(candidates), world * chunk):
            some = candidates[first : first + chunk]
            for row in _score_chunk(some, wanted, done, photos):
                write_row(part, row)
            part.flush()
            if progress:
                progress(len(some))
    return [one.key(metric.name, metric.protocol) for one in candidates for metric in wanted if metric.applies_to(one)]


def _under_protocols(metrics: Mapping[str, Scorer], protocols: Sequence[Protocol]) -> list[ProtocolMetric]:
    """Identity metrics under each protocol, those of the prompt and guards once."""
    wanted = (
        ProtocolMetric(name, scorer.score, protocol_of(scorer.role, scorer.score.axis, protocol))
        for name, scorer in metrics.items()
        for protocol in protocols
    )
    return list(dict.fromkeys(wanted))


def _without_newer(done: set[Key], candidates: Sequence[Candidate], scored_at: float, rank: int) -> set[Key]:
    """The rows without those of pictures that were made anew since; process 0 prints how many these are."""
    pictures = {(key[0], key[6]) for key in done}
    newer = {
        (one.method, one.picture)
        for one in candidates
        if one.seed is not None and (one.method, one.picture) in pictures
        if any(_is_newer(file, scored_at) for file in one.files)
    }
    if newer and rank == 0:
        example = min(picture for _, picture in newer)
        message = f"{len(newer)} pictures, such as {example}, are newer than their scores: scored anew"
        print(f"cgrpo: {message}", file=sys.stderr)
    return {key for key in done if (key[0], key[6]) not in newer}


def _is_newer(file: Path, time: float) -> bool:
    try:
        return container(file).stat().st_mtime > time
    except OSError:
        return False


def _score_chunk(
    candidates: Sequence[Candidate], wanted: Sequence[ProtocolMetric], done: set[Key], photos: Photos
) -> Iterator[ScoreRow]:
    """The rows of ``candidates`` that are not done yet."""
    lacking: dict[ProtocolMetric, list[Candidate]] = {}
    for metric in wanted:
        some = [one for one in candidates if metric.applies_to(one)]
        if any(one.key(metric.name, metric.protocol) not in done for one in some):
            lacking[metric] = some
    pictures: dict[Candidate, Image.Image] = {}
    errors: dict[Candidate, str] = {}
    for candidate in dict.fromkeys(one for some in lacking.values() for one in some):
        try:
            pictures[candidate] = side_by_side([photos.read(file) for file in candidate.files]).convert("RGB")
        except UserError as error:
            errors[candidate] = str(error)
    for metric, some in lacking.items():
        rows = [metric.row(one, None, errors[one]) for one in some if one in errors]
        readable = {one: pictures[one] for one in some if one in pictures}
        rows += _score_metric(metric, readable, photos)
        yield from (row for row in rows if row.key not in done)


def _score_metric(
    metric: ProtocolMetric, pictures: Mapping[Candidate, Image.Image], photos: Photos
) -> Iterator[ScoreRow]:
    """One metric's rows of pictures of any size, those of one size in one call."""
    parts: dict[tuple[Any, ...], list[tuple[Candidate, Compared]]] = {}
    for candidate, picture in pictures.items():
        try:
            compared = photos.compared(candidate, metric.protocol)
        except UserError as error:
            yield metric.row(candidate, None, str(error))
            continue
        parts.setdefault((picture.size, len(compared)), []).append((candidate, compared))
    for part in parts.values():
        images_NHWC = to_tensor([pictures[candidate] for candidate, _ in part])
        scores_N = _mean_over_subjects(metric, images_NHWC, part)
        for (candidate, _), score in zip(part, scores_N.tolist(), strict=True):
            failed = score != score
            error = f"{metric.name} could not score it" if failed else None
            yield metric.row(candidate, None if failed else score, error)


def _mean_over_subjects(
    metric: ProtocolMetric, images_NHWC: Tensor, part: Sequence[tuple[Candidate, Compared]]
) -> Tensor:
    """float32 [N]. The prompt is scored once, with the subjects in one phrase; identity once per subject."""
    candidates = [candidate for candidate, _ in part]
    ids, prompts = tuple(one.picture for one in candidates), tuple(one.prompt or "" for one in candidates)
    cases = tuple(one.case for one in candidates)
    spec = None if None in cases else cases
    if metric.protocol == "prompt":
        words = tuple(" and ".join(one.words) for one in candidates)
        return scored(metric.name, metric.reward, images_NHWC, Batch(ids, prompts, ((),) * len(ids), words, spec))
    columns = []
    for place in range(len(part[0][1])):
        words, references, masks = zip(*(compared[place] for _, compared in part), strict=True)
        given = masks if any(mask is not None for row in masks for mask in row) else None
        batch = Batch(ids, prompts, references, words, spec, given)
        columns.append(scored(metric.name, metric.reward, images_NHWC, batch))
    return torch.stack(columns).mean(0)
