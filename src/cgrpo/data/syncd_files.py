"""SynCD as it lies on disk: the published release, and what its generators write.

    <i>/0.png 1.png [2.png]   pictures of one object, in a folder or still in zips
    <i>/masks/<k>.jpg         optional; grey, anything above 8 of 255 is the object (JPEG leaves noise in the black)
    *metadata_with_scores.json, or else *metadata.json, or else metadata_<rank>.json

Facts from the official loader and its users; the real set may differ in details. What is optional may be missing.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cgrpo.data.archives import Files
from cgrpo.data.fields import is_unicode, names_file
from cgrpo.data.tasks import Entry, LeftOut
from cgrpo.errors import UserError
from cgrpo.fingerprint import of_text
from cgrpo.text import is_blank

METADATA = ("*metadata_with_scores.json", "*metadata.json", "metadata_*.json")  # the first that matches counts
MASK_THRESHOLD = 8

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


def is_object(row: dict[str, Any]) -> bool:
    """Whether a row is of SynCD's metadata."""
    return "filenames" in row


def metadata_files(root: Path) -> list[Path]:
    """The metadata of a SynCD folder, or ``root`` itself where it is a file; [] if there is none."""
    if root.is_file():
        return [root]
    matches = (sorted(root.glob(pattern)) for pattern in METADATA)
    return next((files for files in matches if files), [])


def object_of(row: Any, where: str) -> SyncdObject:
    """The object of a row of metadata. Raises UserError."""
    if not isinstance(row, dict) or not is_object(row):
        raise UserError(f"{where}: must be an object with filenames and prompts")
    names, prompts = row["filenames"], row.get("prompts")
    if not isinstance(names, list) or len(names) < 2 or not all(names_file(name) for name in names):
        raise UserError(f"{where}: filenames must be a list of two or more picture files")
    names = [name.replace("\\", "/") for name in names]
    if not (isinstance(prompts, list) and len(prompts) == len(names) and all(map(_is_text, prompts))):
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


def _is_text(prompt: Any) -> bool:
    return isinstance(prompt, str) and is_unicode(prompt)


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
    return pairs[int(of_text(f"{seed}:{item.folder}")[:16], 16) % len(pairs)]


def subject_phrase(description: str) -> str:
    """ "a red mug." -> "red mug": what a segmenter may look for."""
    words = description.strip().rstrip(".").split()
    return " ".join(words[1:] if words and words[0].lower() in ("a", "an", "the") else words)


def mask_name(picture: str) -> str:
    """Where a picture's mask would be."""
    path = PurePosixPath(picture)
    return str(path.parent / "masks" / f"{path.stem}.jpg")


def masks(reference: str, files: Files) -> dict[str, Any]:
    """The fields of a row for the mask of its only reference; none where there is no mask."""
    name = mask_name(reference)
    return {"masks": [name], "mask_threshold": MASK_THRESHOLD} if files.find(name) else {}


def row_of(item: SyncdObject, pair: Pair, files: Files) -> dict[str, Any]:
    """A pair of an object as a row of a manifest."""
    reference, target = (item.filenames[k] for k in pair)
    return {
        "id": item.folder,
        "prompt": item.prompts[pair[1]],
        "references": [reference],
        "target": target,
        "subject": subject_phrase(item.description),
        **masks(reference, files),
        "meta": {
            "category": item.category,
            "category_description": item.description,
            "objaverse_id": item.objaverse_id,
            "ref_prompt": item.prompts[pair[0]],
        },
    }


def translate(entry: Entry) -> dict[str, Any] | LeftOut:
    """One pair of an object (``choose_pair``, seed 0): nothing is filtered but empty prompts; scores aren't needed."""
    item = object_of(entry.fields, entry.where)
    pair = choose_pair(item, item.pairs, seed=0)
    if is_blank(item.prompts[pair[1]]):
        return LeftOut(item.folder, "its prompt is empty")
    return {"mask_threshold": MASK_THRESHOLD} | row_of(item, pair, entry.files)
