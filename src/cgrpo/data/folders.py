"""Folders of pictures with prompts, and WebDataset shards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cgrpo.data.archives import Files, members, read_bytes, within
from cgrpo.data.parquet import parquet_files, scan_parquets
from cgrpo.data.rows import PICTURE_KEYS, PROMPT_KEYS, Fault, Rows, load_rows, plain, record_of, scan_files, scan_rows
from cgrpo.data.syncd_files import metadata_files, scan_syncd
from cgrpo.errors import UserError
from cgrpo.pictures import ENDINGS
from cgrpo.types import Record

NOT_READ = (".heic", ".heif", ".jxl", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw", ".eps", ".pdf", ".exr", ".hdr")
LISTS = ("metadata.jsonl", "metadata.csv")  # of HF imagefolders


def scan_folder(folder: Path) -> Rows:
    """The records of a folder in any layout that readers.py lists. Raises UserError for another."""
    if metadata_files(folder):
        return scan_syncd(folder)
    for name in LISTS:
        if (folder / name).is_file():
            return _scan_listed(folder / name)
    splits = sorted({path.parent.name for name in LISTS for path in folder.glob(f"*/{name}")})
    if "train" in splits:
        return scan_folder(folder / "train")
    if splits:
        raise UserError(f"{folder}: holds the splits {', '.join(splits)}, and none is called train; give one's folder")
    shards = sorted(folder.glob("*.tar"))
    if shards:
        return scan_tars(shards)
    tables = parquet_files(folder)
    if tables:
        return scan_parquets(tables)
    rows = _scan_captioned(folder)
    if not any(isinstance(row, Record) for row in rows):
        raise UserError(
            f"{folder}: no data set that is known: neither a metadata.json of SynCD's, a metadata.jsonl or .csv, .tar "
            "or .parquet files, nor pictures with their prompts in .txt files beside them"
        )
    return rows


def _scan_listed(listed: Path) -> Rows:
    files = Files(listed.parent)
    return list(scan_rows(load_rows(listed)[0], lambda row, name: record_of(row, name, str(listed), files)))


def _scan_captioned(folder: Path) -> Rows:
    """picture.png with picture.txt, in sub-folders too: the picture is the reference, the text the prompt.

    A file that has a text, but an ending of no picture that is read, is a Fault.
    """
    rows: Rows = []
    for picture in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = picture.relative_to(folder).with_suffix("").as_posix()
        if name.startswith(".") or "/." in name:  # a desktop's or a downloader's own
            continue
        text = picture.with_suffix(".txt")
        ending = picture.suffix.lower()
        if ending not in ENDINGS:
            if ending in NOT_READ and text.is_file():
                rows.append(Fault(name, f"{picture}: no picture that is read, by its ending; save it as PNG or JPEG"))
            continue
        try:
            prompt = text.read_text(encoding="utf-8-sig").strip() if text.is_file() else ""
        except (OSError, UnicodeDecodeError) as error:
            rows.append(Fault(name, f"{text}: can't be read as text ({error})"))
            continue
        if prompt:
            rows.append(Record(id=name, prompt=prompt, references=(picture,)))
        else:
            rows.append(Fault(name, f"{picture}: has no prompt; write it into {text.name} beside it"))
    return rows


def scan_tars(shards: list[Path]) -> Rows:
    """WebDataset shards: files of one key (the name up to its first dot) are one record.

    ``key.json`` is a row without files; ``key.txt`` the prompt, where that has none; ``key.ref0.jpg``,
    ``key.ref1.jpg``, ... are the references (a lone ``key.jpg`` counts as one), ``key.mask0.png``, ... their masks,
    ``key.target.jpg`` the target. Hidden files are passed over.
    """
    return scan_files(shards, _scan_tar)


def _scan_tar(shard: Path) -> Iterator[Record | Fault]:
    samples: dict[str, dict[str, str]] = {}
    for member in members(shard):
        folder, slash, file = member.rpartition("/")
        if file.startswith("."):
            continue
        key, _, extension = file.partition(".")
        samples.setdefault(folder + slash + key, {})[extension.lower()] = member
    for key, parts in samples.items():
        try:
            yield _sample(shard, key, parts)
        except UserError as error:
            yield Fault(key, str(error))


def _sample(shard: Path, key: str, parts: dict[str, str]) -> Record:
    row: dict[str, Any] = {"id": key}
    try:
        if "json" in parts:
            told = json.loads(read_bytes(within(shard, parts["json"])).decode("utf-8-sig"))
            # Names of pictures in it are those that they had before they were packed.
            row |= {name: value for name, value in told.items() if plain(name) not in PICTURE_KEYS}
        if "txt" in parts and not any(row.get(key) for key in PROMPT_KEYS):
            row["prompt"] = read_bytes(within(shard, parts["txt"])).decode("utf-8-sig").strip()
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{shard}, sample {key}: its json or txt can't be read ({error})") from error
    pictures = {ext.split(".")[0]: within(shard, name) for ext, name in parts.items() if _is_picture(ext)}
    count = sum(role.startswith("ref") for role in pictures)
    bare = [str(path) for role, path in pictures.items() if f".{role}" in ENDINGS]
    if count:
        row["references"] = [str(pictures.get(f"ref{number}", "")) for number in range(count)]
        masks = [pictures.get(f"mask{number}") for number in range(count)]
        row["masks"] = [mask and str(mask) for mask in masks] if any(masks) else []
    elif len(bare) == 1:
        row["references"] = bare
    if "target" in pictures:
        row["target"] = str(pictures["target"])
    return record_of(row, f"sample {key}", str(shard), Files(None))


def _is_picture(extension: str) -> bool:
    return f".{extension.rpartition('.')[2]}" in ENDINGS
