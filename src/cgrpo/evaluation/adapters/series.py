"""The adapters of a series: where trainers leave them, in which order, and which are there already.

ai-toolkit, kohya's scripts, musubi-tuner and OneTrainer write NAME_000000250.safetensors, NAME-000002.safetensors and
the like into one folder. SimpleTuner, diffusers' scripts and peft make a folder for each checkpoint, with an adapter of
a known name in it.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path

from safetensors import SafetensorError, safe_open

from cgrpo.errors import UserError
from cgrpo.files import json_text, reading, write_text, writing
from cgrpo.policies.adapters.attached import Fit
from cgrpo.policies.adapters.files import NAMES
from cgrpo.scores import RESERVED

INDEX = "adapters.json"
BASE = "base"


@dataclass(frozen=True)
class Checkpoint:
    """An adapter file under the name that its pictures and scores have; ``fingerprint``: of its tensors."""

    name: str
    file: Path
    fingerprint: str


def adapter_files(paths: Sequence[Path]) -> list[tuple[str, Path]]:
    """(label, file) of the adapters that ``paths`` are or hold, numbered ones first, by their numbers.

    A file is one adapter. A folder holds one per safetensors file in it, and one per folder in it that has an adapter
    of a known name. Raises UserError for a path that is not there, and where there is no adapter at all.
    """
    found: dict[Path, str] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder", "give adapter files, or a folder of them")
        for file in [path] if path.is_file() else _in_folder(path):
            found.setdefault(file, file.parent.resolve().name if file.name in NAMES else file.stem)
    if not found:
        where = ", ".join(map(str, paths))
        raise UserError(f"{where}: no adapter there", "give .safetensors files, or a folder that holds some")
    places = {label: place for place, label in enumerate(in_order(list(found.values())))}
    return [(label, file) for file, label in sorted(found.items(), key=lambda item: places[item[1]])]


def _in_folder(folder: Path) -> Iterable[Path]:
    with reading(folder):
        here = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    yield from (entry for entry in here if entry.suffix == ".safetensors" and entry.is_file())
    for entry in here:
        if entry.is_dir():
            yield from (entry / name for name in NAMES if (entry / name).is_file())


def in_order(labels: Sequence[str]) -> list[str]:
    """By the numbers behind what all labels begin with; one without any, a trainer's last file, at the end."""
    common = re.sub(r"\d+$", "", commonprefix(list(labels)))  # noqa: RUF071 - letters, no folders

    def order(label: str) -> tuple[list[float], str]:
        return [float(number) for number in re.findall(r"\d+", label.removeprefix(common))] or [math.inf], label

    return sorted(labels, key=order)


def missing_layers(fits: Mapping[str, Fit]) -> dict[str, str]:
    """What each adapter lacks, in words, by name: layers that the base has no place for, or that its siblings have."""
    usual = Counter(layer for one in fits.values() for layer in one.layers)
    common = {layer for layer, count in usual.items() if 2 * count > len(fits)}
    words = {}
    for name, one in fits.items():
        lacking = sorted(common - set(one.layers))
        parts = (
            [
                f"{len(one.misfits)} of {len(one.misfits) + len(one.layers)} layers do not fit this base, such as "
                f"{one.misfits[0]}"
            ]
            if one.misfits
            else []
        )
        if lacking:
            parts.append(f"it lacks {len(lacking)} of the {len(common)} layers of its siblings, such as {lacking[0]}")
        if parts:
            words[name] = "; ".join(parts)
    return words


def is_whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says; a trainer may still be writing it."""
    try:
        with safe_open(file, "pt"):
            return True
    except (OSError, SafetensorError):
        return False


class Index:
    """The adapters that a folder of scores knows, kept in its adapters.json as ``{name: {file, fingerprint}}``."""

    def __init__(self, out: Path):
        self.file = out / INDEX
        self.known: dict[str, Checkpoint] = {}
        if self.file.is_file():
            with reading(self.file, "give another --out", LookupError, TypeError, AttributeError):
                for name, entry in json.loads(self.file.read_text(encoding="utf-8")).items():
                    self.known[name] = Checkpoint(name, Path(entry["file"]), entry["fingerprint"])

    def add(self, label: str, file: Path, fingerprint: str) -> Checkpoint:
        """The checkpoint of ``file``: the known one of the same tensors, else a new one called ``label``.

        A label that other tensors have already gets the fingerprint's beginning behind it.
        """
        for known in self.known.values():
            if known.fingerprint == fingerprint:
                if not known.file.exists():
                    self.known[known.name] = Checkpoint(known.name, file.absolute(), fingerprint)
                return self.known[known.name]
        name = re.sub(r"[^\w.@-]+", "_", label).strip("._") or "adapter"
        if name in (*RESERVED, BASE) or name in self.known:
            name = f"{name}-{fingerprint[:6]}"
        self.known[name] = Checkpoint(name, file.absolute(), fingerprint)
        return self.known[name]

    def write(self) -> None:
        """Raises UserError."""
        table = {one.name: {"file": str(one.file), "fingerprint": one.fingerprint} for one in self.known.values()}
        with writing(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.file, json_text(table, indent=1, ensure_ascii=False) + "\n")


def copy_best(file: Path | None, folder: Path) -> Path | None:
    """A copy of an adapter, and of peft's settings where they are next to it, alone in ``folder``; None empties it."""
    with writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        if file is None:
            return None
        folder.mkdir(parents=True)
        for part in (file, file.with_name("adapter_config.json")):
            if part.is_file():
                shutil.copy2(part, folder / part.name)
    return folder / file.name
