"""A benchmark's pictures by a policy: one PNG a row and seed."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cgrpo.data.archives import open_picture
from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.layouts import FIRST_SEED, picture_name
from cgrpo.evaluation.benchmark.suite import Row, Suite
from cgrpo.evaluation.generate import follow
from cgrpo.files import save_picture, write_text
from cgrpo.policies.base import Policy
from cgrpo.rewards.base import to_pictures
from cgrpo.types import Batch

MARK = "generation.json"  # beside the pictures: what they were made with
BLOCK = 4  # pictures of a row in one batch


@dataclass
class Generated:
    """Pictures made now, pictures that were there, and rows left out with the reason (an unreadable reference)."""

    made: int = 0
    kept: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def generate_pictures(
    policy: Policy,
    sigmas: Tensor,
    suite: Suite,
    folder: Path,
    *,
    seeds: int = 4,
    first_seed: int = FIRST_SEED,
    alone: bool = False,
    rank: int = 0,
    world: int = 1,
    progress: Any = None,
) -> Generated:
    """Pictures of all rows in ``folder``, as SUBJECT/PP_SEED.png (layouts.picture_name).

    Seeds are ``first_seed`` .. ``first_seed + seeds - 1``; the noise depends on the seed alone, as diffusers draws it.
    ``alone``: the base policy, adapter off, and the prompt without references. A picture that is there already is
    kept, so that a broken-off call is continued by the same call; more seeds may be asked for later. Process ``rank``
    of ``world`` makes every ``world``-th row, a row's seeds four by four in batches of their own, and four that lack
    one are sampled together again: neither the number of processes nor where it was broken off changes a pixel.
    ``progress`` is called with 1 at every row. A reference that can't be read costs its rows alone.

    Raises UserError for a folder whose pictures another policy or other sampling settings made, or that can't be
    written.
    """
    read = functools.lru_cache(maxsize=8)(open_picture)

    def make(row: Row, wanted: Sequence[int]) -> list[Image.Image]:
        shown = () if alone else tuple(read(suite.root / name) for name in row.references)
        task = Batch((str(row.number),), (row.prompt,), (shown,), (" and ".join(row.words),))
        noise_NLC = torch.cat([policy.noise(seed) for seed in wanted])
        with policy.reference() if alone else nullcontext():
            return to_pictures(follow(policy, task.repeat(len(wanted)), noise_NLC, sigmas))

    with policy.reference() if alone else nullcontext():
        made_with = policy.mark()
    rounded = [round(sigma, 6) for sigma in sigmas.tolist()]
    mark = _mark(policy, suite) | made_with | {"references": not alone, "sigmas": rounded}
    blocks = [range(at, min(at + BLOCK, first_seed + seeds)) for at in range(first_seed, first_seed + seeds, BLOCK)]
    return _fill(folder, mark, suite.rows, blocks, make, rank, world, progress)


def autoencode_targets(
    policy: Policy, suite: Suite, folder: Path, *, rank: int = 0, world: int = 1, progress: Any = None
) -> Generated:
    """The rows' targets through the policy's autoencoder into ``folder``, as seed 0: its pictures can't be better."""

    def make(row: Row, wanted: Sequence[int]) -> list[Image.Image]:
        assert row.target is not None
        latents = policy.encode_targets([open_picture(suite.root / row.target)])
        return to_pictures(policy.decode(latents)) * len(wanted)

    return _fill(folder, _mark(policy, suite), suite.with_targets().rows, [range(1)], make, rank, world, progress)


def _mark(policy: Policy, suite: Suite) -> dict[str, Any]:
    """What the pictures of a folder have in common; seeds and rows may be added to later."""
    return {"suite": dict(suite.mark), "height": policy.height, "width": policy.width}


def _fill(
    folder: Path,
    mark: Mapping[str, Any],
    rows: Sequence[Row],
    blocks: Sequence[Sequence[int]],
    make: Callable[[Row, Sequence[int]], list[Image.Image]],
    rank: int,
    world: int,
    progress: Any,
) -> Generated:
    """Write the pictures that ``folder`` lacks; ``make`` samples a block of a row's seeds."""
    done = Generated()
    try:
        for name in dict.fromkeys(row.subject for row in rows):
            (folder / name).mkdir(parents=True, exist_ok=True)
        check_mark(folder, mark, write=rank == 0)
        for row in rows[rank::world]:
            for block in blocks:
                files = [folder / f"{picture_name(row, seed)}.png" for seed in block]
                lacking = [not file.is_file() for file in files]
                done.kept += lacking.count(False)
                if not any(lacking):
                    continue
                try:
                    pictures = make(row, block)
                except UserError as error:
                    done.failed[f"{row.subject} {row.prompt_index}"] = str(error)
                    continue
                for file, picture, wanted in zip(files, pictures, lacking, strict=True):
                    if wanted:
                        save_picture(picture, file)
                        done.made += 1
            if progress:
                progress(1)
    except OSError as error:
        raise UserError(f"can't write to {folder}: {error.strerror}; give another --out") from error
    return done


def method_name(method: str) -> str:
    """``method`` if it can be a folder's name, else UserError."""
    if not method or Path(method).name != method or method.startswith("."):
        raise UserError(f"--method {method!r}: is to be the name of a folder, such as uno-tdw")
    return method


def check_mark(folder: Path, mark: Mapping[str, Any], write: bool) -> None:
    """Raises UserError where ``folder`` holds pictures of another mark; without any, ``write`` marks it.

    What an earlier version didn't write down yet is taken to be as it is now, and written down.
    """
    file, before = folder / MARK, {}
    if file.is_file():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
            other = [key for key in before.keys() & mark.keys() if before[key] != mark[key]]
        except (ValueError, AttributeError) as error:
            raise UserError(f"{file}: can't be read ({error}); give another --method or --out") from None
        if other:
            raise UserError(
                f"{folder} holds pictures made with another {', '.join(sorted(other))}; give another --method or --out"
            )
    if write and not mark.keys() <= before.keys():
        write_text(file, json.dumps({**before, **mark}, indent=1) + "\n")
