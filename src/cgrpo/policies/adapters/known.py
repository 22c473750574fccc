"""The LoRA files that people have, read into one form: every layout of keys, every way to say a scale.

What a name begins with tells its layout; what it ends with, which matrix it is:

diffusers   ``transformer.transformer_blocks.0.attn.to_q.lora_A.weight``
peft        ``base_model.model.transformer_blocks.0.attn.to_q.lora_A.weight``, adapter_config.json beside it
UNO         ``double_blocks.0.processor.qkv_lora1.down.weight`` (keys.py)
kohya       ``lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight``; ``lora_transformer_...`` with diffusers' names
ComfyUI     ``diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight``; BFL's names (layouts.py)
BFL         the same without prefix

The form: stock keys without prefix, the scale within B, so that every delta is B A.

diffusers' own converters (0.42.1) are no substitute. They read single blocks at a width of 3072 alone, leave
ComfyUI's and BFL's lora_A keys as they are, fail on peft's files, drop FLUX.2's last modulation or its swapped halves,
and scale A, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.policies.adapters.keys import State, pairs, to_split, uno_to_adapter
from cgrpo.policies.adapters.layouts import FLUX, FLUX2, SWAPPED, Blocks, layout_of
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
# BFL's layers whose shapes tell FLUX.2, by its ratio of rows to inputs.
_TELLING = re.compile(r"(?:single_blocks[._]\d+[._](linear[12])|double_blocks[._]\d+[._](?:img|txt)_(mlp[._][02]))$")
_FLUX2_RATIOS = {"linear1": (9, 1), "linear2": (1, 4), "mlp.0": (6, 1), "mlp.2": (1, 3)}


@dataclass(frozen=True)
class Known:
    """An adapter file, read.

    layout     "diffusers", "peft", "uno", "kohya", "comfyui" or "bfl"
    split      tensors by stock key without prefix, scales within B; no two share memory
    scales     what each module's B was multiplied with, by the file's own name of it
    left_out   keys of the text encoders' part, which is none of a transformer's
    """

    layout: str
    split: State
    scales: Mapping[str, float]
    left_out: tuple[str, ...] = ()


@dataclass
class _Matrices:
    """A and B of a module, and the alpha beside them, as far as the file has them."""

    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None


def read_keys(state: Mapping[str, Tensor], settings: Settings | None) -> Known:
    """Any layout. ``settings``: what the file's header, or the config beside it, says of scales; None is nothing.

    Raises UserError, without the file's name, on keys of no known layout, other kinds of adapters, and matrices
    that don't go together.
    """
    if any(".processor." in key for key in state):
        for key, value in state.items():
            _refuse_integers(key, value)
        split = to_split(uno_to_adapter(state))
        pairs(split)
        return Known("uno", split, {})
    unwrapped = {_WRAPPERS.sub("", key): value for key, value in state.items()}
    if len(unwrapped) < len(state):
        raise UserError("adapter: holds the same keys with and without a wrapper's name; leave one of them out")
    left_out = tuple(key for key in unwrapped if _TEXT.match(key))
    modules = _modules({key: value for key, value in unwrapped.items() if key not in left_out})
    if not modules:
        what = "only a text encoder's part" if left_out else "no LoRA matrices"
        raise UserError(f"adapter: holds {what}; is this another file?")
    blocks = _blocks(modules)
    named = {name: _named(name, blocks) for name in modules}
    layouts = list(dict.fromkeys(layout for layout, _, _ in named.values()))
    if len(layouts) > 1:
        raise UserError(f"adapter: holds two layouts at once, {' and '.join(layouts)}; leave one of them out")
    alphas = any(module.alpha is not None for module in modules.values())
    split: State = {}
    scales: dict[str, float] = {}
    for name, module in modules.items():
        down, up = module.down, module.up
        if down is None or up is None or not down.ndim == up.ndim == 2 or not down.numel() or len(down) != up.shape[1]:
            raise UserError(f"adapter: A and B of {name} don't go together; save the adapter anew")
        layout, plain, parts = named[name]
        scales[plain] = _scale(name, plain, module.alpha, len(down), settings, alphas, strict=layout != "kohya")
        pieces = _pieces(name, parts, _times(up, scales[plain]), down.shape[1])
        for place, (part, piece) in enumerate(zip(parts, pieces, strict=True)):
            if f"{part}.lora_A.weight" in split:
                raise UserError(f"adapter: holds {part} twice; leave one of them out")
            split[f"{part}.lora_A.weight"] = down.clone() if place else down
            split[f"{part}.lora_B.weight"] = piece
    whole = to_split(split)
    if len(whole) < sum(3 if ".to_qkv." in key or ".to_added_qkv." in key else 1 for key in split):
        raise UserError("adapter: holds layers both fused and split into q, k and v; leave one of them out")
    return Known(layouts[0], whole, scales, left_out)


def _modules(state: Mapping[str, Tensor]) -> dict[str, _Matrices]:
    """Matrices by module, as the file calls it. Raises UserError for a key that is no matrix and no alpha."""
    modules: dict[str, _Matrices] = {}
    unknown = []
    names: set[str | None] = set()  # of the adapter, where the file has not left it out
    for key, value in state.items():
        if match := _MATRIX.fullmatch(key):
            name, matrix, adapter = match.groups()
            names.add(adapter)
            _refuse_integers(key, value)
            flat = value.flatten(1) if value.shape[2:] == (1, 1) else value  # of a convolution over one pixel
            field = "down" if matrix in ("lora_A", "lora_down", "lora.down") else "up"
            module = modules.setdefault(name, _Matrices())
            if getattr(module, field) is not None and len(names) == 1:
                raise UserError(f"adapter: holds a matrix of {name} twice, {key} again; leave one out")
            setattr(module, field, flat)
        elif key.endswith(".alpha") and value.numel() == 1:
            modules.setdefault(key.removesuffix(".alpha"), _Matrices()).alpha = float(value)
        else:
            unknown.append(key)
    for key in unknown:
        if kind := next((kind for part, kind in _OTHERS.items() if part in key), ""):
            raise UserError(f"adapter: {key} is {kind}, which is no B A; merge it into its base by its own program")
    if unknown:
        raise _no_layout(unknown)
    if len(names) > 1:
        raise UserError(f"adapter: holds {len(names)} adapters, {', '.join(sorted(map(str, names)))}; save one alone")
    return modules


def _refuse_integers(key: str, value: Tensor) -> None:
    if not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        raise UserError(f"adapter: {key} holds {kind} numbers, whose scale is unknown; save it as floats")


def _no_layout(keys: list[str]) -> UserError:
    return UserError(
        f"adapter: {len(keys)} keys are of no known LoRA layout (diffusers, peft, UNO, kohya, ComfyUI, BFL), such as "
        f"{keys[0]}; is this another file?"
    )


def _blocks(modules: Mapping[str, _Matrices]) -> Blocks:
    """BFL's names in the family that the file is of; FLUX.1's where both would read it alike."""
    if layout_of(f"{name}." for name in modules) == FLUX2:
        return FLUX2.blocks
    for name, module in modules.items():
        match, down, up = _TELLING.search(name), module.down, module.up
        if match and down is not None and up is not None and down.ndim == up.ndim == 2:
            rows, inputs = _FLUX2_RATIOS[(match[1] or match[2]).replace("_", ".")]
            if up.shape[0] * inputs == down.shape[1] * rows:
                return FLUX2.blocks
    return FLUX.blocks


def _named(module: str, blocks: Blocks) -> tuple[str, str, list[str]]:
    """(layout, the name without prefix, the stock modules that are stacked in it, top to bottom)."""
    prefix, layout = next((prefix, layout) for prefix, layout in _PREFIXES.items() if module.startswith(prefix))
    plain = module.removeprefix(prefix)
    parts = _stacked(_dotted(plain, blocks) if layout == "kohya" else plain, blocks)
    if parts is None and layout == "diffusers":
        parts = [plain]  # loading reports what the transformer lacks
    if parts is None:
        raise _no_layout([module])
    return layout or ("diffusers" if parts == [plain] else "bfl"), plain, parts


def _stacked(name: str, blocks: Blocks) -> list[str] | None:
    """The stock modules of a dotted name, BFL's or stock; None for any other."""
    if _OURS.match(name):
        return [name]
    kind, number, layer = match.groups() if (match := _BLOCK.fullmatch(name)) else ("", "", name)
    for ours, (theirs, table) in blocks.items():
        if kind == theirs and layer in table:
            return [".".join(filter(None, (ours, number, part))) for part in table[layer]]
    return None


def _dotted(name: str, blocks: Blocks) -> str:
    """``double_blocks_0_img_attn_qkv`` with its dots: the tables hold every layer. An unknown name stays as it is."""
    kind, number, layer = match.groups() if (match := _BLOCK.fullmatch(name)) else ("", "", name)
    for ours, (theirs, table) in blocks.items():
        layers = [*(table if kind == theirs else ()), *(p for ps in table.values() for p in ps if kind == ours)]
        for dotted in layers:
            if dotted.replace(".", "_") == layer:
                return ".".join(filter(None, (kind, number, dotted)))
    return name


def _scale(
    name: str, plain: str, alpha: float | None, rank: int, settings: Settings | None, alphas: bool, *, strict: bool
) -> float:
    """What B A is multiplied with. ``alphas``: whether any module of the file has one.

    ``strict`` refuses a module without an alpha beside some with one: programs differ over what that means.
    """
    if settings is not None:
        if alphas:
            raise UserError("adapter: says its scales twice, by .alpha tensors and by peft's settings; leave one out")
        return settings.scale(plain, rank)
    if alphas and strict and alpha is None:
        raise UserError(
            f"adapter: {name} has no alpha, though others have one, and programs differ over what that means",
            "give it one",
        )
    if alpha == 0:
        raise UserError(
            f"adapter: {name} has alpha 0, which is no strength to some programs and full to others",
            "give the alpha that is meant (its rank is full strength)",
        )
    return 1.0 if alpha is None else alpha / rank


def _times(up: Tensor, scale: float) -> Tensor:
    """``up`` times ``scale``: in its own dtype where that loses nothing, else in float32."""
    if scale == 1:
        return up
    exact = up.to(torch.promote_types(up.dtype, torch.float32)) * scale
    narrow = exact.to(up.dtype)
    return narrow if torch.equal(narrow.to(exact.dtype), exact) else exact


def _pieces(module: str, parts: list[str], up: Tensor, width: int) -> list[Tensor]:
    """B cut as the modules of ``parts`` lie in it; ``width`` is the number of inputs, and of each projection's rows."""
    if module.endswith((SWAPPED, SWAPPED.replace(".", "_"))):
        return [torch.cat(up.chunk(2)[::-1])]
    if len(parts) == 1:
        return [up]
    rows = [width] * 3 + [up.shape[0] - 3 * width] * (len(parts) - 3)
    if min(rows) < 1 or sum(rows) != up.shape[0]:
        raise UserError(f"adapter: B of {module} has {up.shape[0]} rows, which are no {len(parts)} layers' of {width}")
    return list(up.split(rows))
