"""A LoRA under ComfyUI's names: BFL's layers, which stack what stock ones have apart."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.policies.adapters.bfl import FLUX2_BLOCKS, FLUX_BLOCKS, SWAPPED
from cgrpo.policies.adapters.keys import State
from cgrpo.policies.adapters.layouts import family_of


def to_comfyui(split: Mapping[str, Tensor]) -> State:
    """Stock keys without prefix under ComfyUI's: layers that BFL stacks are stacked, with equal As as one, else each
    with its own rank; rows of parts that the adapter lacks are zero."""
    state: State = {}
    left = dict(split)
    flux2 = family_of(split) == "FLUX.2"
    for ours, (theirs, table) in (FLUX2_BLOCKS if flux2 else FLUX_BLOCKS).items():
        pattern = re.compile(rf"{ours}\.(\d+)\." if ours else "")
        numbers = dict.fromkeys(m[0] for key in split if (m := pattern.match(key)))
        for number in numbers:
            for module, parts in table.items():
                found = [_pop(left, f"{number}{part}") for part in parts]
                if not any(found):
                    continue
                down, up = _stacked(found)
                if module == SWAPPED:
                    up = torch.cat(up.chunk(2)[::-1])
                name = f"diffusion_model.{number.replace(ours, theirs, 1) if ours else ''}{module}"
                if flux2:  # diffusers' reader of these names knows no alpha here; without one a scale is 1
                    state |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up.contiguous()}
                    continue
                state |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up.contiguous()}
                state[f"{name}.alpha"] = torch.tensor(float(down.shape[0]))
    if left:
        raise UserError(f"adapter: {next(iter(left))} has no place in ComfyUI's layout")
    return state


Pair = tuple[Tensor, Tensor]


def _pop(left: dict[str, Any], module: str) -> Pair | None:
    down, up = (left.pop(f"{module}.lora_{matrix}.weight", None) for matrix in "AB")
    return None if down is None or up is None else (down, up)


def _stacked(found: list[Pair | None]) -> Pair:
    """Several layers of one input as one; the first three have as many rows as inputs, the fourth four times those."""
    if len(found) == 1 and found[0]:
        return found[0]
    present = [pair for pair in found if pair]
    width = present[0][0].shape[1]
    shared = all(torch.equal(down, present[0][0]) for down, _ in present)
    rank = present[0][0].shape[0] if shared else sum(down.shape[0] for down, _ in present)
    dtype = functools.reduce(torch.promote_types, [up.dtype for _, up in present])
    up = torch.zeros(width * (3 if len(found) == 3 else 7), rank, dtype=dtype)
    row = column = 0
    for place, pair in enumerate(found):
        rows = pair[1].shape[0] if pair else width * (4 if place == 3 else 1)
        if pair:
            up[row : row + rows, column : column + pair[1].shape[1]] = pair[1]
            column += 0 if shared else pair[1].shape[1]
        row += rows
    return (present[0][0] if shared else torch.cat([down for down, _ in present])), up
