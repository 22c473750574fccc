"""DreamBench's pictures by a policy: one PNG a row and seed."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.evaluation.dreambench.lists import FIRST_SEED, Row, Which, official_list, picture_name
from cgrpo.evaluation.dreambench.photographs import subjects_of
from cgrpo.evaluation.generate import follow, seeded_noise
from cgrpo.files import write_text
from cgrpo.fingerprint import fingerprint
from cgrpo.policies import FluxPolicy, read_picture
from cgrpo.rewards.base import to_pictures
from cgrpo.types import Batch

MARK = "generation.json"  # beside the pictures: what they were made with


@dataclass(frozen=True)
class Generated:
    """Pictures made now, pictures that were there, and rows left out with the reason (an unreadable reference)."""

    folder: Path
    made: int
    kept: int
    failed: dict[str, str]


def generate_dreambench(
    policy: FluxPolicy,
    sigmas: Tensor,
    data: Path,
    out: Path,
    *,
    method: str,
    which: Which = "single",
    subjects: Sequence[str] = (),
    seeds: int = 4,
    first_seed: int = FIRST_SEED,
    references: bool = True,
    rank: int = 0,
    world: int = 1,
    progress: Any = None,
) -> Generated:
    """Pictures of a whole list in ``out/pictures/METHOD/SUBJECT/PP_SEED.png`` (lists.picture_name).

    Seeds are ``first_seed`` .. ``first_seed + seeds - 1``; the noise depends on the seed alone, as diffusers draws it.
    Without ``references`` the prompt stands alone. A picture that is there already is kept, so that a broken-off call
    is continued by the same call; more seeds may be asked for later. Process ``rank`` of ``world`` makes every
    ``world``-th row, each row in a batch of its own, so that the number of processes changes no pixel.
    ``progress`` is called with 1 at every row. A reference that can't be read costs its rows alone.

    Raises UserError for a folder whose pictures another policy or other sampling settings made, or that can't be
    written.
    """
    folder = out / "pictures" / method_name(method)
    rows = official_list(which, subjects)
    made = kept = 0
    failed: dict[str, str] = {}
    read = functools.lru_cache(maxsize=8)(read_picture)
    try:
        for name in subjects_of(rows) if which == "single" else {row.subject for row in rows}:
            (folder / name).mkdir(parents=True, exist_ok=True)
        _check_mark(folder, _mark(policy, sigmas, which, references), write=rank == 0)
        for row in rows[rank::world]:
            files = {n: folder / f"{picture_name(row, n)}.png" for n in range(first_seed, first_seed + seeds)}
            if progress:
                progress(1)
            wanted = {seed: file for seed, file in files.items() if not file.is_file()}
            kept += len(files) - len(wanted)
            try:
                shown = tuple(read(data / name) for name in row.references) if references and wanted else ()
            except UserError as error:
                failed[f"{row.subject} {row.prompt_index}"] = str(error)
                continue
            for file, picture in zip(wanted.values(), _pictures(policy, sigmas, row, shown, list(wanted)), strict=True):
                save_picture(picture, file)
                made += 1
    except OSError as error:
        raise UserError(f"can't write to {folder}: {error.strerror}; give another --out") from error
    return Generated(folder, made, kept, failed)


def method_name(method: str) -> str:
    """``method`` if it can be a folder's name, else UserError."""
    if not method or Path(method).name != method or method.startswith("."):
        raise UserError(f"--method {method!r}: is to be the name of a folder, such as uno-tdw")
    return method


def _pictures(
    policy: FluxPolicy, sigmas: Tensor, row: Row, references: tuple[Image.Image, ...], seeds: list[int]
) -> Iterator[Image.Image]:
    """A row's pictures, one a seed, in one batch."""
    if not seeds:
        return
    task = Batch((str(row.number),), (row.prompt,), (references,), (" and ".join(row.classes),))
    noise_NLC = torch.cat([seeded_noise(policy, seed) for seed in seeds])
    yield from to_pictures(follow(policy, task.repeat(len(seeds)), noise_NLC, sigmas))


def save_picture(picture: Image.Image, file: Path) -> None:
    """A PNG, whole or not at all. Raises OSError."""
    partial = file.with_name(f".{file.name}.partial")
    picture.save(partial, format="PNG")
    os.replace(partial, file)


def _mark(policy: FluxPolicy, sigmas: Tensor, which: Which, references: bool) -> dict[str, Any]:
    """What the pictures of a folder have in common; seeds and subjects may be added to later."""
    return {
        "list": which,
        "references": references,
        "height": policy.height,
        "width": policy.width,
        "reference_size": policy.reference_size,
        "guidance": policy.guidance,
        "sigmas": [round(sigma, 6) for sigma in sigmas.tolist()],
        "transformer": fingerprint(policy.transformer.state_dict().items()),
    }


def _check_mark(folder: Path, mark: Mapping[str, Any], write: bool) -> None:
    file = folder / MARK
    if file.is_file():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            before = {}
        other = [key for key in mark if before.get(key) != mark[key]]
        if other:
            raise UserError(
                f"{folder} holds pictures made with another {', '.join(other)}; give another --method or --out"
            )
    elif write:
        write_text(file, json.dumps(mark, indent=1) + "\n")
