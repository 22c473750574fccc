"""Folders of pictures with captions: picture.png with picture.txt or .caption next to it, in sub-folders too.

The picture is the reference, the text the prompt. Pictures without a caption of their own may belong to one with:

    picture-masklabel.png, picture_mask.png, masks/picture.png    its mask (OneTrainer, ai-toolkit)
    control/picture.png, control/picture_0.png, control_1/...     its references; it is the target (ai-toolkit, musubi)
    before/picture.png next to after/picture.png                  the same; what is in before/ may have captions, too
    006_0.jpg, 006_1.jpg next to 006_prompt.txt                   the references of that prompt (MultiBanana)
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cgrpo.data.archives import Files
from cgrpo.data.parts import training_folder
from cgrpo.data.tasks import Entry, Fault
from cgrpo.errors import UserError
from cgrpo.files import is_contact_sheet, reading
from cgrpo.pictures import ENDINGS
from cgrpo.text import is_blank, read_text

CAPTIONS = (".txt", ".caption")  # the other is kohya's
NOT_READ = (".heic", ".heif", ".jxl", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw", ".eps", ".pdf", ".exr", ".hdr")
_FOREIGN_FOLDERS = ("@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN")  # made by disks and archives
_LABEL = re.compile(r"(.+?)[-_. ](mask(?:label)?|condlabel|cond|depth|canny|generated)", re.IGNORECASE)
_MASKS = re.compile(r"masks?(_images)?", re.IGNORECASE)
_SOURCES = re.compile(  # folders of what pictures of the same names were made from
    r"(control(net)?|cond(ition(ing)?)?|ref(erence)?|source|src|input|before|orig(inal)?|kontext|hint|unedited)s?"
    r"([-_ ]?(image|img|picture|photo)s?)?([-_ ]?\d+)?",
    re.IGNORECASE,
)
_REGULARISATION = re.compile(r"(.+/)?reg(ulari[sz]ation)?(_images)?/\d+_[^/]+/[^/]+", re.IGNORECASE)
_NUMBERED = re.compile(r"(.+)_(\d{1,4})")
_REPEATS = re.compile(r"\d+_.+")
_PROMPT = "_prompt"


class Neighbours(NamedTuple):
    """The pictures of a folder that are no rows of their own, by what they are to others.

    masks        picture -> its mask
    references   target -> its references
    prompts      text -> the pictures that are its references
    unpaired     target without a reference of its name, or reference without a target -> what to say
    passed_over  conditions that are no pictures of the subject, kohya's regularisation pictures, masks of no picture
    """

    masks: dict[Path, Path]
    references: dict[Path, list[Path]]
    prompts: dict[Path, list[Path]]
    unpaired: dict[Path, str]
    passed_over: list[Path]

    def remarks(self) -> Iterator[str]:
        """In words, with an example of each."""
        if self.masks:
            picture, mask = next(iter(self.masks.items()))
            yield f"{len(self.masks)} pictures have a mask, as {mask.name} is that of {picture.name}"
        if self.references:
            yield f"{len(self.references)} pictures are targets, as others of their names next to them are references"
        if self.passed_over:
            first = self.passed_over[0].name
            yield (
                f"{len(self.passed_over)} pictures are passed over, as conditions, regularisation, or masks of no "
                f"picture: {first}"
            )

    @property
    def all(self) -> set[Path]:
        lists = [*self.references.values(), *self.prompts.values(), self.passed_over]
        return {*self.masks.values(), *(path for paths in lists for path in paths)}


def neighbours(folder: Path, files: Sequence[Path]) -> Neighbours:
    """Which of the ``files`` in ``folder`` belong to others.

    A picture with its own caption never does, but kohya's, and what targets of its name were made from.
    """
    texts, near = _texts(files), Neighbours({}, {}, {}, {}, [])
    pictures = {path.with_suffix(""): path for path in files if path.suffix.lower() in ENDINGS}
    for path in list(pictures.values()):
        if _REGULARISATION.fullmatch(path.relative_to(folder).as_posix()):
            near.passed_over.append(pictures.pop(path.with_suffix("")))
    sources = _pair(folder, pictures, texts, near)
    for path in files:
        stem = path.with_suffix("")
        other = pictures.get(stem, path)
        if other != path and path.suffix.lower() in ENDINGS and (stem in sources or other in near.references):
            near.unpaired[path] = f"{other.name} next to it has its name"
    places: dict[Path, list[Path]] = {}  # folder -> it and the folders in it, that have captioned pictures
    for place in {stem.parent for stem in (pictures.keys() & texts.keys()) - sources}:
        for parent in (place, place.parent):
            places.setdefault(parent, []).append(place)
    for stem, path in pictures.items():
        label, number = _LABEL.fullmatch(stem.name), _NUMBERED.fullmatch(stem.name)
        prompt = texts.get(stem.with_name(f"{(label or number or [0, ''])[1]}{_PROMPT}"))
        is_mask = label is not None and label[2].lower().startswith("mask")
        if stem in texts or stem in sources:
            continue
        if stem.parent != folder and _MASKS.fullmatch(stem.parent.name):
            of = [other / stem.name for other in {stem.parent.parent, *places.get(stem.parent.parent, ())}]
            masked = [pictures[other] for other in of if other in pictures]
            near.masks.update(dict.fromkeys(masked, path))
            near.passed_over.extend([] if masked else [path])
        elif prompt and number:
            near.prompts.setdefault(prompt, []).append(path)
        elif label and is_mask and stem.with_name(label[1]) in pictures:
            near.masks[pictures[stem.with_name(label[1])]] = path
        elif label and (prompt or stem.with_name(label[1]) in pictures or (is_mask and places)):
            near.passed_over.append(path)
    for paths in near.prompts.values():
        paths.sort(key=lambda path: int(path.stem.rpartition("_")[2]))
    return near


def _pair(folder: Path, pictures: Mapping[Path, Path], texts: Mapping[Path, Path], near: Neighbours) -> set[Path]:
    """Find the references of targets, by name: images/x/a.png is made from control/x/a.png, control/x/a_0.png, ...

    Every captioned picture below the folder that control/ lies in, but in no such folder itself, is a target. Returns
    what is in folders of references, by path without ending: none without targets, as of a lone folder control/.
    """
    folders = {place: _source_folder(place, folder) for place in {stem.parent for stem in pictures}}
    sources: dict[Path, list[tuple[Path, Path]]] = {}  # folder that control/ lies in -> control/ and what is in it
    for stem in pictures:
        if (source := folders[stem.parent]) and (stem in texts or not _MASKS.fullmatch(stem.parent.name)):
            sources.setdefault(source.parent, []).append((source, stem))
    targets: dict[Path, list[Path]] = {}
    for stem in pictures.keys() & texts.keys():
        for parent in sources.keys() & set(stem.parents):
            if stem.parent == parent or not _SOURCES.fullmatch(stem.relative_to(parent).parts[0]):
                targets.setdefault(parent, []).append(stem)
    inside = {stem for parent in targets for _, stem in sources[parent]}
    for parent, stems in targets.items():
        names = {stem: _names(stem.relative_to(parent)) for stem in stems if stem not in inside}
        exact = {name for both in names.values() for name in both}
        by_name: dict[Path, list[tuple[Path, int, Path]]] = {}
        for source, stem in sources[parent]:
            name, number = stem.relative_to(source), _NUMBERED.fullmatch(stem.name)
            if number and name not in exact:
                by_name.setdefault(name.with_name(number[1]), []).append((source, int(number[2]), pictures[stem]))
            else:
                by_name.setdefault(name, []).append((source, -1, pictures[stem]))
        lacks = f"no picture in {min(source.name for source, _ in sources[parent])} has its name, to be its reference"
        for stem, both in names.items():
            if references := next((by_name[name] for name in both if name in by_name), None):
                near.references[pictures[stem]] = [path for _, _, path in sorted(references)]
            else:
                near.unpaired[pictures[stem]] = lacks
        for source, _, path in [one for name in by_name.keys() - exact for one in by_name[name]]:
            near.unpaired[path] = f"no picture next to {source.name} has its name, to be its target"
    return inside


def _source_folder(place: Path, folder: Path) -> Path | None:
    """The innermost folder of references that ``place`` is or lies in, below ``folder``."""
    names = place.relative_to(folder).parts
    depth = next((depth for depth in range(len(names), 0, -1) if _SOURCES.fullmatch(names[depth - 1])), 0)
    return folder.joinpath(*names[:depth]) if depth else None


def _names(target: Path) -> tuple[Path, ...]:
    """The names that a target's references may have in their folder: of images/x/a also x/a."""
    return (target, *([Path(*target.parts[1:])] if len(target.parts) > 1 else []))


def recognises(path: Path) -> bool:
    """Whether it is a folder with a captioned picture, and no folder of splits alone."""
    if not path.is_dir() or splits_alone(path):
        return False
    files = files_in(path)
    texts = _texts(files)
    captioned = any(file.suffix.lower() in ENDINGS and file.with_suffix("") in texts for file in files)
    return captioned or bool(neighbours(path, files).prompts)


def splits_alone(folder: Path) -> Path | None:
    """The folder train/ of one that holds splits, and no pictures next to them."""
    has_pictures = any(path.suffix.lower() in ENDINGS for path in folder.iterdir())
    return None if has_pictures else training_folder(folder)


def read(folder: Path, root: Path | None = None) -> Iterator[Entry | Fault]:
    """A row for each picture. One without a caption is a Fault, and a captioned file of a format that isn't read."""
    files, whole_paths = files_in(folder), Files(None)
    texts, near = _texts(files), neighbours(folder, files)
    for text, pictures in near.prompts.items():
        name = text.relative_to(folder).with_suffix("").as_posix().removesuffix(_PROMPT)
        try:
            with reading(text):
                fields = {"prompt": read_text(text).strip(), "references": list(map(str, pictures))}
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


def _texts(files: Sequence[Path]) -> dict[Path, Path]:
    """The captions among ``files``, by the path of a picture next to each without its ending; .txt before .caption."""
    texts = [path for path in files if path.suffix.lower() in CAPTIONS]
    return {path.with_suffix(""): path for path in sorted(texts, key=lambda path: path.suffix.lower() == ".txt")}


def remarks(folder: Path) -> Iterator[str]:
    """What was taken for what, where programs differ, and what is left out."""
    files = files_in(folder)
    texts, near = _texts(files), neighbours(folder, files)
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
