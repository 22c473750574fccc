"""Scores of a benchmark's pictures, as tidy rows."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cgrpo.data.archives import container, open_picture
from cgrpo.data.masks import mask_of
from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.items import Item
from cgrpo.evaluation.benchmark.suite import Masks
from cgrpo.evaluation.metrics import Scorer
from cgrpo.pictures import side_by_side
from cgrpo.rewards import Reward, scored
from cgrpo.rewards.base import to_tensor
from cgrpo.scores import Key, Protocol, ScoreRow, last_scored, open_part, protocol_of, read_scores, write_row
from cgrpo.types import Batch

Read = Callable[[Path], Image.Image]
# Each subject's word, photographs, and their masks.
Known = list[tuple[str, tuple[Image.Image, ...], tuple[Image.Image | None, ...]]]


@dataclass(frozen=True)
class Wish:
    """A metric under a protocol."""

    metric: str
    reward: Reward
    protocol: Protocol

    def asks(self, item: Item) -> bool:
        """Real photographs follow no prompt."""
        return self.protocol != "prompt" or item.prompt is not None


def wishes(metrics: Mapping[str, Scorer], protocols: Sequence[Protocol]) -> list[Wish]:
    """Identity metrics under each protocol, those of the prompt and guards once."""
    found = (
        Wish(name, scorer.score, protocol_of(scorer.role, scorer.score.axis, protocol))
        for name, scorer in metrics.items()
        for protocol in protocols
    )
    return list(dict.fromkeys(found))


def score_items(
    metrics: Mapping[str, Scorer],
    items: Sequence[Item],
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
    """Score ``items`` with all ``metrics``; rows are appended to ``out/scores.partRANK.jsonl`` as they come.

    ``rows.collect_rows`` joins the parts when all processes are through; returned is the order for it. Photographs'
    names are relative to ``root``. An identity score is the metric against the one reference of a subject ("one") or
    the mean over all its photographs ("all"), of several subjects their mean; ``masks`` are the data set's own. A row
    that has a score already is kept unless its picture is newer; one without is tried again. What can't be read (a
    picture, a photograph, a mask) gives rows without a score, with the error. Process ``rank`` of ``world`` takes every
    ``world``-th chunk of ``chunk`` items. A chunk that was broken off is scored whole again for the rows it lacks: at
    equal threads every digit is that of an undisturbed single process.
    A metric that is broken is a UserError.
    """
    asked = wishes(metrics, protocols)
    done = _still_true({row.key for row in read_scores(out) if row.score is not None}, items, last_scored(out), rank)
    read = functools.lru_cache(maxsize=16)(open_picture)
    with open_part(out, rank) as part:
        for first in range(rank * chunk, len(items), world * chunk):
            some = items[first : first + chunk]
            for row in _score_chunk(some, asked, done, root, read, masks or {}):
                write_row(part, row)
            part.flush()
            if progress:
                progress(len(some))
    return [item.key(w.metric, w.protocol) for item in items for w in asked if w.asks(item)]


def _still_true(done: set[Key], items: Sequence[Item], scored_at: float, rank: int) -> set[Key]:
    """The rows without those of pictures that were made anew since; process 0 says how many these are."""
    rows = {(key[0], key[6]) for key in done}
    made = [item for item in items if item.seed is not None and (item.method, item.picture) in rows]
    newer = {(item.method, item.picture) for item in made if any(_is_newer(file, scored_at) for file in item.files)}
    if newer and rank == 0:
        example = min(picture for _, picture in newer)
        told = f"{len(newer)} pictures, such as {example}, are newer than their scores: scored anew"
        print(f"cgrpo: {told}", file=sys.stderr)
    return {key for key in done if (key[0], key[6]) not in newer}


def _is_newer(file: Path, time: float) -> bool:
    try:
        return container(file).stat().st_mtime > time
    except OSError:
        return False


def _score_chunk(
    items: Sequence[Item], asked: Sequence[Wish], done: set[Key], root: Path, read: Read, masks: Masks
) -> Iterator[ScoreRow]:
    """The rows of ``items`` that are not done yet."""
    wanted = {wish: [item for item in items if wish.asks(item)] for wish in asked}
    lacking = {
        wish: some
        for wish, some in wanted.items()
        if any(item.key(wish.metric, wish.protocol) not in done for item in some)
    }
    needed = {item for some in lacking.values() for item in some}
    pictures: dict[Item, Image.Image] = {}
    errors: dict[Item, str] = {}
    for item in items:
        if item in needed:
            try:
                pictures[item] = side_by_side([read(file) for file in item.files]).convert("RGB")
            except UserError as error:
                errors[item] = str(error)
    for wish, some in lacking.items():
        rows = [_row(item, wish, None, errors[item]) for item in some if item in errors]
        readable = {item: pictures[item] for item in some if item in pictures}
        rows += _score_wish(wish, readable, root, read, masks)
        yield from (row for row in rows if row.key not in done)


def _score_wish(
    wish: Wish, pictures: Mapping[Item, Image.Image], root: Path, read: Read, masks: Masks
) -> Iterator[ScoreRow]:
    """One metric's rows of pictures of any size, those of one size in one call."""
    parts: dict[tuple[Any, ...], list[tuple[Item, Known]]] = {}
    for item, picture in pictures.items():
        try:
            known = _known(item, wish, root, read, masks)
        except UserError as error:
            yield _row(item, wish, None, str(error))
            continue
        parts.setdefault((picture.size, len(known)), []).append((item, known))
    for part in parts.values():
        images_NHWC = to_tensor([pictures[item] for item, _ in part])
        scores_N = _mean_over_subjects(wish, images_NHWC, part)
        for (item, _), score in zip(part, scores_N.tolist(), strict=True):
            lost = score != score
            yield _row(item, wish, None if lost else score, f"{wish.metric} could not score it" if lost else None)


def _known(item: Item, wish: Wish, root: Path, read: Read, masks: Masks) -> Known:
    """Raises UserError for a photograph or a mask that can't be read."""
    known: Known = []
    for subject, (word, names) in zip(item.subjects, item.references(wish.protocol), strict=True):
        shown = tuple(read(root / name) for name in names)
        given = [masks.get((subject, name)) for name in names]
        fitted = (mask and mask_of(picture, *mask) for picture, mask in zip(shown, given, strict=True))
        known.append((word, shown, tuple(fitted)))
    return known


def _mean_over_subjects(wish: Wish, images_NHWC: Tensor, part: Sequence[tuple[Item, Known]]) -> Tensor:
    """float32 [N]. The prompt is asked once, with the subjects in one phrase; identity once a subject, in its own."""
    items = [item for item, _ in part]
    ids, prompts = tuple(item.picture for item in items), tuple(item.prompt or "" for item in items)
    cases = tuple(item.case for item in items)
    spec = None if None in cases else cases
    if wish.protocol == "prompt":
        words = tuple(" and ".join(item.words) for item in items)
        batch = Batch(ids, prompts, ((),) * len(ids), words, spec)
        return scored(wish.metric, wish.reward, images_NHWC, batch)
    columns = []
    for place in range(len(part[0][1])):
        words, references, masks = zip(*(known[place] for _, known in part), strict=True)
        given = masks if any(mask is not None for row in masks for mask in row) else None
        batch = Batch(ids, prompts, references, words, spec, given)
        columns.append(scored(wish.metric, wish.reward, images_NHWC, batch))
    return torch.stack(columns).mean(0)


def _row(item: Item, wish: Wish, score: float | None, error: str | None) -> ScoreRow:
    return ScoreRow(
        method=item.method,
        subject=item.subject,
        prompt_index=item.prompt_index,
        prompt=item.prompt,
        seed=item.seed,
        metric=wish.metric,
        protocol=wish.protocol,
        score=score,
        picture=item.picture,
        error=error,
        subject_kind=item.subject_kind,
        prompt_kind=item.prompt_kind,
    )
