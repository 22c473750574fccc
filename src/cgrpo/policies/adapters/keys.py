"""How a LoRA is written down, as pure renamings of state dicts; known.py reads other programs' files.

fused   ours in memory: ``transformer_blocks.0.attn.to_qkv.lora_A.weight``; one A for q, k and v
stock   on disk: ``transformer.transformer_blocks.0.attn.to_q.lora_A.weight``; what
        ``FluxPipeline.load_lora_weights`` reads; the same A three times, B cut in three
split   stock without the prefix: the form that adapters of every program and family have

A is [rank, in], B is [out, rank]. From fused to stock and back restores every tensor exactly.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from cgrpo.errors import UserError
from cgrpo.policies.family import layout_of, layouts
from cgrpo.policies.layouts import SWAPPED, Blocks

State = dict[str, Tensor]
Pair = tuple[Tensor, Tensor]  # (A, B)

PREFIX = "transformer."
FUSED = {"to_qkv": ("to_q", "to_k", "to_v"), "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj")}
_PLACES = {part: (fused, place) for fused, parts in FUSED.items() for place, part in enumerate(parts)}


def adapter_to_stock(state: Mapping[str, Tensor]) -> State:
    """Fused keys as the split ones that a stock FluxPipeline loads."""
    return {PREFIX + key: value for key, value in to_split(state).items()}


def to_split(state: Mapping[str, Tensor]) -> State:
    """Fused keys as split ones; split ones stay as they are."""
    split = {}
    for key, value in state.items():
        module, name, matrix = _parts(key)
        if name not in FUSED:
            split[key] = value
            continue
        pieces = [value] * 3 if matrix == "lora_A" else value.chunk(3)
        for part, piece in zip(FUSED[name], pieces, strict=True):
            split[f"{module}.{part}.{matrix}.weight"] = piece
    return split


def split_to_adapter(split: Mapping[str, Tensor]) -> State:
    """The inverse of ``to_split``.

    Raises UserError if q, k and v have different A matrices: such an adapter was trained on split
    projections and has no fused form of the same rank.
    """
    fused: State = {}
    triples: dict[str, dict[int, Tensor]] = {}
    for key, value in split.items():
        module, name, matrix = _parts(key)
        if name in _PLACES:
            whole, place = _PLACES[name]
            triples.setdefault(f"{module}.{whole}.{matrix}.weight", {})[place] = value
        else:
            fused[key] = value
    for key, pieces in triples.items():
        if len(pieces) < 3:
            raise UserError(f"adapter: {key} lacks {3 - len(pieces)} of its q, k, v parts; save the adapter anew")
        one, two, three = (pieces[place] for place in range(3))
        if "lora_B" in key:
            fused[key] = torch.cat((one, two, three))
        elif _equal(one, two) and _equal(one, three):
            fused[key] = one
        else:
            raise _split_up(key)
    return fused


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _split_up(where: str) -> UserError:
    return UserError(
        f"adapter: q, k and v have no A matrix in common at {where}: a split adapter, which has no fused form of this "
        "rank",
        "merge it into the base checkpoint instead",
    )


def pairs(state: Mapping[str, Tensor]) -> dict[str, Pair]:
    """(A, B) by module, from fused or split keys. Raises UserError on matrices that don't go together."""
    modules = {}
    for module in dict.fromkeys(key.rsplit(".", 2)[0] for key in state):
        down, up = (state.get(f"{module}.lora_{matrix}.weight") for matrix in "AB")
        if down is None or up is None or not down.ndim == up.ndim == 2 or not 0 < down.shape[0] == up.shape[1]:
            raise UserError(f"adapter: A and B of {module} don't go together; save the adapter anew")
        modules[module] = (down, up)
    return modules


def split_projection(key: str, value: Tensor) -> dict[str, Tensor]:
    """A fused base weight or bias ``....to_qkv.weight`` as the three stock ones; other tensors as they are."""
    module, _, leaf = key.rpartition(".")
    path, _, name = module.rpartition(".")
    if name not in FUSED:
        return {key: value}
    return {f"{path}.{part}.{leaf}": piece for part, piece in zip(FUSED[name], value.chunk(3), strict=True)}


def _parts(key: str) -> tuple[str, str, str]:
    """``a.b.to_q.lora_A.weight`` as (a.b, to_q, lora_A)."""
    path, _, matrix = key.removesuffix(".weight").rpartition(".")
    module, _, name = path.rpartition(".")
    return module, name, matrix


def one_rank(split: Mapping[str, Tensor]) -> tuple[State, int]:
    """The same with zeros up to the largest rank: stock loaders scale by one rank for all modules."""
    rank = max(down.shape[0] for down, _ in pairs(split).values())
    padded = {}
    for key, value in split.items():
        down = key.endswith("lora_A.weight")
        spare = rank - value.shape[0 if down else 1]
        padded[key] = pad(value, (0, 0, 0, spare) if down else (0, spare)) if spare else value
    return padded, rank


def to_uno(split: Mapping[str, Tensor]) -> State:
    """Split keys under UNO's. Raises UserError where q, k and v have no A in common, and for layers without a name."""
    state: State = {}
    layout = layout_of(split) or layouts()[0]
    for name, stack in _stacks(split, layout.programs.get("UNO", {}), "UNO"):
        if None in stack or not _share_one(stack):
            raise _split_up(name)
        state[f"{name}.down.weight"], state[f"{name}.up.weight"] = _stacked(stack)
    return state


def to_comfyui(split: Mapping[str, Tensor]) -> State:
    """Split keys under ComfyUI's: layers that BFL stacks are stacked, with equal As as one, else each with its own
    rank; rows of parts that the adapter lacks are zero."""
    state: State = {}
    layout = layout_of(split) or layouts()[0]
    for layer, stack in _stacks(split, layout.blocks, "ComfyUI"):
        down, up = _stacked(stack)
        if layer == SWAPPED:
            up = torch.cat(up.chunk(2)[::-1])
        name = f"diffusion_model.{layer}"
        if not layout.alphas:  # diffusers' reader of these names knows no alpha here; without one a scale is 1
            state |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
            continue
        state |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        state[f"{name}.alpha"] = torch.tensor(float(down.shape[0]))
    return state


def _stacks(split: Mapping[str, Tensor], blocks: Blocks, program: str) -> Iterator[tuple[str, list[Pair | None]]]:
    """(the program's name of a layer, the stock layers in it, None for one that the adapter lacks), layer by layer.

    Raises UserError, at the end, for a layer that the program has no name for.
    """
    left = pairs(split)
    for ours, (theirs, table) in blocks.items():
        pattern = re.compile(rf"{ours}\.(\d+)\." if ours else "")
        for number in dict.fromkeys(m[0] for module in left if (m := pattern.match(module))):
            for layer, parts in table.items():
                stack = [left.pop(number + part, None) for part in parts]
                if any(stack):
                    yield number.replace(ours, theirs, 1) + layer, stack
    if left:
        raise UserError(f"adapter: {next(iter(left))} has no place in {program}'s layout")


def _share_one(stack: Sequence[Pair | None]) -> bool:
    """Whether all that are there have the same A."""
    first, *others = [pair for pair in stack if pair]
    return all(_equal(down, first[0]) for down, _ in others)


def _stacked(stack: Sequence[Pair | None]) -> Pair:
    """Several layers of one input as one; the first three have as many rows as inputs, the fourth four times those."""
    present = [pair for pair in stack if pair]
    if len(stack) == 1:
        return present[0]
    width, shared = present[0][0].shape[1], _share_one(stack)
    rank = present[0][0].shape[0] if shared else sum(down.shape[0] for down, _ in present)
    dtype = functools.reduce(torch.promote_types, [up.dtype for _, up in present])
    up = torch.zeros(width * (3 if len(stack) == 3 else 7), rank, dtype=dtype)
    row = column = 0
    for place, pair in enumerate(stack):
        rows = pair[1].shape[0] if pair else width * (4 if place == 3 else 1)
        if pair:
            up[row : row + rows, column : column + pair[1].shape[1]] = pair[1]
            column += 0 if shared else pair[1].shape[1]
        row += rows
    return (present[0][0] if shared else torch.cat([down for down, _ in present])), up
