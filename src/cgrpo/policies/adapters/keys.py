"""How a LoRA is written down, as pure renamings of state dicts; known.py reads other programs' files.

fused   ours in memory: ``transformer_blocks.0.attn.to_qkv.lora_A.weight``; one A for q, k and v
stock   on disk: ``transformer.transformer_blocks.0.attn.to_q.lora_A.weight``; what
        ``FluxPipeline.load_lora_weights`` reads; the same A three times, B cut in three
UNO     ``double_blocks.0.processor.qkv_lora1.down.weight``; the released checkpoints (XLabs keys)

A is [rank, in], B is [out, rank]. Each conversion and its inverse restore every tensor exactly.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from cgrpo.errors import UserError
from cgrpo.policies.adapters.layouts import FLUX, FLUX2, SWAPPED, layout_of

State = dict[str, Tensor]

PREFIX = "transformer."
_SPLIT = {"to_qkv": ("to_q", "to_k", "to_v"), "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj")}
_FUSED = {part: (fused, place) for fused, parts in _SPLIT.items() for place, part in enumerate(parts)}

_UNO_MODULES = {
    ("double_blocks", "qkv_lora1"): ("transformer_blocks", "attn.to_qkv"),
    ("double_blocks", "qkv_lora2"): ("transformer_blocks", "attn.to_added_qkv"),
    ("double_blocks", "proj_lora1"): ("transformer_blocks", "attn.to_out.0"),
    ("double_blocks", "proj_lora2"): ("transformer_blocks", "attn.to_add_out"),
    ("single_blocks", "qkv_lora"): ("single_transformer_blocks", "attn.to_qkv"),
    ("single_blocks", "proj_lora"): ("single_transformer_blocks", "proj_out"),
}
_OUR_MODULES = {ours: uno for uno, ours in _UNO_MODULES.items()}
_UNO_MATRICES = {"down": "lora_A", "up": "lora_B"}
_OUR_MATRICES = {ours: uno for uno, ours in _UNO_MATRICES.items()}


def uno_to_adapter(state: Mapping[str, Tensor]) -> State:
    """UNO's keys as fused ones, tensors untouched. Raises UserError on keys that are not UNO's."""
    renamed, unknown = {}, []
    for key, value in state.items():
        parts = key.split(".")
        if len(parts) == 6 and (parts[0], parts[3]) in _UNO_MODULES and parts[4] in _UNO_MATRICES:
            blocks, module = _UNO_MODULES[parts[0], parts[3]]
            renamed[f"{blocks}.{parts[1]}.{module}.{_UNO_MATRICES[parts[4]]}.weight"] = value
        else:
            unknown.append(key)
    _refuse(unknown, "UNO")
    return renamed


def adapter_to_uno(state: Mapping[str, Tensor]) -> State:
    """The inverse of ``uno_to_adapter``."""
    renamed, unknown = {}, []
    for key, value in state.items():
        path, _, matrix = key.removesuffix(".weight").rpartition(".")
        blocks, number, module = [*path.split(".", 2), "", ""][:3]
        if (blocks, module) in _OUR_MODULES and matrix in _OUR_MATRICES:
            kind, processor = _OUR_MODULES[blocks, module]
            renamed[f"{kind}.{number}.processor.{processor}.{_OUR_MATRICES[matrix]}.weight"] = value
        else:
            unknown.append(key)
    _refuse(unknown, "fused")
    return renamed


def adapter_to_stock(state: Mapping[str, Tensor]) -> State:
    """Fused keys as the split ones that a stock FluxPipeline loads; the copies of A share no memory."""
    stock = {}
    for key, value in state.items():
        module, name, matrix = _parts(key)
        if name not in _SPLIT:
            stock[PREFIX + key] = value.contiguous()
            continue
        pieces = [value.clone() for _ in range(3)] if matrix == "lora_A" else value.chunk(3)
        for part, piece in zip(_SPLIT[name], pieces, strict=True):
            stock[f"{PREFIX}{module}.{part}.{matrix}.weight"] = piece.contiguous()
    return stock


def stock_to_adapter(state: Mapping[str, Tensor]) -> State:
    """The inverse of ``adapter_to_stock``.

    Raises UserError if q, k and v have different A matrices: such an adapter was trained on split
    projections and has no fused form of the same rank.
    """
    fused: State = {}
    triples: dict[str, dict[int, Tensor]] = {}
    for key, value in state.items():
        module, name, matrix = _parts(key.removeprefix(PREFIX))
        if name in _FUSED:
            whole, place = _FUSED[name]
            triples.setdefault(f"{module}.{whole}.{matrix}.weight", {})[place] = value
        else:
            fused[key.removeprefix(PREFIX)] = value
    for key, pieces in triples.items():
        if len(pieces) < 3:
            raise UserError(f"adapter: {key} lacks {3 - len(pieces)} of its q, k, v parts; save the adapter anew")
        one, two, three = (pieces[place] for place in range(3))
        if "lora_B" in key:
            fused[key] = torch.cat((one, two, three))
        elif torch.equal(one, two) and torch.equal(one, three):
            fused[key] = one
        else:
            raise UserError(
                f"adapter: q, k and v have different A matrices at {key}: a split adapter, which has no fused form "
                "of this rank; merge it into the base checkpoint instead"
            )
    return fused


def to_split(state: Mapping[str, Tensor]) -> State:
    """Fused or stock keys as stock ones without the prefix: the one form that split adapters have too."""
    if any(_parts(key)[1] in _SPLIT for key in state):
        state = adapter_to_stock(state)
    return {key.removeprefix(PREFIX): value for key, value in state.items()}


def pairs(state: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """(A, B) by module, from fused keys or from stock ones without the prefix.

    Raises UserError on a key that is no LoRA matrix, and on matrices that don't go together.
    """
    suffixes = tuple(f".{name}.weight" for name in _OUR_MATRICES)
    _refuse([key for key in state if not key.endswith(suffixes)], "stock or UNO")
    if not state:
        raise UserError("adapter: holds no LoRA matrices; is this another file?")
    modules = {}
    for module in dict.fromkeys(key.rsplit(".", 2)[0] for key in state):
        down, up = (state.get(module + suffix) for suffix in suffixes)
        if down is None or up is None or not down.ndim == up.ndim == 2 or not 0 < down.shape[0] == up.shape[1]:
            raise UserError(f"adapter: A and B of {module} don't go together; save the adapter anew")
        modules[module] = (down, up)
    return modules


def split_projection(key: str, value: Tensor) -> dict[str, Tensor]:
    """A fused base weight or bias ``....to_qkv.weight`` as the three stock ones; other tensors as they are."""
    module, _, leaf = key.rpartition(".")
    path, _, name = module.rpartition(".")
    if name not in _SPLIT:
        return {key: value}
    return {f"{path}.{part}.{leaf}": piece for part, piece in zip(_SPLIT[name], value.chunk(3), strict=True)}


def _parts(key: str) -> tuple[str, str, str]:
    """``a.b.to_q.lora_A.weight`` as (a.b, to_q, lora_A)."""
    path, _, matrix = key.removesuffix(".weight").rpartition(".")
    module, _, name = path.rpartition(".")
    return module, name, matrix


def _refuse(unknown: list[str], what: str) -> None:
    if unknown:
        raise UserError(
            f"adapter: {len(unknown)} keys are not {what} LoRA keys, such as {unknown[0]}; is this another file?"
        )


def one_rank(split: Mapping[str, Tensor]) -> tuple[State, int]:
    """The same with zeros up to the largest rank: stock loaders scale by one rank for all modules."""
    rank = max(down.shape[0] for down, _ in pairs(split).values())
    padded = {}
    for key, value in split.items():
        down = key.endswith("lora_A.weight")
        spare = rank - value.shape[0 if down else 1]
        padded[key] = pad(value, (0, 0, 0, spare) if down else (0, spare)) if spare else value
    return padded, rank


def to_comfyui(split: Mapping[str, Tensor]) -> State:
    """Stock keys without prefix under ComfyUI's: layers that BFL stacks are stacked, with equal As as one, else each
    with its own rank; rows of parts that the adapter lacks are zero."""
    state: State = {}
    left = dict(split)
    layout = layout_of(split) or FLUX
    for ours, (theirs, table) in layout.blocks.items():
        pattern = re.compile(rf"{ours}\.(\d+)\." if ours else "")
        numbers = dict.fromkeys(m[0] for key in split if (m := pattern.match(key)))
        for number in numbers:
            for module, parts in table.items():
                stack = [_pop(left, f"{number}{part}") for part in parts]
                if not any(stack):
                    continue
                down, up = _stacked(stack)
                if module == SWAPPED:
                    up = torch.cat(up.chunk(2)[::-1])
                name = f"diffusion_model.{number.replace(ours, theirs, 1) if ours else ''}{module}"
                if layout == FLUX2:  # diffusers' reader of these names knows no alpha here; without one a scale is 1
                    state |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up.contiguous()}
                    continue
                state |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up.contiguous()}
                state[f"{name}.alpha"] = torch.tensor(float(down.shape[0]))
    if left:
        raise UserError(f"adapter: {next(iter(left))} has no place in ComfyUI's layout")
    return state


def _pop(left: dict[str, Tensor], module: str) -> tuple[Tensor, Tensor] | None:
    down, up = (left.pop(f"{module}.lora_{matrix}.weight", None) for matrix in "AB")
    return None if down is None or up is None else (down, up)


def _stacked(stack: Sequence[tuple[Tensor, Tensor] | None]) -> tuple[Tensor, Tensor]:
    """Several layers of one input as one; the first three have as many rows as inputs, the fourth four times those."""
    if len(stack) == 1 and stack[0]:
        return stack[0]
    present = [pair for pair in stack if pair]
    width = present[0][0].shape[1]
    shared = all(torch.equal(down, present[0][0]) for down, _ in present)
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
