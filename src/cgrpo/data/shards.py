"""WebDataset shards: files of one key (the name up to its first dot) are one record.

``key.json`` is a row without files; ``key.txt`` the prompt, where that has none; ``key.ref0.jpg``, ``key.ref1.jpg``,
... are the references, counted from 0 or 1, ``key.mask0.png``, ... their masks, ``key.target.jpg`` the target. A lone
``key.jpg`` is the only reference, ``key.mask.png`` its mask; beside references it is the target. Hidden files are
passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cgrpo.data.archives import Files, members, read_bytes, repeated, within
from cgrpo.data.fields import PICTURE_KEYS, PROMPT_KEYS, plain, record_of
from cgrpo.data.rows import Fault
from cgrpo.errors import UserError
from cgrpo.pictures import ENDINGS
from cgrpo.text import decoded, is_blank, parse_json
from cgrpo.types import Task

CAPTIONS = (".txt", ".caption")  # the other is kohya's
_NUMBERED = re.compile(r"(ref|mask)(\d{0,4})")


def scan_shard(shard: Path) -> Iterator[Task | Fault]:
    """The records of a tar, in the order of their first files. Raises UserError if it can't be opened."""
    samples: dict[str, list[tuple[str, str]]] = {}
    twice = repeated(shard)
    for member in members(shard):
        folder, slash, file = member.rpartition("/")
        if file.startswith("."):
            continue
        key, _, extension = file.partition(".")
        samples.setdefault(folder + slash + key, []).append((extension.lower(), member))
    for key, parts in samples.items():
        try:
            if lost := [name for _, name in parts if name in twice]:
                raise UserError(
                    f"{shard}, sample {key}: {lost[0]} is in it twice, as of two samples; pack each under its own name"
                )
            yield _sample(shard, key, parts)
        except UserError as error:
            yield Fault(key, str(error))


def _sample(shard: Path, key: str, files: Sequence[tuple[str, str]]) -> Task:
    where, parts = f"{shard}, sample {key}", dict(files)
    if len(parts) < len(files):
        raise UserError(f"{where}: has two files whose names differ in their case alone; leave one out")
    row: dict[str, Any] = {"id": key}
    try:
        if "json" in parts:
            told = parse_json(decoded(read_bytes(within(shard, parts["json"]))))
            # Names of pictures in it are those that they had before they were packed.
            row |= {name: value for name, value in told.items() if plain(name) not in PICTURE_KEYS}
        text = next((parts[ending[1:]] for ending in CAPTIONS if ending[1:] in parts), None)
        if text and all(is_blank(str(row.get(key) or "")) for key in PROMPT_KEYS):
            row["prompt"] = decoded(read_bytes(within(shard, text))).strip()
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{where}: its json or txt can't be read ({error})") from error
    row |= _pictures(where, key, {ending: str(within(shard, name)) for ending, name in files})
    return record_of(row, f"sample {key}", str(shard), Files(None))


def _pictures(where: str, key: str, parts: Mapping[str, str]) -> dict[str, Any]:
    """References, masks and target of a sample with these files by ending. Raises UserError."""
    held = ", ".join(f".{ending}" for ending in parts)
    roles: dict[str, str] = {}
    for ending, name in parts.items():
        if f".{ending.rpartition('.')[2]}" in ENDINGS:
            role = ending.split(".")[0] if "." in ending else ""
            if role in roles:
                raise UserError(f"{where}: needs one picture of each kind, {key}.jpg or {key}.ref0.jpg; it has {held}")
            roles[role] = name
    bare, target = roles.pop("", None), roles.pop("target", None)
    numbered = {match: roles.pop(match[0]) for match in [*map(_NUMBERED.fullmatch, list(roles))] if match}
    references = {int(match[2] or 0): name for match, name in numbered.items() if match[1] == "ref"}
    masks = {int(match[2] or 0): name for match, name in numbered.items() if match[1] == "mask"}
    if not references:
        if bare is None or (roles and target is None):
            raise UserError(f"{where}: needs one picture, {key}.jpg, or {key}.ref0.jpg, ...; it has {held}")
        references = {0: bare}
    elif bare is not None:
        if target is not None:
            raise UserError(f"{where}: {key}.target and the picture {key} itself are both its target; leave one out")
        target = bare
    numbers = sorted(references)
    if numbers not in (list(range(len(numbers))), list(range(1, len(numbers) + 1))):
        raise UserError(f"{where}: its references are not numbered 0, 1, 2, ...; it has {held}")
    if len(masks) == len(references) == 1:
        masks = dict(zip(references, masks.values(), strict=True))
    if not masks.keys() <= references.keys():
        raise UserError(f"{where}: a mask is of no reference, by its number; it has {held}")
    found: dict[str, Any] = {"references": [references[number] for number in numbers]}
    found |= {"masks": [masks.get(number) for number in numbers]} if masks else {}
    return found | ({"target": target} if target else {})
