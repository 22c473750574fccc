"""Scores of DreamBench pictures, as tidy rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.evaluation.dreambench.items import Item, side_by_side
from cgrpo.evaluation.dreambench.rows import Key, Protocol, ScoreRow, open_part, read_rows, write_row
from cgrpo.policies import read_picture
from cgrpo.rewards import Reward, scored
from cgrpo.rewards.base import to_tensor
from cgrpo.types import Batch

Read = Callable[[Path], Image.Image]


@dataclass(frozen=True)
class Wish:
    """A metric under a protocol."""

    metric: str
    reward: Reward
    protocol: Protocol

    def asks(self, item: Item) -> bool:
        """Real photographs follow no prompt."""
        return self.protocol != "prompt" or item.prompt is not None


def wishes(metrics: Mapping[str, Reward], protocols: Sequence[Protocol]) -> list[Wish]:
    """Identity metrics under each protocol, those of the prompt once."""
    return [
        Wish(name, reward, protocol)
        for name, reward in metrics.items()
        for protocol in (protocols if reward.axis == "identity" else ("prompt",))
    ]


def score_dreambench(
    metrics: Mapping[str, Reward],
    items: Sequence[Item],
    data: Path,
    out: Path,
    *,
    protocols: Sequence[Protocol] = ("one",),
    chunk: int = 32,
    rank: int = 0,
    world: int = 1,
    progress: Any = None,
) -> list[Key]:
    """Score ``items`` with all ``metrics``; rows are appended to ``out/scores.partRANK.jsonl`` as they come.

    ``rows.collect_rows`` joins the parts when all processes are through; returned is the order for it. Photographs lie
    in ``data``. An identity score is the metric against one official reference a subject ("one") or the mean over all
    its photographs ("all"); of several subjects their mean. A row that has a score already is kept; one without is
    tried again. A picture or reference that can't be read gives rows without a score, with the error. Process
    ``rank`` of ``world`` takes every ``world``-th chunk of ``chunk`` items, so that 1 and n processes score the same
    batches; scores may differ in the seventh digit, where a reward keeps references that it met in another batch. A
    metric that is broken is a UserError.
    """
    asked = wishes(metrics, protocols)
    done = {row.key for row in read_rows(out) if row.score is not None}
    read = functools.lru_cache(maxsize=16)(read_picture)
    with open_part(out, rank) as part:
        for first in range(rank * chunk, len(items), world * chunk):
            some = items[first : first + chunk]
            for row in _score_chunk(some, asked, done, data, read):
                write_row(part, row)
            part.flush()
            if progress:
                progress(len(some))
    return [item.key(w.metric, w.protocol) for item in items for w in asked if w.asks(item)]


def _score_chunk(
    items: Sequence[Item], asked: Sequence[Wish], done: set[Key], data: Path, read: Read
) -> Iterator[ScoreRow]:
    """The rows of ``items`` that are not done yet."""
    lacking = {
        wish: [item for item in items if wish.asks(item) and item.key(wish.metric, wish.protocol) not in done]
        for wish in asked
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
        yield from (_row(item, wish, None, errors[item]) for item in some if item in errors)
        readable = {item: pictures[item] for item in some if item in pictures}
        yield from _score_wish(wish, readable, data, read)


def _score_wish(wish: Wish, pictures: Mapping[Item, Image.Image], data: Path, read: Read) -> Iterator[ScoreRow]:
    """One metric's rows of pictures of any size, those of one size in one call."""
    parts: dict[tuple[Any, ...], list[tuple[Item, list[tuple[str, tuple[Image.Image, ...]]]]]] = {}
    for item, picture in pictures.items():
        try:
            known = [
                (word, tuple(read(data / name) for name in names))
                for word, names in item.references(data, wish.protocol)
            ]
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


def _mean_over_subjects(
    wish: Wish, images_NHWC: Tensor, part: Sequence[tuple[Item, list[tuple[str, tuple[Image.Image, ...]]]]]
) -> Tensor:
    """float32 [N]. The prompt is asked once, with the subjects in one phrase; identity once a subject, in its own."""
    ids = tuple(item.picture for item, _ in part)
    prompts = tuple(item.prompt or "" for item, _ in part)
    if wish.protocol == "prompt":
        words = tuple(" and ".join(word for word, _ in known) for _, known in part)
        return scored(wish.metric, wish.reward, images_NHWC, Batch(ids, prompts, ((),) * len(ids), words))
    columns = []
    for place in range(len(part[0][1])):
        words, references = zip(*(known[place] for _, known in part), strict=True)
        columns.append(scored(wish.metric, wish.reward, images_NHWC, Batch(ids, prompts, references, words)))
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
    )
