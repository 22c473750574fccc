"""The LoRA files that people have, read into one form: every layout of keys, every way to say a scale.

What a name begins with tells its layout; what it ends with, which matrix it is:

diffusers   ``transformer.transformer_blocks.0.attn.to_q.lora_A.weight``
peft        ``base_model.model.transformer_blocks.0.attn.to_q.lora_A.weight``, adapter_config.json beside it
UNO         ``double_blocks.0.processor.qkv_lora1.down.weight``; XLabs' names
kohya       ``lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight``; ``lora_transformer_...`` with diffusers' names
ComfyUI     ``diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight``; BFL's names (layouts.py)
BFL         the same without prefix

The form: split keys (keys.py), the scale within B, so that every delta is B A.

diffusers' own converters (0.42.1) are no substitute. They read single blocks at a width of 3072 alone, leave
ComfyUI's and BFL's lora_A keys as they are, fail on peft's files, drop FLUX.2's last modulation or its swapped halves,
and scale A, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.policies.adapters.keys import FUSED, State, to_split
from cgrpo.policies.adapters.scales import Settings
from cgrpo.policies.family import layout_of, layouts
from cgrpo.policies.layouts import SWAPPED, Blocks, Layout

_WRAPPER = re.compile(  # of processes that share a model, of torch.compile, of sharding
    r"(?<![^.])(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
_TEXT = re.compile(r"(base_model\.model\.)?(text_(encoder|model)|lora_te\d?_)")  # text_encoders., text_encoder_2. too
_PREFIX = re.compile(r"(base_model\.model\.|transformer\.|model\.(?=diffusion)|diffusion_model\.)*")
_UNDERSCORES = re.compile(r"(lora_transformer|lora_unet|lycoris)_")
_MATRIX = re.compile(r"(.+)\.(?:(lora_A|lora_down|lora\.down)|lora_B|lora_up|lora\.up)(?:\.(?!weight)(\w+))?\.weight")
_UNO_MATRIX = re.compile(r"(\.processor\.\w+\.)(?=(?:down|up)\.)")
_OTHERS = {  # kinds of adapters that are no B A
    "dora_scale": "DoRA", "lora_magnitude_vector": "DoRA", ".lokr_": "LoKr", ".hada_": "LoHa", ".oft_": "OFT",
    ".lora_mid": "LoCon's convolution", ".alpha": "an alpha of many numbers", "norm.scale": "a norm's weights",
    "scale_weight": "a scale of 8-bit numbers", "scaled_fp8": "a scale of 8-bit numbers",
    ".diff": "a full difference of weights", ".bias": "a bias",
}  # fmt: skip
_NOTHING = re.compile("(?!)")
_NUMBER = re.compile(r"(?<=blocks[._])\d+(?=[._])")


@dataclass(frozen=True)
class Known:
    """An adapter file, read.

    layout     "diffusers", "peft", "uno", "kohya", "comfyui" or "bfl"
    split      tensors by split key, scales within B; some may share memory
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


def read_keys(state: Mapping[str, Tensor], settings: Settings | None, layout: Layout | None = None) -> Known:
    """Any layout of keys.

    settings   what the file's header, or the config beside it, says of scales; None is nothing
    layout     a family's whose layers are known beside those of the family that the file tells

    Raises UserError, without the file's name, on layers that no family has, other kinds of adapters, and matrices that
    don't go together.
    """
    unwrapped = {_UNO_MATRIX.sub(r"\1lora_", _WRAPPER.sub("", key)): value for key, value in state.items()}
    if len(unwrapped) < len(state):
        raise UserError("adapter: holds the same keys with and without a wrapper's name; leave one of them out")
    left_out = tuple(key for key in unwrapped if _TEXT.match(key))
    modules = _modules({key: value for key, value in unwrapped.items() if key not in left_out})
    if not modules:
        what = "only a text encoder's part" if left_out else "no LoRA matrices"
        raise UserError(f"adapter: holds {what}; is this another file?")
    own = _family(modules)
    layers = _layers(own.blocks, *own.programs.values(), layout.blocks if layout else {})
    targets = re.compile(layout.targets) if layout else _NOTHING
    named = {name: _named(name, layers, targets) for name in modules}
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
        kind, plain, parts = named[name]
        scales[plain] = _scale(name, plain, module.alpha, len(down), settings, alphas, strict=kind != "kohya")
        pieces = _pieces(name, parts, times(up, scales[plain]), down.shape[1])
        for part, piece in zip(parts, pieces, strict=True):
            if f"{part}.lora_A.weight" in split:
                raise UserError(f"adapter: holds {part} twice; leave one of them out")
            split[f"{part}.lora_A.weight"] = down
            split[f"{part}.lora_B.weight"] = piece
    whole = to_split(split)
    if len(whole) < sum(3 if name.split(".")[-3] in FUSED else 1 for name in split):
        raise UserError("adapter: holds layers both fused and split into q, k and v; leave one of them out")
    return Known(layouts[0], whole, scales, left_out)


def _modules(state: Mapping[str, Tensor]) -> dict[str, _Matrices]:
    """Matrices by module, as the file calls it. Raises UserError for a key that is no matrix and no alpha."""
    modules: dict[str, _Matrices] = {}
    unknown = []
    names: set[str | None] = set()  # of the adapter, where the file has not left it out
    for key, value in state.items():
        if match := _MATRIX.fullmatch(key):
            name, down, adapter = match.groups()
            names.add(adapter)
            if not value.is_floating_point():
                kind = str(value.dtype).removeprefix("torch.")
                raise UserError(f"adapter: {key} holds {kind} numbers, whose scale is unknown; save it as floats")
            flat = value.flatten(1) if value.shape[2:] == (1, 1) else value  # of a convolution over one pixel
            field = "down" if down else "up"
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


def _no_layout(keys: list[str]) -> UserError:
    return UserError(
        f"adapter: {len(keys)} keys are of no known LoRA layout (diffusers, peft, UNO, kohya, ComfyUI, BFL), such as "
        f"{keys[0]}; is this another file?"
    )


def _family(modules: Mapping[str, _Matrices]) -> Layout:
    """The family whose names the file has, or whose layers' shapes; the first where several would read it alike."""
    return layout_of(f"{name}." for name in modules) or next(
        (layout for layout in layouts() if _has_ratios(layout, modules)), layouts()[0]
    )


def _has_ratios(layout: Layout, modules: Mapping[str, _Matrices]) -> bool:
    for name, module in modules.items():
        down, up = module.down, module.up
        rows, inputs = next((ratio for layer, ratio in layout.ratios.items() if re.search(layer, name)), (0, 0))
        if not rows or down is None or up is None or not down.ndim == up.ndim == 2:
            continue
        if up.shape[0] * inputs == down.shape[1] * rows:
            return True
    return False


def _layers(*tables: Blocks) -> dict[str, list[str]]:
    """The stock layers, top to bottom, by every name that stands for them, * in place of a block's number."""
    names: dict[str, list[str]] = {}
    for blocks in tables:
        for ours, (theirs, table) in blocks.items():
            for layer, parts in table.items():
                stock = [f"{ours}.*.{part}" if ours else part for part in parts]
                names[f"{theirs}.*.{layer}" if theirs else layer] = stock
                names |= {name: [name] for name in stock}
    for fused, (first, *_) in FUSED.items():
        names |= {own: [own] for name in list(names) if (own := re.sub(rf"\b{first}$", fused, name)) != name}
    return names


def _named(module: str, layers: Mapping[str, list[str]], targets: re.Pattern[str]) -> tuple[str, str, list[str]]:
    """(layout, the name without prefix, the stock modules that are stacked in it, top to bottom).

    Raises UserError for a module that is none of ``layers``, nor one of the ``targets`` that a family trains.
    """
    if match := _UNDERSCORES.match(module):
        layout, plain = "kohya", module.removeprefix(match[0])
        layers = {name.replace(".", "_"): parts for name, parts in layers.items()}
    else:
        prefix = _PREFIX.match(module)
        before = prefix[0] if prefix else ""
        plain = module.removeprefix(before)
        named = {"base_model.": "peft", "diffusion_model.": "comfyui", "transformer.": "diffusers"}
        layout = next((layout for part, layout in named.items() if part in before), "")
    number = _NUMBER.search(plain)
    parts = layers.get(_NUMBER.sub("*", plain, count=1))
    if parts is None and targets.fullmatch(plain):
        parts = [plain]
    if parts is None:
        raise _no_layout([module])
    modules = [part.replace("*", number[0]) if number else part for part in parts]
    if not layout:
        layout = "diffusers" if modules == [plain] else "uno" if ".processor." in plain else "bfl"
    return layout, plain, modules


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


def times(up: Tensor, scale: float) -> Tensor:
    """``up`` times ``scale``: in its own dtype where that loses nothing, else in float32."""
    if scale == 1:
        return up
    exact = up.to(torch.promote_types(up.dtype, torch.float32)) * scale
    narrow = exact.to(up.dtype)
    return narrow if torch.equal(narrow.to(exact.dtype), exact) else exact


def _pieces(module: str, parts: Sequence[str], up: Tensor, width: int) -> list[Tensor]:
    """B cut as the modules of ``parts`` lie in it; ``width`` is the number of inputs, and of each projection's rows."""
    if module.endswith((SWAPPED, SWAPPED.replace(".", "_"))):
        return [torch.cat(up.chunk(2)[::-1])]
    if len(parts) == 1:
        return [up]
    rows = [width] * 3 + [up.shape[0] - 3 * width] * (len(parts) - 3)
    if min(rows) < 1 or sum(rows) != up.shape[0]:
        raise UserError(f"adapter: B of {module} has {up.shape[0]} rows, which are no {len(parts)} layers' of {width}")
    return list(up.split(rows))
