"""Adapters converted between programs, blended, and inspected.

Stock keys throughout: the one form that all three formats and split adapters have.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.policies.adapters.files import (
    FILE_NAME,
    Origin,
    adapter_file,
    adapter_fingerprint,
    header_origin,
    naming,
    origin_header,
    read_known,
    read_split,
    write_adapter,
)
from cgrpo.policies.adapters.keys import State, adapter_to_stock, one_rank, pairs, to_comfyui, to_uno
from cgrpo.policies.adapters.known import times

UNO_NAME = "dit_lora.safetensors"  # of UNO's release
_FILE_NAMES = {"diffusers": FILE_NAME, "uno": UNO_NAME, "comfyui": "comfyui_lora.safetensors"}
_WRITERS: dict[str, Callable[[State], State]] = {"diffusers": adapter_to_stock, "uno": to_uno, "comfyui": to_comfyui}


def convert_adapter(
    file: str | Path,
    to: Literal["diffusers", "uno", "comfyui"],
    out: str | Path,
    join: str | Path | None = None,
    *,
    only_delta: bool = False,
) -> Path:
    """Write an adapter under stock diffusers' keys, UNO's or ComfyUI's; returns the file written.

    ``out`` is a safetensors file or a folder. An adapter that was trained on a base with a start merged in
    needs that start as ``join``: the result has both ranks together and is valid on the plain base.
    ``only_delta`` writes it alone, valid only where that start is merged in. Raises UserError where the
    file and these choices don't go together.
    """
    split, header = read_split(file)
    origin = known_origin(file, header)
    if origin.start_mode == "merge" and not only_delta:
        if join is None:
            raise UserError(
                f"{file}: trained on a base with start {origin.start_hash[:12]} merged in, so worth nothing on the "
                "plain one; give that start to join (--join), or ask for the delta only (--delta-only)"
            )
        start, _ = read_split(join)
        check_start(join, start, file, origin)
        split, origin = mix([start, split], [1, 1]), Origin(origin.base, origin.base_hash)
        header = dict(header) | {"joined_start": adapter_fingerprint(start)}
    elif join is not None:
        why = "the delta only was asked for" if only_delta else "it is whole as it is"
        raise UserError(f"{file}: nothing to join ({why}); leave the start out")
    padded, rank = one_rank(split)
    with naming(file):
        state = _WRITERS[to](split if to == "comfyui" else padded)  # whose every layer says its own rank
    target = _target(out, _FILE_NAMES[to], [file, *([join] if join else [])])
    joined = {key: header[key] for key in ("joined_start",) if key in header}
    return write_adapter(target, state, origin_header(origin, rank) | joined | {"converted_from": Path(file).name})


def blend_adapters(first: str | Path, others: Sequence[tuple[str | Path, float]], out: str | Path) -> Path:
    """Write the convex mix of adapters to ``out``, a safetensors file or a folder; returns the file written.

    What is mixed is what they add to the base's weights: sum of share * B A, ``first`` having what the others' shares
    leave of 1. No mix of the factors A and B would be that: ranks are laid side by side, so the result's rank is the
    sum of theirs. A B whose share of it its own precision can't hold is written in float32. Shares from 0 to 1, their
    sum at most 1; who has share 0 is left out.
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
    target = _target(out, FILE_NAME, [path for path, _ in shares])
    header = origin_header(origin, rank) | {"blend_of": ", ".join(f"{share:g} {path}" for path, share in shares)}
    return write_adapter(target, _WRITERS["diffusers"](mixed), header)


def mix(splits: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> State:
    """sum_i share_i * B_i A_i as one adapter: [share_1 B_1, share_2 B_2, ...] [A_1; A_2; ...], module by module.

    A module that an adapter lacks has nothing added by it. Keys as ``read_split`` gives them.
    """
    mixed: State = {}
    for module in dict.fromkeys(module for split in splits for module in pairs(split)):
        down, up = f"{module}.lora_A.weight", f"{module}.lora_B.weight"
        own = [(split, share) for split, share in zip(splits, shares, strict=True) if down in split]
        mixed[down] = torch.cat([split[down] for split, _ in own])
        mixed[up] = torch.cat([times(split[up], share) for split, share in own], dim=1)
    return mixed


def inspect_adapter(file: str | Path) -> dict[str, Any]:
    """What is in an adapter file, as plain values.

    "delta_norms" are Frobenius norms of B A by kind of layer over all blocks: the root of the summed squares;
    "untrained" tells that every B is zero, so that the adapter changes nothing.
    """
    known, header, raw = read_known(file)
    split = known.split
    origin = known_origin(file, header)
    squares: dict[str, float] = defaultdict(float)
    modules = pairs(split)
    for module, (down, up) in modules.items():
        squares[re.sub(r"\.\d+(?=\.)", "", module, count=1)] += _squared_norm(down, up)
    ranks = sorted({down.shape[0] for down, _ in modules.values()})
    scales = sorted(set(known.scales.values())) or [1.0]
    return {
        "format": known.layout,
        "rank": ranks[0] if len(ranks) == 1 else ranks,
        "scale": scales[0] if len(scales) == 1 else scales,  # what B A is multiplied with
        "left_out": len(known.left_out),  # tensors of the text encoders' part
        "tensors": len(raw),
        "parameters": sum(value.numel() for value in raw.values()),
        "dtype": ", ".join(sorted({str(value.dtype).removeprefix("torch.") for value in raw.values()})),
        "base": origin.base,
        "base_hash": origin.base_hash,
        "start_hash": origin.start_hash,
        "start_mode": origin.start_mode,
        "fingerprint": adapter_fingerprint(split),
        "untrained": not any(up.count_nonzero() for _, up in modules.values()),
        "delta_norms": {kind: square**0.5 for kind, square in sorted(squares.items())},
    }


def _squared_norm(down: Tensor, up: Tensor) -> float:
    """||B A||^2 = sum(B'B * AA'): two [rank, rank] products instead of one [out, in]; in fp64, as squares cancel."""
    a, b = down.double(), up.double()
    return max(((b.T @ b) * (a @ a.T)).sum().item(), 0.0)


def known_origin(file: str | Path, header: Mapping[str, str]) -> Origin:
    with naming(file):
        return header_origin(header) or Origin(header.get("base", ""), "")


def check_start(start: str | Path, split: Mapping[str, Tensor], file: str | Path, origin: Origin) -> None:
    fingerprint = adapter_fingerprint(split)
    if fingerprint != origin.start_hash:
        raise UserError(
            f"{start}: not the start that {file} was trained on ({fingerprint[:12]}, not {origin.start_hash[:12]}); "
            "give that one"
        )


def _one_origin(origins: Sequence[tuple[str | Path, Origin | None]]) -> Origin:
    """What all of them were trained on; files that don't say are taken to fit."""
    named = [(path, origin) for path, origin in origins if origin is not None]
    if not named:
        return Origin("", "")
    path, first = named[0]
    for other, origin in named[1:]:
        if (origin.base_hash, origin.merged) != (first.base_hash, first.merged):
            raise UserError(
                f"{other}: trained on another base than {path} ({origin.base} {origin.base_hash[:12]} "
                f"{origin.merged[:12]}, not {first.base} {first.base_hash[:12]} {first.merged[:12]})"
            )
    return first if first.merged else Origin(first.base, first.base_hash)


def _target(out: str | Path, name: str, inputs: Sequence[str | Path]) -> Path:
    """``out``, or the file ``name`` in that folder. Raises UserError where it is one of ``inputs``."""
    target = Path(out) if Path(out).suffix == ".safetensors" else Path(out) / name
    if target.exists() and any(target.samefile(adapter_file(Path(given))) for given in inputs):
        raise UserError(f"{target}: is the input itself; give another place")
    return target
