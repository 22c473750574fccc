"""Rows as published data sets have them, in fields of their own, translated into those of tasks.py.

A dialect is an entry of DIALECTS: how such a row is recognised, and its translation. Rows of SynCD's metadata are one
of them (syncd_files.py). Subjects200K's come in parquet files alone, whose columns tell (parquet.py). UNO-1M's and
Subjects200K's follow descriptions of the sets; no real file was checked.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from cgrpo.data import benchmarks, syncd_files
from cgrpo.data.tasks import Entry, LeftOut
from cgrpo.errors import UserError

UNO_LOWEST, UNO_BEST = 3.5, 4.0
SUBJECTS200K_SCORES = ("compositeStructure", "objectConsistency", "imageQuality")
SUBJECTS200K_ENOUGH = 5
SUBJECTS200K_VALUES = ("id", "description", "quality_assessment", "collection")


class Dialect(NamedTuple):
    """How rows of one published data set are told and read.

    recognises  whether a row is one
    translate   a row in the fields of tasks.py, or why it is left out; raises UserError
    folder      where its pictures' names lead from, given the file; None: from the file's folder
    """

    recognises: Callable[[dict[str, Any]], bool]
    translate: Callable[[Entry], dict[str, Any] | LeftOut]
    folder: Callable[[Path], Path] | None = None


def translated(entry: Entry) -> Entry | LeftOut:
    """The entry in the fields of tasks.py. Raises UserError."""
    dialect = dialect_of(entry.fields)
    fields = entry.fields if dialect is None else dialect.translate(entry)
    return fields if isinstance(fields, LeftOut) else replace(entry, fields=fields)


def dialect_of(row: Any) -> Dialect | None:
    """The dialect of a row; None where it is in the fields of tasks.py, or no object."""
    return next((one for one in DIALECTS.values() if isinstance(row, dict) and one.recognises(row)), None)


def is_subset(row: dict[str, Any]) -> bool:
    """A row of the 6,924 of SynCD that Customized-GRPO's release trains on: {ref_img, img, text, ...}."""
    return "ref_img" in row


def translate_subset(entry: Entry) -> dict[str, Any]:
    """Its pictures lie in SynCD's folder.

    Its text embeddings (``.pt``) are not read: prompts are encoded anew, and nothing is ever unpickled. Nor is
    ``<k>_seg.png`` looked for, which the release's reward silently prefers to the reference if it lies next to it.
    """
    row = entry.fields
    for key in ("ref_img", "img", "text"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise UserError(f"{entry.where}: {key} is missing or empty")
    return {
        "id": row.get("id"),
        "prompt": row["text"],
        "references": [row["ref_img"]],
        "target": row["img"],
        "subject": syncd_files.subject_phrase(str(row.get("category_description") or "")),
        "mask_threshold": syncd_files.MASK_THRESHOLD,
        **syncd_files.masks(row["ref_img"], entry.files),
        "meta": {key: row[key] for key in ("category", "category_description", "ref_prompt") if key in row},
    }


def is_uno(row: dict[str, Any]) -> bool:
    """A row of UNO-1M's labels/split1.json.

    {img_path1, img_path2: "split1/...png", caption: {img_path1, img_path2: a caption of each, subject: [words]},
    vlm_filter_cot: {score_part, score_final}}; the pictures are in images/split1/, once their archive is unpacked.
    """
    return {"img_path1", "img_path2", "caption"} <= row.keys()


def uno_folder(labels: Path) -> Path:
    """Where the paths in a file of labels lead from: images/ next to it or to its folder, or its own folder."""
    places = (labels.parent / "images", labels.parent.parent / "images")
    return next((folder for folder in places if folder.is_dir()), labels.parent)


def translate_uno(entry: Entry) -> dict[str, Any] | LeftOut:
    """The first picture is the reference, the second the target, its caption the prompt.

    Rows are left out whose score_final is below 3.5 (what the data card advises; UNO's paper took only 4) or above 4,
    the best: one record is known to have an absurd score. A row without a score was filtered by whoever made the file.
    """
    row, caption, scored = entry.fields, entry.fields["caption"], entry.fields.get("vlm_filter_cot")
    if not isinstance(caption, dict):
        raise UserError(f"{entry.where}: caption must be an object with a text for img_path2")
    if isinstance(scored, dict) and "score_final" in scored:
        score = scored["score_final"]
        if not isinstance(score, int | float) or not UNO_LOWEST <= score <= UNO_BEST:
            return LeftOut(entry.id, f"score_final is {score}, not from {UNO_LOWEST} to {UNO_BEST}")
    words = caption.get("subject")
    return {
        "id": row.get("id"),
        "prompt": caption.get("img_path2"),
        "references": [row["img_path1"]],
        "target": row["img_path2"],
        "subject": words[0] if isinstance(words, list) and words else words,
        "meta": {"ref_prompt": caption.get("img_path1"), "vlm_filter_cot": scored},
    }


def is_flow_factory(row: dict[str, Any]) -> bool:
    """A row of Flow-Factory's version 2. Those of version 1, {prompt, images}, are in the fields of tasks.py.

    {input: {prompt, media: [{type: "image", path, slot}]}, supervision: {target: {media}}}; or {chosen, rejected} for
    a preference pair.
    """
    return isinstance(row.get("input"), dict) and "prompt" in row["input"]


def translate_flow_factory(entry: Entry) -> dict[str, Any]:
    """Media of the input are the references, in their order; slots name arguments of pipelines and play no part."""
    row, given = entry.fields, _object(entry.fields, "supervision", entry)
    fields = {"id": row.get("id"), "prompt": row["input"]["prompt"], "meta": row.get("metadata")}
    fields["references"] = _media(row["input"].get("media"), "type", "path", entry)
    for theirs, ours in (("target", "target"), ("chosen", "winner"), ("rejected", "loser")):
        pictures = _media(_object(given, theirs, entry).get("media"), "type", "path", entry)
        fields[ours] = pictures[0] if len(pictures) == 1 else pictures or None
    return fields


def is_unirl(row: dict[str, Any]) -> bool:
    """A row of UniRL: {prompt, media (or media_refs): [{modality: "image", role: "condition" or "target", uri}]}."""
    media = row.get("media_refs", row.get("media"))
    return bool(media) and isinstance(media, list) and all(isinstance(item, dict) and "role" in item for item in media)


def translate_unirl(entry: Entry) -> dict[str, Any]:
    """Media with the role condition, or prompt, are the references. Raises UserError for others than the target."""
    row = entry.fields
    media = row.get("media_refs", row.get("media"))
    by_role = {role: [item for item in media if item["role"] == role] for role in ("condition", "prompt", "target")}
    if len(media) > sum(map(len, by_role.values())):
        raise UserError(f"{entry.where}: media has a role other than condition, prompt and target")
    pictures = {role: _media(items, "modality", "uri", entry) for role, items in by_role.items()}
    return {
        "id": row.get("sample_id", row.get("prompt_id")),
        "prompt": row.get("prompt", row.get("caption")),
        "references": pictures["condition"] + pictures["prompt"],
        "target": pictures["target"][0] if len(pictures["target"]) == 1 else pictures["target"] or None,
        "subject": row.get("subject"),
        "meta": row.get("metadata"),
    }


def _object(table: dict[str, Any], key: str, entry: Entry) -> dict[str, Any]:
    value = table.get(key) or {}
    if not isinstance(value, dict):
        raise UserError(f"{entry.where}: {key} must be an object")
    return value


def _media(items: Any, kind: str, name: str, entry: Entry) -> list[Any]:
    """The names in a list of media, all of which must be images. Raises UserError."""
    items = items if isinstance(items, list | None) else [items]
    for item in items or []:
        if not isinstance(item, dict) or item.get(kind) != "image" or name not in item:
            raise UserError(
                f"{entry.where}: media must be images, {{{kind}: image, {name}: file}}, not {ascii(item)[:60]}"
            )
    return [item[name] for item in items or []]


def is_subjects200k(columns: Collection[str], description: Collection[str]) -> bool:
    """Whether a parquet file with these columns, and these fields in its description, is of Subjects200K.

    image               a composite, 1056 x 528 pixels, of a left and a right picture (archives.py cuts it)
    description         {item, description_0, description_1, category, description_valid, ...}: the subject's name and a
                        caption of each picture
    quality_assessment  {compositeStructure, objectConsistency, imageQuality}, each from 0 to 5, or null
    """
    return {"image", "description"} <= set(columns) and {"description_0", "description_1"} <= set(description)


def translate_subjects200k(row: dict[str, Any]) -> dict[str, Any] | LeftOut:
    """The left picture is the reference, the right one the target, its caption the prompt; ``row`` has an id.

    The usual filter leaves rows out: a score below 5, no scores, or descriptions marked as not valid. A file without
    the column quality_assessment was filtered by whoever made it.
    """
    description, image = row["description"] or {}, row["image"]
    if description.get("description_valid") is False:
        return LeftOut(row["id"], "its descriptions are marked as not valid")
    for name in SUBJECTS200K_SCORES if "quality_assessment" in row else ():
        score = (row["quality_assessment"] or {}).get(name)
        if not isinstance(score, int | float) or not score >= SUBJECTS200K_ENOUGH:
            return LeftOut(row["id"], f"{name} is {score}, below {SUBJECTS200K_ENOUGH}")
    kept = {name: row[name] for name in ("collection", "quality_assessment") if row.get(name) is not None}
    about = {"ref_prompt": description.get("description_0"), "category": description.get("category")}
    return {
        "id": row["id"],
        "prompt": description.get("description_1"),
        "references": [f"{image}/left"] if image else None,
        "target": f"{image}/right" if image else None,
        "subject": description.get("item"),
        "meta": about | kept,
    }


DIALECTS = {
    "SynCD": Dialect(syncd_files.is_object, syncd_files.translate),
    "the release's subset of SynCD": Dialect(is_subset, translate_subset),
    "UNO-1M": Dialect(is_uno, translate_uno, uno_folder),
    "Flow-Factory": Dialect(is_flow_factory, translate_flow_factory),
    "UniRL": Dialect(is_unirl, translate_unirl),
    **{
        name: Dialect(rows.fields.issubset, benchmarks.translator(name), rows.folder)
        for name, rows in benchmarks.BENCHMARKS.items()
    },
}
