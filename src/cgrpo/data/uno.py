"""UNO-1M's labels: pairs of pictures of one subject, a caption of each, and a vision-language model's score.

    labels/split1.json   a list of {img_path1, img_path2: "split1/...png", caption: {img_path1, img_path2: a caption of
                         each, subject: [words], judgment}, vlm_filter_cot: {score_part, score_final}}
    images/split1/...    the pictures, once images/split1.tar.gz is unpacked

A row is a record: the first picture is the reference, the second the target, its caption the prompt. Rows are left out,
and counted, whose score_final is below 3.5 (what the data card advises; UNO's paper took only 4) or above 4, the
best there is: one record is known to have an absurd score. A row without a score was filtered by whoever made the
file, and stays.

Written from the data card and from programs that read the set; no real file of it was checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cgrpo.data.archives import Files
from cgrpo.data.fields import record_of
from cgrpo.data.rows import LeftOut
from cgrpo.errors import UserError
from cgrpo.types import Task

LOWEST, BEST = 3.5, 4.0


def is_uno_label(row: Any) -> bool:
    return isinstance(row, dict) and {"img_path1", "img_path2", "caption"} <= row.keys()


def pictures_folder(labels: Path) -> Path:
    """Where the paths in a file of labels lead from: images/ beside it, or beside its folder, or its own folder."""
    for folder in (labels.parent / "images", labels.parent.parent / "images"):
        if folder.is_dir():
            return folder
    return labels.parent


def uno_record(row: dict[str, Any], name: str, manifest: str, files: Files) -> Task | LeftOut:
    """A row of labels; ``name`` ends in its number. Raises UserError."""
    told, scored = row["caption"], row.get("vlm_filter_cot")
    if not isinstance(told, dict):
        raise UserError(f"manifest {manifest}, {name}: caption must be an object with a text for img_path2")
    if isinstance(scored, dict) and "score_final" in scored:
        score = scored["score_final"]
        if not isinstance(score, int | float) or not LOWEST <= score <= BEST:
            return LeftOut(name.rpartition(" ")[2], f"score_final is {score}, not from {LOWEST} to {BEST}")
    words = told.get("subject")
    given = {
        "id": row.get("id"),
        "prompt": told.get("img_path2"),
        "references": [row["img_path1"]],
        "target": row["img_path2"],
        "subject": words[0] if isinstance(words, list) and words else words,
        "meta": {"ref_prompt": told.get("img_path1"), "vlm_filter_cot": scored},
    }
    return record_of(given, name, manifest, files)
