"""The pictures that are scored: a method's own, by the names of their files, and the reference rows.

A method's folder holds a picture per row and seed, named our way, UNO's, or by anyone's template.
"""

from __future__ import annotations

import os
import re
import string
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cgrpo.data.archives import is_file
from cgrpo.data.captions import files_in
from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.suite import Suite, SuiteRow
from cgrpo.pictures import ENDINGS
from cgrpo.scores import COPY, REAL, Key, Protocol

FIRST_SEED = 3407  # UNO's and Customized-GRPO's
LAYOUTS = {
    "rows": "{subject}/{index:02d}_{seed}",  # "cat/07_3407", of a pair "cat+dog/07_3407"
    "uno": "{row}_{image}",  # flat, as UNO's inference script writes them: the row's number, and the image's
}
FIELDS = ("subject", "word", "index", "prompt", "slug", "row", "image", "seed")


# -- names of files --------------------------------------------------------------------------------


def picture_name(row: SuiteRow, seed: int, layout: str = "rows", first_seed: int = FIRST_SEED) -> str:
    """Where the picture of a row and a seed lies in a method's folder, without its ending.

    ``layout`` is "rows", "uno", or a template of these fields, as Python's format takes them ("{index:03d}"):
    subject ("cat", "cat+dog"), word (its class), index (of the subject's prompt, from 0), prompt, slug (the prompt
    in lower case with "_" for whatever is no letter or digit of any script), row (its number in the whole list, from
    0), seed, and image (its number, from 0; its seed is ``first_seed`` + image). Raises UserError for another field.
    """
    template = LAYOUTS.get(layout, layout)
    values = {
        "subject": row.subject,
        "word": " and ".join(row.words),
        "index": row.prompt_index,
        "prompt": row.prompt,
        "slug": slug(row.prompt),
        "row": row.number,
        "image": seed - first_seed,
        "seed": seed,
    }
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
        strange = fields - values.keys()
        if strange or not fields & {"seed", "image"} or not fields & {"row", "index", "prompt", "slug"}:
            raise ValueError(f"no field {min(strange)!r}" if strange else "has no field of the prompt or of the image")
        name = template.format(**values)
    except (ValueError, IndexError) as error:
        cure = f"give {', '.join(LAYOUTS)}, or a template of {', '.join(FIELDS)} such as {{subject}}/{{slug}}/{{image}}"
        raise UserError(f"--layout {layout}: {error}", cure) from None
    return name.removesuffix(Path(name).suffix) if Path(name).suffix.lower() in ENDINGS else name


def slug(text: str) -> str:
    """``text`` in lower case, with "_" for whatever is no letter, mark or digit of any script."""
    kept = [char if unicodedata.category(char)[0] in "LMN" else "_" for char in unicodedata.normalize("NFC", text)]
    return re.sub("_+", "_", "".join(kept)).strip("_").lower()


def find_picture(folder: Path, name: str) -> str:
    """The name of the picture that is there, with its ending (any of pictures.ENDINGS), else with .png.

    Neither the ending's case nor the spelling of accents matters. Raises UserError where several are there.
    """
    endings = [spelt for ending in ENDINGS for spelt in (ending, ending.upper())]
    there = [name + ending for ending in endings if is_file(folder / (name + ending))]
    if not there:
        there = [str(Path(name).parent / other) for other in _spelt_otherwise((folder / name).parent, Path(name).name)]
    if len(there) > 1:
        raise UserError(f"{folder}: {' and '.join(there)} are both there; move one of them away")
    return there[0] if there else f"{name}.png"


def _spelt_otherwise(folder: Path, stem: str) -> list[str]:
    """Pictures in ``folder`` whose names without the ending are ``stem`` with other code points for its accents."""

    def composed(text: str) -> str:
        return unicodedata.normalize("NFC", text)

    with suppress(OSError, ValueError):  # no folder, or none that could be one
        return [
            file
            for file in sorted(os.listdir(folder))
            if Path(file).suffix.lower() in ENDINGS and composed(Path(file).stem) == composed(stem)
        ]
    return []


# -- what is scored --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """A picture to score; ``files`` are several for a collage. The rest as in ``ScoreRow``.

    ``photos`` are the subjects' photos, one tuple per subject, its reference first; ``case`` as in ``SuiteRow``.
    """

    method: str
    subjects: tuple[str, ...]
    words: tuple[str, ...]
    prompt_index: int | None
    prompt: str | None
    subject_kind: str
    prompt_kind: str
    seed: int | None
    picture: str
    files: tuple[Path, ...]
    photos: tuple[tuple[str, ...], ...]
    case: Any = field(default=None, compare=False, repr=False)

    @property
    def subject(self) -> str:
        return "+".join(self.subjects)

    def key(self, metric: str, protocol: Protocol) -> Key:
        return (self.method, self.subject, self.prompt_index, self.seed, metric, protocol, self.picture, None)

    def references(self, protocol: Protocol) -> list[tuple[str, tuple[str, ...]]]:
        """For each subject its word and the photos it is compared with."""
        compared = {"prompt": slice(0), "one": slice(1)}.get(protocol, slice(None))
        return [(word, names[compared]) for word, names in zip(self.words, self.photos, strict=True)]


def _of_row(
    suite: Suite, row: SuiteRow, method: str, seed: int | None, picture: str, files: tuple[Path, ...]
) -> Candidate:
    photos = tuple(suite.photos[name] for name in row.subjects)
    if len(row.subjects) == 1:  # those that it was shown first: rows of one subject may be shown others
        shown = [name for name in row.references if name in photos[0]]
        photos = (tuple(dict.fromkeys((*shown, *photos[0]))),)
    texts = (row.prompt_index, row.prompt, row.subject_kind, row.prompt_kind)
    return Candidate(method, row.subjects, row.words, *texts, seed, picture, files, photos, row.case)


def method_candidates(
    method: str, folder: Path, suite: Suite, seeds: int, first_seed: int = FIRST_SEED, layout: str = "rows"
) -> list[Candidate]:
    """A method's pictures in ``folder``, one per row and seed, there or not.

    Raises UserError if there is none at all, or if two rows have one.
    """
    candidates, owners = [], {}
    for row in suite.rows:
        for seed in range(first_seed, first_seed + seeds):
            name = picture_name(row, seed, layout, first_seed)
            other = owners.setdefault(name, row)
            if other is not row:
                raise UserError(
                    f"--layout {layout}: rows {other.number} ({other.subject}: {other.prompt[:60]!r}) and {row.number} "
                    f"({row.subject}: {row.prompt[:60]!r}) have one picture, {name[:60]}; add {{row}} to it"
                )
            name = find_picture(folder, name)
            candidates.append(_of_row(suite, row, method, seed, name, (folder / name,)))
    if not any(candidate.files[0].is_file() for candidate in candidates):
        example = candidates[0].picture
        raise UserError(
            f"{folder} holds none of the pictures, such as {example}; see --layout, --seeds and --first-seed"
        )
    return candidates


def of_no_row(folder: Path, candidates: Sequence[Candidate]) -> list[str]:
    """Pictures in ``folder`` that are no candidates: perhaps they are numbered otherwise than the rows are."""
    named = {file for candidate in candidates for file in candidate.files}
    others = [file for file in files_in(folder) if file.suffix.lower() in ENDINGS and file not in named]
    return [str(file.relative_to(folder)) for file in others]


def real_candidates(suite: Suite) -> list[Candidate]:
    """The ceiling: the rows' targets where they have any, else each subject's real photos but its reference.

    Photos follow no prompt, and a photo isn't compared with itself. Of pairs, subjects stand alone.
    """
    targets = [
        _of_row(suite, row, REAL, None, row.target, (suite.root / row.target,)) for row in suite.rows if row.target
    ]
    if targets:
        return targets
    singles = {name: (row, place) for row in suite.rows for place, name in enumerate(row.subjects)}
    candidates = []
    for subject, (row, place) in singles.items():
        kind = row.subject_kind if len(row.subjects) == 1 else ""
        for name in suite.photos[subject][1:]:
            others = (tuple(other for other in suite.photos[subject] if other != name),)
            named = (REAL, (subject,), (row.words[place],))
            candidates.append(Candidate(*named, None, None, kind, "", None, name, (suite.root / name,), others))
    return candidates


def copy_candidates(suite: Suite) -> list[Candidate]:
    """The reference itself as the output for every prompt; of a pair, both references side by side."""
    candidates = []
    for row in suite.rows:
        shown = tuple(suite.photos[name][0] for name in row.subjects)
        files = tuple(suite.root / name for name in shown)
        candidates.append(_of_row(suite, row, COPY, None, " + ".join(shown), files))
    return candidates
