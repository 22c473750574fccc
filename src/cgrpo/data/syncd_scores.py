"""Scores for SynCD's objects where its metadata has none: similarity of the views, beauty of each."""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image
from torch import Tensor

from cgrpo.data.archives import Files, open_picture, read_bytes
from cgrpo.data.masks import fit_mask, read_mask
from cgrpo.data.syncd_files import MASK_THRESHOLD, SyncdObject, mask_name
from cgrpo.errors import UserError
from cgrpo.files import json_text, reading, writing
from cgrpo.fingerprint import of_bytes, of_text

OBJECTS_PER_CALL = 16
DECIMALS = 6  # of a score: what is beyond depends on which objects share a call

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Scorers:
    """Models to score with.

    ``name``       says which they are, weights and preprocessing: scores under another name aren't used again
    ``features``   pictures and their masks (mode L, black and white; None: has none) -> unit rows [N, C]. SynCD's own
                   scores: DINOv2 ViT-L/14 with registers, of the masked crop
    ``aesthetic``  pictures -> N scores. SynCD's own: LAION's V1, on CLIP ViT-L/14
    """

    name: str
    features: Callable[[list[Image.Image], list[Image.Image | None]], Tensor]
    aesthetic: Callable[[list[Image.Image]], Sequence[float] | Tensor]


def score_objects(
    objects: Sequence[SyncdObject],
    files: Files,
    scorers: Scorers,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[list[SyncdObject], list[str]]:
    """The objects with their scores, and lines about those that couldn't be scored and are left out.

    Scores that ``cache`` (JSON lines, appended to) holds already are read from it.

    Entries are found by the content of pictures and masks and the scorers' name, so moved or renamed sets keep
    theirs. A kill loses at most the last few objects. ``progress`` gets (done, all) objects. Raises UserError
    if the cache can't be written; a scorer that fails raises what it raises.
    """
    cached = _read_cache(cache)
    done, unreadable, waiting = [], [], []
    _append(cache, [])  # one that can't be written shows now
    for number, item in enumerate(objects):
        try:
            key = _key(item, files, scorers.name)
            entry = cached.get(key)
            if entry is None:
                waiting.append((key, item, *_pictures(item, files)))
            else:
                done.append(_with_scores(item, entry))
        except UserError as error:
            unreadable.append(f"{item.folder}: {error}")
        if waiting and (len(waiting) == OBJECTS_PER_CALL or number == len(objects) - 1):
            entries = list(_score(waiting, scorers))
            _append(cache, entries)
            done += [_with_scores(one[1], entry) for one, entry in zip(waiting, entries, strict=True)]
            waiting = []
        if progress is not None:
            progress(number + 1, len(objects))
    return done, unreadable


Waiting = tuple[str, SyncdObject, list[Image.Image], list[Image.Image | None]]


def _pictures(item: SyncdObject, files: Files) -> tuple[list[Image.Image], list[Image.Image | None]]:
    pictures, masks = [], []
    for name in item.filenames:
        pictures.append(open_picture(files.path(name)))
        mask = files.find(mask_name(name))
        masks.append(None if mask is None else fit_mask(read_mask(mask), pictures[-1].size, MASK_THRESHOLD))
    return pictures, masks


def _score(waiting: list[Waiting], scorers: Scorers) -> Iterator[dict[str, Any]]:
    """The scores of all waiting objects in one call of each model. Raises UserError for scores that aren't finite."""
    pictures = [picture for _, _, some, _ in waiting for picture in some]
    masks = [mask for _, _, _, some in waiting for mask in some]
    features_NC = scorers.features(pictures, masks).double()
    cosines_NN, aesthetics = (features_NC @ features_NC.T).tolist(), [float(s) for s in scorers.aesthetic(pictures)]
    first = 0
    for key, item, some, _ in waiting:
        rows = range(first, first + len(some))
        first = rows.stop
        table = [[round(cosines_NN[i][j], DECIMALS) if i < j else 0.0 for j in rows] for i in rows]
        stems = [PurePosixPath(name).stem for name in item.filenames]
        scores = dict(zip(stems, (round(aesthetics[row], DECIMALS) for row in rows), strict=True))
        if not all(math.isfinite(value) for value in (*itertools.chain(*table), *scores.values())):
            raise UserError(f"SynCD object {item.folder}: a score isn't finite", f"check the scorers {scorers.name!r}")
        yield {"key": key, "folder": item.folder, "dino_scores": table, "aesthetics_scores": scores}


def _with_scores(item: SyncdObject, entry: dict[str, Any]) -> SyncdObject:
    table, scores = entry["dino_scores"], list(entry["aesthetics_scores"].values())
    return replace(item, similarity={(i, j): table[i][j] for i, j in item.pairs}, aesthetics=tuple(scores))


def _key(item: SyncdObject, files: Files, scorers: str) -> str:
    """The fingerprint of scorers, pictures and masks. Names play no part but for their stems, keys of the scores."""
    lines = [scorers]
    for name in item.filenames:
        for path in (files.path(name), files.find(mask_name(name))):
            lines.append(f"{PurePosixPath(name).stem} {'' if path is None else of_bytes(read_bytes(path))}")
    return of_text("\n".join(lines))


def _read_cache(path: Path | None) -> dict[str, dict[str, Any]]:
    """Entries by key; a line cut short by a kill is passed over."""
    entries = {}
    if path is not None and path.is_file():
        with reading(path), path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                with suppress(ValueError, LookupError, TypeError):
                    entry = json.loads(line)
                    entries[entry["key"]] = {name: entry[name] for name in ("dino_scores", "aesthetics_scores")}
    return entries


def _append(path: Path | None, entries: Sequence[dict[str, Any]]) -> None:
    """Add entries on lines of their own: one that a kill cut short must not swallow the next."""
    if path is not None:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.writelines(f"\n{json_text(entry)}\n" for entry in entries)
