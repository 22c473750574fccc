"""Folders: whichever layout they have, and pictures with their prompts beside them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from cgrpo.data.archives import Files
from cgrpo.data.fields import record_of
from cgrpo.data.parquet import parquet_files, scan_parquets
from cgrpo.data.rows import Fault, Rows, load_rows, scan_files, scan_rows
from cgrpo.data.shards import CAPTIONS, scan_shard
from cgrpo.data.splits import TRAIN, for_training, training_folder
from cgrpo.data.syncd_files import metadata_files, scan_syncd
from cgrpo.errors import UserError
from cgrpo.pictures import ENDINGS
from cgrpo.text import is_blank, read_text
from cgrpo.types import Task

NOT_READ = (".heic", ".heif", ".jxl", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw", ".eps", ".pdf", ".exr", ".hdr")
_OTHERS = ("@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN")  # folders that discs and archives have beside one's own
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
    shards = sorted(folder.glob("[!.]*.tar"))
    if shards:
        return scan_tars(for_training(shards, folder))
    tables = parquet_files(folder)
    if tables:
        return scan_parquets(tables)
    part = _training_folder(folder)
    if part:
        return scan_folder(part)
    rows = _scan_captioned(folder)
    if not any(isinstance(row, Task) for row in rows):
        if (folder / TRAIN).is_dir():
            return scan_folder(folder / TRAIN)
        raise UserError(
            f"{folder}: no data set that is known: neither a metadata.json of SynCD's, a metadata.jsonl or .csv, .tar "
            "or .parquet files, nor pictures with their prompts in .txt files beside them"
        )
    return rows


def _training_folder(folder: Path) -> Path | None:
    """The folder train/ of one that holds nothing itself but such splits."""
    lies_here = any(path.suffix.lower() in ENDINGS for path in folder.iterdir())
    return None if lies_here else training_folder(folder)


def _scan_listed(listed: Path) -> Rows:
    files = Files(listed.parent)
    return list(scan_rows(load_rows(listed)[0], lambda row, name: record_of(row, name, str(listed), files)))


def _scan_captioned(folder: Path) -> Rows:
    """picture.png with picture.txt or .caption, in sub-folders too: the picture is the reference, the text the prompt.

    A file that has a text, but an ending of no picture that is read, is a Fault.
    """
    rows: Rows = []
    texts = captions(folder)
    for picture in files_in(folder):
        name = picture.relative_to(folder).with_suffix("").as_posix()
        text, ending = texts.get(picture.with_suffix("")), picture.suffix.lower()
        if ending not in ENDINGS:
            if ending in NOT_READ and text:
                rows.append(Fault(name, f"{picture}: no picture that is read, by its ending; save it as PNG or JPEG"))
            continue
        try:
            prompt = read_text(text).strip() if text else ""
        except (OSError, ValueError) as error:
            rows.append(Fault(name, f"{text}: can't be read as text ({error})"))
            continue
        if not is_blank(prompt):
            rows.append(Task(id=name, prompt=prompt, references=(picture,)))
        else:
            beside = picture.with_suffix(".txt").name
            rows.append(Fault(name, f"{picture}: has no prompt; write it into {beside} beside it"))
    return rows


def files_in(folder: Path) -> list[Path]:
    """All files below, sorted; folders that are links too, each once. Hidden ones, a desktop's or a downloader's own,
    are passed over."""
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith((".", *_OTHERS))]
        if real not in seen:
            seen.add(real)
            found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def captions(folder: Path) -> dict[Path, Path]:
    """The texts below by what a picture beside each would be called without its ending; .txt before .caption."""
    texts = [path for path in files_in(folder) if path.suffix.lower() in CAPTIONS]
    return {path.with_suffix(""): path for path in sorted(texts, key=lambda path: path.suffix.lower() == ".txt")}


def unread(folder: Path) -> Counter[str]:
    """Of a folder of captioned pictures: the files that are neither, and the captions of none, by their endings."""
    files = files_in(folder)
    pictures = {path.with_suffix("") for path in files if path.suffix.lower() in ENDINGS}
    left = [path for path in files if path.suffix.lower() not in ENDINGS]
    told = [path for path in left if not (path.suffix.lower() in CAPTIONS and path.with_suffix("") in pictures)]
    return Counter(path.suffix.lower() or path.name for path in told)


def is_captioned(folder: Path) -> bool:
    """Whether no other layout of a folder is found."""
    lists = any(any(folder.glob(pattern)) for name in LISTS for pattern in (name, f"*/{name}"))
    return not (lists or metadata_files(folder) or any(folder.glob("*.tar")) or parquet_files(folder)) and (
        _training_folder(folder) is None
    )


def scan_tars(shards: list[Path]) -> Rows:
    """WebDataset shards, as shards.py has them."""
    return scan_files(shards, scan_shard)
