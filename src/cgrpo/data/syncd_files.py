"""SynCD as it lies on disk: the published release, what its generators write, and the subset in the release.

    <i>/0.png 1.png [2.png]   pictures of one object, in a folder or still in zips
    <i>/masks/<k>.jpg         optional; grey, anything above 8 of 255 is the object (JPEG leaves noise in the black)
    *metadata_with_scores.json, or else *metadata.json, or else metadata_<rank>.json

Facts from the official loader and its users; the real set may differ in details. What is optional may be missing.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cgrpo.data.archives import Files
from cgrpo.data.fields import id_of, is_unicode, names_file
from cgrpo.data.rows import Fault, Rows, load_rows
from cgrpo.errors import UserError
from cgrpo.types import Task

METADATA = ("*metadata_with_scores.json", "*metadata.json", "metadata_*.json")  # the first that matches counts
MASK_THRESHOLD = 8
SUBSET_KEYS = ("ref_img", "img", "text")

Pair = tuple[int, int]


@dataclass(frozen=True)
class SyncdObject:
    """One object with its pictures (by name under the root) and their prompts.

    ``folder`` names it: the folder of its pictures, or their common stem where they lie flat.
    ``similarity`` are cosines by pair (i < j), ``aesthetics`` scores from 0 to 10 by picture; None: not scored.
    """

    folder: str
    filenames: tuple[str, ...]
    prompts: tuple[str, ...]
    category: str = ""
    description: str = ""
    objaverse_id: str = ""
    similarity: dict[Pair, float] | None = None
    aesthetics: tuple[float, ...] | None = None

    @property
    def pairs(self) -> list[Pair]:
        """(i, j) with i < j, in lexical order."""
        return list(itertools.combinations(range(len(self.filenames)), 2))

    @property
    def order(self) -> tuple[float, str]:
        """Sorts folders by number; names that aren't numbers come after."""
        number = int(self.folder) if self.folder.isdecimal() else math.inf
        return (number, self.folder)


def is_syncd(row: Any) -> bool:
    return isinstance(row, dict) and "filenames" in row


def metadata_files(root: Path) -> list[Path]:
    """The metadata of a SynCD folder, or ``root`` itself where it is a file; [] if there is none."""
    if root.is_file():
        return [root]
    for pattern in METADATA:
        found = sorted(root.glob(pattern))
        if found:
            return found
    return []


def load_objects(metadata: Sequence[Path]) -> list[SyncdObject | Fault]:
    """The objects of metadata files, in order; a row at fault is a Fault in its place. Raises UserError."""
    found: list[SyncdObject | Fault] = []
    for path in metadata:
        for number, row in enumerate(load_rows(path)[0]):
            where = f"SynCD metadata {path}, record {number}"
            try:
                found.append(_object(row, where))
            except UserError as error:
                found.append(Fault(str(number), str(error)))
    return found


def _object(row: Any, where: str) -> SyncdObject:
    if not is_syncd(row):
        raise UserError(f"{where}: must be an object with filenames and prompts")
    names, prompts = row["filenames"], row.get("prompts")
    if not isinstance(names, list) or len(names) < 2 or not all(names_file(name) for name in names):
        raise UserError(f"{where}: filenames must be a list of two or more picture files")
    names = [name.replace("\\", "/") for name in names]
    texts = isinstance(prompts, list) and all(isinstance(p, str) and is_unicode(p) for p in prompts)
    if not texts or len(prompts) != len(names):
        raise UserError(f"{where}: prompts must be a list with one text for each of the {len(names)} filenames")
    first = PurePosixPath(names[0])
    folder = str(first.parent) if first.parent.name else first.stem.rpartition("_")[0] or first.stem
    return SyncdObject(
        folder=folder,
        filenames=tuple(names),
        prompts=tuple(prompts),
        category=str(row.get("category") or ""),
        description=str(row.get("category_description") or ""),
        objaverse_id=str(row.get("objaverse_id") or ""),
        similarity=_similarity(row.get("dino_scores"), len(names), where),
        aesthetics=_aesthetics(row.get("aesthetics_scores"), names, where),
    )


def _similarity(table: Any, count: int, where: str) -> dict[Pair, float] | None:
    """The upper triangle; the rest of the table is not filled."""
    if table is None:
        return None
    square = isinstance(table, list) and len(table) == count
    if not square or not all(isinstance(row, list) and len(row) == count for row in table):
        raise UserError(f"{where}: dino_scores must be a {count} x {count} table, one row for each filename")
    pairs = {(i, j): table[i][j] for i, j in itertools.combinations(range(count), 2)}
    if not all(_is_number(value) for value in pairs.values()):
        raise UserError(f"{where}: dino_scores must be numbers")
    return pairs


def _aesthetics(scores: Any, names: list[str], where: str) -> tuple[float, ...] | None:
    if scores is None:
        return None
    stems = [PurePosixPath(name).stem for name in names]
    if not isinstance(scores, dict) or not all(_is_number(scores.get(stem)) for stem in stems):
        raise UserError(f"{where}: aesthetics_scores must have a number for each of {', '.join(stems)}")
    return tuple(float(scores[stem]) for stem in stems)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def choose_pair(item: SyncdObject, pairs: Sequence[Pair], seed: int) -> Pair:
    """One of ``pairs``: number SHA-256("seed:folder"), its first 8 bytes big-endian, modulo how many there are."""
    digest = hashlib.sha256(f"{seed}:{item.folder}".encode()).digest()
    return pairs[int.from_bytes(digest[:8], "big") % len(pairs)]


def subject_phrase(description: str) -> str:
    """ "a red mug." -> "red mug": what a segmenter may look for."""
    words = description.strip().rstrip(".").split()
    return " ".join(words[1:] if words and words[0].lower() in ("a", "an", "the") else words)


def mask_name(picture: str) -> str:
    """Where a picture's mask would be."""
    path = PurePosixPath(picture)
    return str(path.parent / "masks" / f"{path.stem}.jpg")


def scan_syncd(root: Path, pictures: Path | None = None) -> Rows:
    """A record for each object, one of its pairs (``choose_pair``, seed 0): nothing is filtered, scores aren't needed.

    ``root`` is SynCD's folder, or one metadata file in it; ``pictures`` the pictures' folder, if it is another.
    """
    files = Files(pictures or (root if root.is_dir() else root.parent))
    return [
        row if isinstance(row, Fault) else _record(row, choose_pair(row, row.pairs, seed=0), files)
        for row in load_objects(metadata_files(root))
    ]


def _record(item: SyncdObject, pair: Pair, files: Files) -> Task:
    reference, target = (item.filenames[k] for k in pair)
    mask = files.find(mask_name(reference))
    return Task(
        id=item.folder,
        prompt=item.prompts[pair[1]],
        references=(files.path(reference),),
        subject=subject_phrase(item.description),
        target=files.path(target),
        masks=(mask,) if mask else (),
        mask_threshold=MASK_THRESHOLD,
        meta=pair_meta(item, pair),
    )


def pair_meta(item: SyncdObject, pair: Pair) -> dict[str, Any]:
    return {
        "category": item.category,
        "category_description": item.description,
        "objaverse_id": item.objaverse_id,
        "ref_prompt": item.prompts[pair[0]],
    }


def subset_record(row: dict[str, Any], where: str, files: Files) -> Task:
    """A row of the 6,924 that Customized-GRPO's release trains on. Raises UserError.

    Its text embeddings (``.pt``) are not read: prompts are encoded anew, and nothing is ever unpickled. Nor is
    ``<k>_seg.png`` looked for, which the release's reward silently prefers to the reference if it lies beside it.
    """
    for key in SUBSET_KEYS:
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise UserError(f"{where}: {key} is missing or empty")
    mask = files.find(mask_name(row["ref_img"]))
    kept = ("category", "category_description", "ref_prompt")
    return Task(
        id=id_of(row) or where.rpartition(" ")[2],
        prompt=row["text"],
        references=(files.path(row["ref_img"]),),
        subject=subject_phrase(str(row.get("category_description") or "")),
        target=files.path(row["img"]),
        masks=(mask,) if mask else (),
        mask_threshold=MASK_THRESHOLD,
        meta={key: row[key] for key in kept if key in row},
    )
