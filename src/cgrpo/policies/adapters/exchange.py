"""Adapters between programs: UNO's keys, stock diffusers', ComfyUI's; and what is in a file.

Stock keys throughout: the one form that all three formats and split adapters have.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.policies.adapters.comfyui import to_comfyui
from cgrpo.policies.adapters.files import (
    FILE_NAME,
    Origin,
    adapter_file,
    adapter_fingerprint,
    header_origin,
    origin_header,
    read_known,
    read_raw,
    read_split,
    write_adapter,
)
from cgrpo.policies.adapters.keys import PREFIX, State, adapter_to_uno, one_rank, pairs, stock_to_adapter

UNO_NAME = "dit_lora.safetensors"  # of UNO's release
_FILE_NAMES = {"diffusers": FILE_NAME, "uno": UNO_NAME, "comfyui": "comfyui_lora.safetensors"}
_WRITERS: dict[str, Callable[[State], State]] = {
    "diffusers": lambda split: {PREFIX + key: value for key, value in split.items()},
    "uno": lambda split: adapter_to_uno(stock_to_adapter(split)),
    "comfyui": to_comfyui,
}


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
        split, origin = _joined(start, split), Origin(origin.base, origin.base_hash)
        header = dict(header) | {"joined_start": adapter_fingerprint(start)}
    elif join is not None:
        why = "the delta only was asked for" if only_delta else "it is whole as it is"
        raise UserError(f"{file}: nothing to join ({why}); leave the start out")
    padded, rank = one_rank(split)
    try:
        state = _WRITERS[to](split if to == "comfyui" else padded)  # whose every layer says its own rank
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    target = _target(Path(out), _FILE_NAMES[to])
    _refuse_input(target, file, *([join] if join else []))
    told = {key: header[key] for key in ("joined_start",) if key in header}
    return write_adapter(target, state, origin_header(origin, rank) | told | {"converted_from": Path(file).name})


def inspect_adapter(file: str | Path) -> dict[str, Any]:
    """What is in an adapter file, as plain values.

    "delta_norms" are Frobenius norms of B A by kind of layer over all blocks: the root of the summed squares;
    "untrained" tells that every B is zero, so that the adapter changes nothing.
    """
    _, raw, _ = read_raw(file)
    known, header = read_known(file)
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


def _joined(start: Mapping[str, Tensor], adapter: Mapping[str, Tensor]) -> State:
    """Both in one: B1 A1 + B2 A2 = [B1 B2] [A1; A2]. A module that only one of them has keeps its own rank."""
    joined = dict(start)
    for key, value in adapter.items():
        joined[key] = torch.cat((start[key], value), dim=0 if "lora_A" in key else 1) if key in start else value
    return joined


def known_origin(file: str | Path, header: Mapping[str, str]) -> Origin:
    try:
        return header_origin(header) or Origin(header.get("base", ""), "")
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def check_start(start: str | Path, split: Mapping[str, Tensor], file: str | Path, origin: Origin) -> None:
    found = adapter_fingerprint(split)
    if found != origin.start_hash:
        raise UserError(
            f"{start}: not the start that {file} was trained on ({found[:12]}, not {origin.start_hash[:12]}); "
            "give that one"
        )


def _target(out: Path, name: str) -> Path:
    return out if out.suffix == ".safetensors" else out / name


def _refuse_input(target: Path, *inputs: str | Path) -> None:
    for given in map(Path, inputs):
        source = adapter_file(given)
        if target.exists() and target.samefile(source):
            raise UserError(f"{target}: is the input itself; give another place")
