"""The LoRA files that people have, read into one form: every layout of keys, every way to say a scale.

What a name begins with tells its layout; what it ends with, which matrix it is:

diffusers   ``transformer.transformer_blocks.0.attn.to_q.lora_A.weight``
peft        ``base_model.model.transformer_blocks.0.attn.to_q.lora_A.weight``, adapter_config.json beside it
UNO         ``double_blocks.0.processor.qkv_lora1.down.weight`` (keys.py)
kohya       ``lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight``; ``lora_transformer_...`` with diffusers' names
ComfyUI     ``diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight``; BFL's names (checkpoints/bfl.py)
BFL         the same without prefix

The form: stock keys without prefix, the scale within B, so that every delta is B A.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.policies.adapters.bfl import FLUX2_BLOCKS, FLUX_BLOCKS, SWAPPED, Blocks
from cgrpo.policies.adapters.keys import State, pairs, to_split, uno_to_adapter
from cgrpo.policies.adapters.layouts import family_of
from cgrpo.policies.adapters.scales import Settings

# What may stand before a module's name, of which layout that is; the longest first.
_PREFIXES = {
    "base_model.model.diffusion_model.": "peft",
    "base_model.model.transformer.": "peft",
    "base_model.model.": "peft",
    "model.diffusion_model.": "comfyui",
    "diffusion_model.": "comfyui",
    "lora_transformer_": "kohya",
    "lora_unet_": "kohya",
    "transformer.": "diffusers",
    "": "",
}
_TEXT = re.compile(r"(base_model\.model\.)?(text_(encoder|model)|lora_te\d?_)")  # text_encoders., text_encoder_2. too
_MATRIX = re.compile(r"(.+)\.(lora_A|lora_down|lora\.down|lora_B|lora_up|lora\.up)(?:\.(?!weight)(\w+))?\.weight")
_WRAPPERS = re.compile(r"^module\.|\b_orig_mod\.")  # of processes that share a model, and of torch.compile
_DOWN = ("lora_A", "lora_down", "lora.down")
_OTHERS = {  # kinds of adapters that are no B A
    "dora_scale": "DoRA", "lora_magnitude_vector": "DoRA", ".lokr_": "LoKr", ".hada_": "LoHa", ".oft_": "OFT",
    ".lora_mid": "LoCon's convolution", ".alpha": "an alpha of many numbers", "norm.scale": "a norm's weights",
    "scale_weight": "a scale of 8-bit numbers", "scaled_fp8": "a scale of 8-bit numbers",
    ".diff": "a full difference of weights", ".bias": "a bias",
}  # fmt: skip
_OURS = re.compile(
    r"(single_)?transformer_blocks\.\d+\.|x_embedder$|context_embedder$|proj_out$|norm_out\.|time_(text|guidance)_embed\."
    r"|(double|single)_stream_modulation(_img|_txt)?\.linear$"
)
_BLOCK = re.compile(r"(double_blocks|single_blocks|transformer_blocks|single_transformer_blocks)[._](\d+)[._](.+)")
# BFL's layers whose shapes tell FLUX.2 by: rows (or inputs of the second two) to one of D, FLUX.1's and FLUX.2's.
_TELLING = re.compile(r"(?:single_blocks[._]\d+[._](linear[12])|double_blocks[._]\d+[._](?:img|txt)_(mlp[._][02]))$")
_FLUX2_RATIOS = {"linear1": (9, 1), "linear2": (1, 4), "mlp.0": (6, 1), "mlp.2": (1, 3)}


@dataclass(frozen=True)
class Known:
    """An adapter file, read.

    layout     "diffusers", "peft", "uno", "kohya", "comfyui" or "bfl"
    split      tensors by stock key without prefix, scales within B
    scales     what each module's B was multiplied with, by the file's own name of it
    left_out   keys of the text encoders' part, which is none of a transformer's
    """

    layout: str
    split: State
    scales: Mapping[str, float]
    left_out: tuple[str, ...] = ()


def read_keys(state: Mapping[str, Tensor], settings: Settings | None) -> Known:
    """Any layout. ``settings``: what the file's header, or the config beside it, says of scales; None is nothing.

    Raises UserError, without the file's name, on keys of no known layout, other kinds of adapters, and matrices
    that don't go together.
    """
    if any(".processor." in key for key in state):
        for key, value in state.items():
            _refuse_integers(key, value)
        found = to_split(uno_to_adapter(state))
        pairs(found)
        return Known("uno", found, {})
    named_plainly = {_WRAPPERS.sub("", key): value for key, value in state.items()}
    if len(named_plainly) < len(state):
        raise UserError("adapter: holds the same keys with and without a wrapper's name; leave one of them out")
    state = named_plainly
    left_out = tuple(key for key in state if _TEXT.match(key))
    downs, ups, alphas = _sorted({key: value for key, value in state.items() if not _TEXT.match(key)})
    modules = dict.fromkeys([*downs, *ups, *alphas])
    if not modules:
        what = "only a text encoder's part" if left_out else "no LoRA matrices"
        raise UserError(f"adapter: holds {what}; is this another file?")
    blocks = _blocks(downs, ups)
    named = {module: _named(module, blocks) for module in modules}
    layouts = list(dict.fromkeys(layout for layout, _, _ in named.values()))
    if len(layouts) > 1:
        raise UserError(f"adapter: holds two layouts at once, {layouts[0]} and {layouts[1]}; leave one of them out")
    split: State = {}
    scales = {}
    for module, (layout, plain, parts) in named.items():
        down, up = downs.get(module), ups.get(module)
        if down is None or up is None or not down.ndim == up.ndim == 2 or not down.numel() or len(down) != up.shape[1]:
            raise UserError(f"adapter: A and B of {module} don't go together; save the adapter anew")
        scales[plain] = _scale(plain, down.shape[0], alphas, module, settings, others=layout != "kohya")
        for part, piece in zip(parts, _pieces(module, parts, _times(up, scales[plain]), down.shape[1]), strict=True):
            if f"{part}.lora_A.weight" in split:
                raise UserError(f"adapter: holds {part} twice; leave one of them out")
            split[f"{part}.lora_A.weight"] = down
            split[f"{part}.lora_B.weight"] = piece
    whole = to_split(split)
    if len(whole) < sum(3 if ".to_qkv." in key or ".to_added_qkv." in key else 1 for key in split):
        raise UserError("adapter: holds layers both fused and split into q, k and v; leave one of them out")
    return Known(layouts[0], whole, scales, left_out)


def _sorted(state: Mapping[str, Tensor]) -> tuple[State, State, dict[str, float]]:
    """(A by module, B by module, alpha by module), modules as the file calls them."""
    downs: State = {}
    ups: State = {}
    alphas: dict[str, float] = {}
    unknown = []
    names: set[str | None] = set()  # peft's, where a file has not left it out
    for key, value in state.items():
        if found := _MATRIX.fullmatch(key):
            names.add(found[3])
            _refuse_integers(key, value)
            flat = value.flatten(1) if value.shape[2:] == (1, 1) else value  # of a convolution over one pixel
            matrices = downs if found[2] in _DOWN else ups
            if found[1] in matrices and len(names) == 1:
                raise UserError(f"adapter: holds a matrix of {found[1]} twice, {key} again; leave one out")
            matrices[found[1]] = flat
        elif key.endswith(".alpha") and value.numel() == 1:
            alphas[key.removesuffix(".alpha")] = float(value)
        else:
            unknown.append(key)
    for key in unknown:
        for mark, kind in _OTHERS.items():
            if mark in key:
                raise UserError(f"adapter: {key} is {kind}, which is no B A; merge it into its base by its own program")
    if unknown:
        _refuse(unknown)
    if len(names) > 1:
        raise UserError(f"adapter: holds {len(names)} adapters, {', '.join(sorted(map(str, names)))}; save one alone")
    return downs, ups, alphas


def _refuse_integers(key: str, value: Tensor) -> None:
    if not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        raise UserError(f"adapter: {key} holds {kind} numbers, whose scale is unknown; save it as floats")


def _refuse(unknown: list[str]) -> None:
    raise UserError(
        f"adapter: {len(unknown)} keys are of no known LoRA layout (diffusers, peft, UNO, kohya, ComfyUI, BFL), such "
        f"as {unknown[0]}; is this another file?"
    )


def _blocks(downs: State, ups: State) -> Blocks:
    """The tables of the family that the file is of; FLUX.1's where both would read it alike."""
    if family_of(f"{module}." for module in downs) == "FLUX.2":
        return FLUX2_BLOCKS
    for module, down in downs.items():
        found, up = _TELLING.search(module), ups.get(module)
        if found and up is not None and down.ndim == up.ndim == 2:
            rows, inputs = _FLUX2_RATIOS[(found[1] or found[2]).replace("_", ".")]
            if up.shape[0] * inputs == down.shape[1] * rows:
                return FLUX2_BLOCKS
    return FLUX_BLOCKS


def _named(module: str, blocks: Blocks) -> tuple[str, str, list[str]]:
    """(layout, the name without prefix, the stock modules that are stacked in it, top to bottom)."""
    prefix, layout = next((prefix, layout) for prefix, layout in _PREFIXES.items() if module.startswith(prefix))
    plain = module.removeprefix(prefix)
    parts = _underscored(plain, blocks) if layout == "kohya" else _dotted(plain, blocks)
    if parts is None and layout == "diffusers":
        parts = [plain]  # what the transformer lacks is told where it is loaded
    if parts is None:
        _refuse([module])
        raise AssertionError
    return layout or ("diffusers" if parts == [plain] else "bfl"), plain, parts


def _dotted(name: str, blocks: Blocks) -> list[str] | None:
    if _OURS.match(name):
        return [name]
    block = _BLOCK.fullmatch(name)
    bfl = {theirs: (ours, table) for ours, (theirs, table) in blocks.items()}
    ours, table = bfl.get(block[1] if block else "", ("", {}))
    parts = table.get(block[3] if block else name)
    return parts and [".".join(filter(None, (ours, block[2] if block else "", part))) for part in parts]


def _underscored(name: str, blocks: Blocks) -> list[str] | None:
    """``double_blocks_0_img_attn_qkv`` as its dotted name: the tables hold every one."""
    block = _BLOCK.fullmatch(name)
    kind, rest = (block[1], block[3]) if block else ("", name)
    candidates: set[str] = set()
    for ours, (theirs, table) in blocks.items():
        if kind == theirs:
            candidates |= table.keys()
        if kind == ours:
            candidates |= {part for parts in table.values() for part in parts}
    found = next((candidate for candidate in candidates if candidate.replace(".", "_") == rest), None)
    if found is None:
        return None
    return _dotted(f"{kind}.{block[2]}.{found}" if block else found, blocks)


def _scale(
    plain: str, rank: int, alphas: Mapping[str, float], module: str, settings: Settings | None, *, others: bool
) -> float:
    """What B A is multiplied with. ``others``: programs differ over modules without an alpha beside some with one."""
    if settings is not None:
        if alphas:
            raise UserError("adapter: says its scales twice, by .alpha tensors and by peft's settings; leave one out")
        return settings.scale(plain, rank)
    if alphas and others and module not in alphas:
        raise UserError(
            f"adapter: {module} has no alpha, though others have one, and programs differ over what that means; "
            "give it one"
        )
    if alphas.get(module) == 0:
        raise UserError(
            f"adapter: {module} has alpha 0, which is no strength to some programs and full to others; "
            "give the alpha that is meant (its rank is full strength)"
        )
    return alphas.get(module, float(rank)) / rank


def _times(up: Tensor, scale: float) -> Tensor:
    """``up`` times ``scale``: in its own dtype where that loses nothing, else in float32."""
    if scale == 1:
        return up
    exact = up.to(torch.promote_types(up.dtype, torch.float32)) * scale
    narrow = exact.to(up.dtype)
    return narrow if torch.equal(narrow.to(exact.dtype), exact) else exact


def _pieces(module: str, parts: list[str], up: Tensor, width: int) -> list[Tensor]:
    """B cut as the modules of ``parts`` lie in it; ``width`` is the number of inputs, and of each projection's rows."""
    if module.endswith(tuple(SWAPPED.replace(".", mark) for mark in "._")):
        return [torch.cat(up.chunk(2)[::-1])]
    if len(parts) == 1:
        return [up]
    rows = [width] * 3 + [up.shape[0] - 3 * width] * (len(parts) - 3)
    if min(rows) < 1 or sum(rows) != up.shape[0]:
        raise UserError(f"adapter: B of {module} has {up.shape[0]} rows, which are no {len(parts)} layers' of {width}")
    return list(up.split(rows))
