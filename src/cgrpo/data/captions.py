"""Folders of pictures with captions: picture.png with picture.txt or .caption next to it, in sub-folders too.

The picture is the reference, the text the prompt. Pictures without a caption of their own may belong to one with:

    picture-masklabel.png, picture_mask.png, masks/picture.png    its mask (OneTrainer, ai-toolkit)
    control/picture.png, control/picture_0.png, control_1/...     its references; it is the target (ai-toolkit, musubi)
    before/picture.png next to after/picture.png                  the same; what is in before/ may have captions, too
    006_0.jpg, 006_1.jpg next to 006_prompt.txt                   the references of that prompt (MultiBanana)
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cgrpo.data.archives import Files
from cgrpo.data.benchmarks import described
from cgrpo.data.neighbours import CAPTIONS, PROMPT_ENDING, neighbours, texts_of
from cgrpo.data.parts import training_folder
from cgrpo.data.tasks import Entry, Fault
from cgrpo.errors import UserError
from cgrpo.files import is_contact_sheet, reading
from cgrpo.pictures import ENDINGS
from cgrpo.text import is_blank, read_text

NOT_READ = (".heic", ".heif", ".jxl", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw", ".eps", ".pdf", ".exr", ".hdr")
_REPEATS = re.compile(r"\d+_.+")
_FOREIGN_FOLDERS = ("@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN")  # made by disks and archives


def recognises(path: Path) -> bool:
    """Whether it is a folder with a captioned picture, and no folder of splits alone."""
    if not path.is_dir() or splits_alone(path):
        return False
    files = files_in(path)
    texts = texts_of(files)
    captioned = any(file.suffix.lower() in ENDINGS and file.with_suffix("") in texts for file in files)
    return captioned or bool(neighbours(path, files).prompts)


def splits_alone(folder: Path) -> Path | None:
    """The folder train/ of one that holds splits, and no pictures next to them."""
    has_pictures = any(path.suffix.lower() in ENDINGS for path in folder.iterdir())
    return None if has_pictures else training_folder(folder)


def read(folder: Path, root: Path | None = None) -> Iterator[Entry | Fault]:
    """A row for each picture. One without a caption is a Fault, and a captioned file of a format that isn't read."""
    files, whole_paths = files_in(folder), Files(None)
    texts, near = texts_of(files), neighbours(folder, files)
    for text, pictures in near.prompts.items():
        name = text.relative_to(folder).with_suffix("").as_posix().removesuffix(PROMPT_ENDING)
        try:
            with reading(text):
                fields = {"prompt": read_text(text).strip(), "references": list(map(str, pictures))}
                fields["meta"] = described("MultiBanana", text.parent.name, [""] * len(pictures))
            yield Entry(fields, str(text), name, whole_paths)
        except UserError as error:
            yield Fault(name, str(error))
    others = near.all
    for picture in files:
        if picture in others:
            continue
        name = picture.relative_to(folder).with_suffix("").as_posix()
        if picture in near.unpaired:
            yield Fault(name, f"{picture}: {near.unpaired[picture]}")
            continue
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
        elif references := near.references.get(picture):
            fields = {"prompt": prompt, "references": list(map(str, references)), "target": str(picture)}
            yield Entry(fields, str(picture), name, whole_paths)
        else:
            masks = {"masks": [str(near.masks[picture])]} if picture in near.masks else {}
            yield Entry({"prompt": prompt, "references": [str(picture)]} | masks, str(picture), name, whole_paths)


def files_in(folder: Path) -> list[Path]:
    """All files below, sorted; folders that are links too, each once. Hidden files and contact sheets are left out."""
    files: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [n for n in folders if not n.startswith((".", *_FOREIGN_FOLDERS))]
        if real not in seen:
            seen.add(real)
            files += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(path for path in files if path.is_file() and not is_contact_sheet(path))


def remarks(folder: Path) -> Iterator[str]:
    """What was taken for what, where programs differ, and what is left out."""
    files = files_in(folder)
    texts, near = texts_of(files), neighbours(folder, files)
    pictures = {path.with_suffix("") for path in files if path.suffix.lower() in ENDINGS}
    left_out = [
        path for path in files
        if path.suffix.lower() not in (*ENDINGS, *CAPTIONS)
        or (path.suffix.lower() in CAPTIONS and path.with_suffix("") not in pictures and path not in near.prompts)
    ]  # fmt: skip
    if left_out:
        counts = Counter(path.suffix.lower() or path.name for path in left_out).most_common(8)
        listed = ", ".join(f"{ending} ({count})" for ending, count in counts)
        yield f"{len(left_out)} files are left out, no picture with its prompt: {listed}"
    yield from near.remarks()
    used = {stem: text for stem, text in texts.items() if stem in pictures}
    others = [
        text for text in files if text.suffix.lower() in CAPTIONS and used.get(text.with_suffix(""), text) != text
    ]
    differing = [text for text in others if _content(text) != _content(used[text.with_suffix("")])]
    if differing:
        yield f"{len(differing)} captions differ from the .txt of the same picture, which counts: {differing[0].name}"
    if lines := [text for text in used.values() if len(_content(text).splitlines()) > 1]:
        yield (
            f"{len(lines)} captions have several lines, and all of them are the prompt: {lines[0].name}. OneTrainer "
            "draws one of them at a time, and kohya's scripts take the first; keep one if they are alternatives"
        )
    if repeated := {path.parent.name for path in files if _REPEATS.fullmatch(path.parent.name)}:
        yield f"repeats in names of folders, as {min(repeated)}, are not applied: every picture counts once"


def _content(text: Path) -> str:
    try:
        return read_text(text).strip()
    except (OSError, ValueError):  # reported with its row
        return ""
