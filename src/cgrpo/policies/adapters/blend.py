"""A mix of adapters of one base: between a run that keeps the subject and one that follows the words, say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.policies.adapters.files import (
    FILE_NAME,
    Origin,
    adapter_file,
    header_origin,
    origin_header,
    read_split,
    write_adapter,
)
from cgrpo.policies.adapters.keys import PREFIX, State, one_rank, pairs


def blend_adapters(first: str | Path, others: Sequence[tuple[str | Path, float]], out: str | Path) -> Path:
    """Write the convex mix of adapters to ``out``, a safetensors file or a folder; returns the file written.

    What is mixed is what they add to the base's weights: sum of share * B A, ``first`` having what the others' shares
    leave of 1. That is exact, and no mix of the factors A and B would be: ranks are laid side by side, so the result's
    rank is the sum of theirs. Shares from 0 to 1, their sum at most 1; who has share 0 is left out.
    Raises UserError for other shares, and for adapters of different bases or starts.
    """
    for path, share in others:
        if not 0 <= share <= 1:  # NaN, too
            raise UserError(f"{path}: a share is a number from 0 to 1, got {share:g}")
    rest = 1 - math.fsum(share for _, share in others)
    if rest < -1e-9:
        raise UserError(f"the shares add up to {1 - rest:g}; what they leave of 1 is {first}'s, so give at most 1")
    shares = [(first, max(rest, 0.0)), *others]
    read = [(path, share, *read_split(path)) for path, share in shares]
    origin = _one_origin([(path, header_origin(header)) for path, _, _, header in read])
    parts = [(share, split) for _, share, split, _ in read if share > 0]
    mixed, rank = one_rank(mix([split for _, split in parts], [share for share, _ in parts]))
    told = {"blend_of": ", ".join(f"{share:g} {path}" for path, share in shares)}
    target = Path(out) if Path(out).suffix == ".safetensors" else Path(out) / FILE_NAME
    for path, _ in shares:
        source = adapter_file(Path(path))
        if target.exists() and target.samefile(source):
            raise UserError(f"{target}: is one of those that are mixed; give another place")
    return write_adapter(target, {PREFIX + key: v for key, v in mixed.items()}, origin_header(origin, rank) | told)


def mix(splits: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> State:
    """sum_i share_i * B_i A_i as one adapter: [share_1 B_1, share_2 B_2, ...] [A_1; A_2; ...], module by module.

    A module that an adapter lacks has nothing added by it. Keys as ``read_split`` gives them.
    """
    mixed: State = {}
    for module in dict.fromkeys(module for split in splits for module in pairs(split)):
        down, up = f"{module}.lora_A.weight", f"{module}.lora_B.weight"
        own = [(split, share) for split, share in zip(splits, shares, strict=True) if down in split]
        mixed[down] = torch.cat([split[down] for split, _ in own])
        mixed[up] = torch.cat([share * split[up] for split, share in own], dim=1)
    return mixed


def _one_origin(found: Sequence[tuple[str | Path, Origin | None]]) -> Origin:
    """What all of them were trained on; files that don't tell are taken to fit."""
    known = [(path, origin) for path, origin in found if origin is not None]
    if not known:
        return Origin("", "")
    path, origin = known[0]
    for other, its in known[1:]:
        if (its.base_hash, _merged(its)) != (origin.base_hash, _merged(origin)):
            raise UserError(
                f"{other}: trained on another base than {path} ({its.base} {its.base_hash[:12]} {_merged(its)[:12]}, "
                f"not {origin.base} {origin.base_hash[:12]} {_merged(origin)[:12]}); their mix fits neither"
            )
    merged = origin if origin.start_mode == "merge" else Origin(origin.base, origin.base_hash)
    return merged


def _merged(origin: Origin) -> str:
    return origin.start_hash if origin.start_mode == "merge" else ""
