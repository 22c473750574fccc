"""Folders of pictures with captions: picture.png with picture.txt or .caption next to it, in sub-folders too.

The picture is the reference, the text the prompt.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cgrpo.data.archives import Files
from cgrpo.data.parts import training_folder
from cgrpo.data.tasks import Entry, Fault
from cgrpo.errors import UserError
from cgrpo.files import reading
from cgrpo.pictures import ENDINGS
from cgrpo.text import is_blank, read_text

CAPTIONS = (".txt", ".caption")  # the other is kohya's
NOT_READ = (".heic", ".heif", ".jxl", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw", ".eps", ".pdf", ".exr", ".hdr")
_FOREIGN_FOLDERS = ("@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN")  # made by disks and archives


def recognises(path: Path) -> bool:
    """Whether it is a folder with a captioned picture, and no folder of splits alone."""
    if not path.is_dir() or splits_alone(path):
        return False
    files = files_in(path)
    texts = _texts(files)
    return any(file.suffix.lower() in ENDINGS and file.with_suffix("") in texts for file in files)


def splits_alone(folder: Path) -> Path | None:
    """The folder train/ of one that holds splits, and no pictures next to them."""
    has_pictures = any(path.suffix.lower() in ENDINGS for path in folder.iterdir())
    return None if has_pictures else training_folder(folder)


def read(folder: Path, root: Path | None = None) -> Iterator[Entry | Fault]:
    """A row for each picture. One without a caption is a Fault, and a captioned file of a format that isn't read."""
    pictures, whole_paths = files_in(folder), Files(None)
    texts = _texts(pictures)
    for picture in pictures:
        name = picture.relative_to(folder).with_suffix("").as_posix()
        text, ending = texts.get(picture.with_suffix("")), picture.suffix.lower()
        if ending not in ENDINGS:
            if ending in NOT_READ and text:
                yield Fault(name, f"{picture}: {ending} pictures are not read; save it as PNG or JPEG")
            continue
        try:
            with reading(text or picture):
                prompt = read_text(text).strip() if text else ""
        except UserError as error:
            yield Fault(name, str(error))
            continue
        if is_blank(prompt):
            next_to_it = picture.with_suffix(".txt").name
            yield Fault(name, f"{picture}: has no prompt; write it into {next_to_it} next to it")
        else:
            yield Entry({"prompt": prompt, "references": [str(picture)]}, str(picture), name, whole_paths)


def files_in(folder: Path) -> list[Path]:
    """All files below, sorted; folders that are links too, each once. Hidden files are passed over."""
    files: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [n for n in folders if not n.startswith((".", *_FOREIGN_FOLDERS))]
        if real not in seen:
            seen.add(real)
            files += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(path for path in files if path.is_file())


def _texts(files: list[Path]) -> dict[Path, Path]:
    """The captions among ``files``, by the path of a picture next to each without its ending; .txt before .caption."""
    texts = [path for path in files if path.suffix.lower() in CAPTIONS]
    return {path.with_suffix(""): path for path in sorted(texts, key=lambda path: path.suffix.lower() == ".txt")}


def unread(folder: Path) -> Counter[str]:
    """The files of such a folder that are no picture, and the captions of no picture, counted by their endings."""
    files = files_in(folder)
    pictures = {path.with_suffix("") for path in files if path.suffix.lower() in ENDINGS}
    others = [path for path in files if path.suffix.lower() not in ENDINGS]
    orphans = [path for path in others if path.suffix.lower() not in CAPTIONS or path.with_suffix("") not in pictures]
    return Counter(path.suffix.lower() or path.name for path in orphans)
