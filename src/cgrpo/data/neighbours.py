"""Pictures in folders that belong to others, by their names: masks, references, and what is passed over."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cgrpo.pictures import ENDINGS

CAPTIONS = (".txt", ".caption")  # the other is kohya's
_LABEL = re.compile(r"(.+?)[-_. ](mask(?:label)?|condlabel|cond|depth|canny|generated)", re.IGNORECASE)
_MASKS = re.compile(r"masks?(_images)?", re.IGNORECASE)
_SOURCES = re.compile(  # folders of what pictures of the same names were made from
    r"(\d+[-_ ])?(control(net)?|cond(ition(ing)?)?|ref(erence)?|source|src|input|before|orig(inal)?|kontext|hint|"
    r"unedited)s?([-_ ]?(image|img|picture|photo)s?)?([-_ ]?\d+)?",
    re.IGNORECASE,
)
_TARGETS = re.compile(r"(\d+[-_ ])?(after|edited|output|result|target|tgt)s?([-_ ]?(image|img)s?)?", re.IGNORECASE)
_REGULARISATION = re.compile(r"(.+/)?reg(ulari[sz]ation)?(_images)?/\d+_[^/]+/[^/]+", re.IGNORECASE)
_NUMBERED = re.compile(r"(.+)_(\d{1,4})")
PROMPT_ENDING = "_prompt"


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
    texts, near = texts_of(files), Neighbours({}, {}, {}, {}, [])
    pictures = {path.with_suffix(""): path for path in files if path.suffix.lower() in ENDINGS}
    for path in list(pictures.values()):
        if _REGULARISATION.fullmatch(path.relative_to(folder).as_posix()):
            near.passed_over.append(pictures.pop(path.with_suffix("")))
    sources = _pair(folder, pictures, texts, near)
    _refuse_targets(folder, pictures, texts, near)
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
        prompt = texts.get(stem.with_name(f"{(label or number or [0, ''])[1]}{PROMPT_ENDING}"))
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


def _refuse_targets(folder: Path, pictures: Mapping[Path, Path], texts: Mapping[Path, Path], near: Neighbours) -> None:
    """Count captioned pictures in after/ as unpaired where a folder next to it has others of their names."""
    named: dict[tuple[Path, str], list[str]] = {}
    for stem in pictures:
        if stem.parent != folder and not _MASKS.fullmatch(stem.parent.name):
            named.setdefault((stem.parent.parent, stem.name), []).append(stem.parent.name)
    for (place, name), folders in named.items():
        for after in filter(_TARGETS.fullmatch, folders if len(folders) > 1 else ()):
            stem, other = place / after / name, next(other for other in folders if other != after)
            if stem in texts and pictures[stem] not in near.references:
                cure = f"call that folder control if {after} was made from it, or move it away"
                near.unpaired.setdefault(pictures[stem], f"{other} next to {after} has a picture of its name; {cure}")


def _source_folder(place: Path, folder: Path) -> Path | None:
    """The innermost folder of references that ``place`` is or lies in, below ``folder``."""
    names = place.relative_to(folder).parts
    depth = next((depth for depth in range(len(names), 0, -1) if _SOURCES.fullmatch(names[depth - 1])), 0)
    return folder.joinpath(*names[:depth]) if depth else None


def _names(target: Path) -> tuple[Path, ...]:
    """The names that a target's references may have in their folder: of images/x/a also x/a."""
    return (target, *([Path(*target.parts[1:])] if len(target.parts) > 1 else []))


def texts_of(files: Sequence[Path]) -> dict[Path, Path]:
    """The captions among ``files``, by the path of a picture next to each without its ending; .txt before .caption."""
    texts = [path for path in files if path.suffix.lower() in CAPTIONS]
    return {path.with_suffix(""): path for path in sorted(texts, key=lambda path: path.suffix.lower() == ".txt")}
