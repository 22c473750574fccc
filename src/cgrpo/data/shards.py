"""WebDataset shards: files of one key (the name up to its first dot) are one row.

``key.json`` is a row without files; ``key.txt`` the prompt, where that has none; ``key.ref0.jpg``, ``key.ref1.jpg``,
... are the references, counted from 0 or 1, ``key.mask0.png``, ... their masks, ``key.target.jpg`` the target. A lone
``key.jpg`` is the only reference, ``key.mask.png`` its mask; next to references it is the target. Hidden files are
passed over.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cgrpo.data.archives import Files, archive, read_bytes, within
from cgrpo.data.fields import PICTURES, PROMPTS, common_name, condition_name
from cgrpo.data.neighbours import CAPTIONS
from cgrpo.data.parts import each_file, for_training
from cgrpo.data.tasks import Entry, Fault, LeftOut
from cgrpo.errors import UserError
from cgrpo.files import reading
from cgrpo.pictures import ENDINGS
from cgrpo.text import decoded, is_blank, parse_json

_NUMBERED = re.compile(r"(ref|mask)(\d{0,4})")


def recognises(path: Path) -> bool:
    """Whether it is a tar, or a folder with some."""
    return bool(_files(path)) if path.is_dir() else path.suffix.lower() == ".tar"


def read(path: Path, root: Path | None = None) -> Iterator[Entry | Fault | LeftOut]:
    """The samples of a tar, or of a folder's training shards. Raises UserError if none can be opened."""
    yield from each_file(for_training(_files(path), path) if path.is_dir() else [path], _samples)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*.tar"))


def _samples(shard: Path) -> Iterator[Entry | Fault]:
    """The samples of a tar, in the order of their first files. Raises UserError if it can't be opened."""
    samples: dict[str, list[tuple[str, str]]] = {}
    opened, whole_paths = archive(shard), Files(None)
    for member in opened.names:
        folder, slash, file = member.rpartition("/")
        if not file.startswith("."):
            key, _, extension = file.partition(".")
            samples.setdefault(folder + slash + key, []).append((extension.lower(), member))
    for key, parts in samples.items():
        where = f"{shard}, sample {key}"
        try:
            if lost := [name for _, name in parts if name in opened.repeated]:
                raise UserError(f"{where}: {lost[0]} is in it twice, as of two samples", "give each its own name")
            yield Entry({"id": key} | _fields(shard, key, where, parts), where, key, whole_paths)
        except UserError as error:
            yield Fault(key, str(error))


def _fields(shard: Path, key: str, where: str, files: Sequence[tuple[str, str]]) -> dict[str, Any]:
    parts = dict(files)
    if len(parts) < len(files):
        raise UserError(f"{where}: has two files whose names differ in their case alone", "leave one out")
    row: dict[str, Any] = {}
    conditions: list[str] = []
    with reading(f"{where}, its json or txt", "", AttributeError):
        if "json" in parts:
            facts = parse_json(decoded(read_bytes(within(shard, parts["json"]))))
            # Names of pictures in it are those that they had before they were packed.
            row = {name: value for name, value in facts.items() if common_name(name) not in PICTURES}
            conditions = [name for name in facts if facts[name] and condition_name(name) == "sure"]
        text = next((parts[ending[1:]] for ending in CAPTIONS if ending[1:] in parts), None)
        if text and all(is_blank(str(row.get(field) or "")) for field in PROMPTS):
            row["prompt"] = decoded(read_bytes(within(shard, text))).strip()
    pictures = _pictures(where, key, {ending: str(within(shard, name)) for ending, name in files})
    if conditions and "target" not in pictures:
        raise UserError(
            f"{where}: its json has {conditions[0]}, so {key} is perhaps a target, and no picture {key}.ref0 is in it",
            f"name the picture that it was made from {key}.ref0.jpg",
        )
    return row | pictures


def _pictures(where: str, key: str, parts: Mapping[str, str]) -> dict[str, Any]:
    """References, masks and target of a sample with these files by ending. Raises UserError."""
    has = f"it has {', '.join(f'.{ending}' for ending in parts)}"
    roles: dict[str, str] = {}
    for ending, name in parts.items():
        if f".{ending.rpartition('.')[2]}" in ENDINGS:
            role = ending.split(".")[0] if "." in ending else ""
            if role in roles:
                raise UserError(f"{where}: needs one picture of each kind, {key}.jpg or {key}.ref0.jpg; {has}")
            roles[role] = name
    bare, target = roles.pop("", None), roles.pop("target", None)
    numbered = {match: roles.pop(match[0]) for match in [*map(_NUMBERED.fullmatch, list(roles))] if match}
    references = {int(match[2] or 0): name for match, name in numbered.items() if match[1] == "ref"}
    masks = {int(match[2] or 0): name for match, name in numbered.items() if match[1] == "mask"}
    if not references:
        if bare is None or (roles and target is None):
            raise UserError(f"{where}: needs one picture, {key}.jpg, or {key}.ref0.jpg, ...; {has}")
        references = {0: bare}
    elif bare is not None:
        if target is not None:
            raise UserError(f"{where}: {key}.target and the picture {key} itself are both its target", "leave one out")
        target = bare
    numbers = sorted(references)
    if numbers not in (list(range(len(numbers))), list(range(1, len(numbers) + 1))):
        raise UserError(f"{where}: its references are not numbered 0, 1, 2, ...; {has}")
    if len(masks) == len(references) == 1:
        masks = dict(zip(references, masks.values(), strict=True))
    if not masks.keys() <= references.keys():
        raise UserError(f"{where}: a mask is of no reference, by its number; {has}")
    pictures: dict[str, Any] = {"references": [references[number] for number in numbers]}
    pictures |= {"masks": [masks.get(number) for number in numbers]} if masks else {}
    return pictures | ({"target": target} if target else {})
