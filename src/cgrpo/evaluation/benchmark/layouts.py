"""How a row's picture is called in a method's folder: ours, UNO's, or anyone's, by a template."""

from __future__ import annotations

import os
import re
import string
import unicodedata
from contextlib import suppress
from pathlib import Path

from cgrpo.data.archives import is_file
from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.suite import Row
from cgrpo.pictures import ENDINGS

FIRST_SEED = 3407  # UNO's and Customized-GRPO's
LAYOUTS = {
    "rows": "{subject}/{index:02d}_{seed}",  # "cat/07_3407", of a pair "cat+dog/07_3407"
    "uno": "{row}_{image}",  # flat, as UNO's inference script writes them: the row's number, and the image's
}
FIELDS = ("subject", "word", "index", "prompt", "slug", "row", "image", "seed")


def picture_name(row: Row, seed: int, layout: str = "rows", first_seed: int = FIRST_SEED) -> str:
    """Where the picture of a row and a seed lies in a method's folder, without its suffix.

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
        raise UserError(
            f"--layout {layout}: {error}; give {', '.join(LAYOUTS)}, or a template of {', '.join(FIELDS)} "
            "such as {subject}/{slug}/{image}"
        ) from None
    return name.removesuffix(Path(name).suffix) if Path(name).suffix.lower() in ENDINGS else name


def slug(text: str) -> str:
    """``text`` in lower case, with "_" for whatever is no letter, mark or digit of any script."""
    kept = [char if unicodedata.category(char)[0] in "LMN" else "_" for char in unicodedata.normalize("NFC", text)]
    return re.sub("_+", "_", "".join(kept)).strip("_").lower()


def find_picture(folder: Path, name: str) -> str:
    """The name as the picture there is called (an ending of pictures.ENDINGS, whatever its case and however accents
    are spelt), else with .png. Raises UserError where several are."""
    suffixes = [spelt for suffix in ENDINGS for spelt in (suffix, suffix.upper())]
    found = [name + suffix for suffix in suffixes if is_file(folder / (name + suffix))]
    if not found:
        found = [str(Path(name).parent / other) for other in _others((folder / name).parent, Path(name).name)]
    if len(found) > 1:
        raise UserError(f"{folder}: {' and '.join(found)} are both there, and which one is meant is not; move one away")
    return found[0] if found else f"{name}.png"


def _others(folder: Path, stem: str) -> list[str]:
    """Pictures in ``folder`` whose names without the ending are ``stem`` spelt another way."""
    with suppress(OSError, ValueError):  # no folder, or none that could be one
        return [
            file
            for file in sorted(os.listdir(folder))
            if Path(file).suffix.lower() in ENDINGS and _composed(Path(file).stem) == _composed(stem)
        ]
    return []


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
