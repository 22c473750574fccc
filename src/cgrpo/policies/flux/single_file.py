"""FLUX as Black Forest Labs publish it, one file for the transformer and one for the autoencoder.

The same weights as in a diffusers folder under other names: pure renamings, but for q, k and v (and
the first MLP matrix of a single block), which lie stacked in one tensor, the halves of the last
modulation, which are swapped, and the autoencoder's attention, written as 1 x 1 convolutions. A
file holds no settings; they follow from the tensors' shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cgrpo.errors import UserError
from cgrpo.policies.checkpoints import refuse_integers
from cgrpo.policies.flux.family import LAYOUT
from cgrpo.policies.layouts import SWAPPED
from cgrpo.weights import misshapen, refuse_misfit, refuse_not_finite

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FluxTransformer2DModel

Shapes = Mapping[str, tuple[int, ...]]
Plan = dict[str, list[str]]  # a file's key -> the keys of ours that are stacked in it, top to bottom
Model = TypeVar("Model", bound=nn.Module)

PREFIX = "model.diffusion_model."  # some programs write it before every key
SCALING, SHIFT = 0.3611, 0.1159  # of the autoencoder's latents; FLUX.1

_OTHER_FILES = {  # by a part of their keys
    "text_encoders.": "an all-in-one checkpoint, with text encoders and autoencoder in one file",
    "conditioner.": "an all-in-one checkpoint of another family",
    "cond_stage_model.": "an all-in-one checkpoint of another family",
    "lora_": "a LoRA, which policy.start takes",
    "stream_modulation": "a transformer of FLUX.2",
    "transformer_blocks.": "a transformer under diffusers' names, which belongs into a folder with its config.json",
}
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def transformer_plan(keys: Iterable[str]) -> Plan:
    """Where each of a FluxTransformer2DModel's keys lies in a BFL file."""
    keys = set(keys)
    plan: Plan = {}
    blocks = {m[0] for key in keys if (m := re.match(r"(single_)?transformer_blocks\.\d+", key))}
    for block in {"", *blocks}:
        ours, _, number = block.partition(".")
        theirs, table = LAYOUT.blocks[ours]
        for module, parts in table.items():
            for leaf in ("weight", "bias"):
                stacked = [".".join(filter(None, (block, part, leaf))) for part in parts]
                if stacked[0] in keys:
                    name = "scale" if module.endswith(("query_norm", "key_norm")) else leaf
                    plan[".".join(filter(None, (theirs, number, module, name)))] = stacked
    return plan


def autoencoder_plan(keys: Iterable[str], levels: int) -> Plan:
    """Where each of an AutoencoderKL's keys lies in a BFL file; ``levels`` is the number of resolutions."""

    def theirs(key: str) -> str:
        key = re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}", key)  # they count from the output
        key = re.sub(r"down_blocks\.(\d+)", r"down.\1", key)
        key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
        key = re.sub(
            r"mid_block\.attentions\.0\.(.+)\.(weight|bias)", lambda m: f"mid.attn_1.{_ATTENTION[m[1]]}.{m[2]}", key
        )
        key = key.replace(".resnets.", ".block.").replace(".conv_shortcut.", ".nin_shortcut.")
        key = re.sub(r"(up|down)samplers\.0\.conv", r"\1sample.conv", key)
        return key.replace("conv_norm_out", "norm_out")

    return {theirs(key): [key] for key in keys}


def transformer_config(shapes: Shapes, axes: tuple[int, int, int] | None = None) -> dict[str, object]:
    """The settings of FluxTransformer2DModel that a BFL file's shapes imply.

    ``axes``: rotary dimensions per axis, which no shape shows; default (d/8, 7d/16, 7d/16) of a head's
    d, FLUX's (16, 56, 56) at 128. Raises UserError if a tensor that tells a size is missing.
    """
    norm = next((key for key in shapes if key.endswith("query_norm.scale")), "double_blocks.0...query_norm.scale")
    head = _size(shapes, norm, 0)
    if not head:
        raise UserError(f"{norm} is empty; copy the file anew")
    return {
        "in_channels": _size(shapes, "img_in.weight", 1),
        "out_channels": _size(shapes, "final_layer.linear.weight", 0),
        "num_layers": _count(shapes, r"double_blocks\.(\d+)\."),
        "num_single_layers": _count(shapes, r"single_blocks\.(\d+)\."),
        "attention_head_dim": head,
        "num_attention_heads": _size(shapes, "img_in.weight", 0) // head,
        "joint_attention_dim": _size(shapes, "txt_in.weight", 1),
        "pooled_projection_dim": _size(shapes, "vector_in.in_layer.weight", 1),
        "guidance_embeds": any(key.startswith("guidance_in.") for key in shapes),
        "axes_dims_rope": axes or (head // 8, 7 * head // 16, 7 * head // 16),
    }


def autoencoder_config(shapes: Shapes, norm_groups: int = 32) -> dict[str, object]:
    """The settings of AutoencoderKL that a BFL file's shapes imply, with FLUX.1's scaling and shift."""
    levels = _count(shapes, r"encoder\.down\.(\d+)\.")
    return {
        "in_channels": _size(shapes, "encoder.conv_in.weight", 1),
        "out_channels": _size(shapes, "decoder.conv_out.weight", 0),
        "latent_channels": _size(shapes, "decoder.conv_in.weight", 1),
        "block_out_channels": tuple(_size(shapes, f"encoder.down.{i}.block.0.conv1.weight", 0) for i in range(levels)),
        "layers_per_block": _count(shapes, r"encoder\.down\.0\.block\.(\d+)\."),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "norm_num_groups": norm_groups,
        "scaling_factor": SCALING,
        "shift_factor": SHIFT,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }


def read_transformer(
    file: Path, dtype: torch.dtype | None, axes: tuple[int, int, int] | None = None
) -> FluxTransformer2DModel:
    """A BFL transformer file (flux1-dev.safetensors) as a stock transformer in ``dtype`` (None: its own) on the CPU.

    Tensor by tensor: beyond the model itself, memory for one tensor. Raises UserError naming every
    missing, unknown and mis-shaped tensor at once.
    """
    from diffusers import FluxTransformer2DModel

    shapes, prefix = _shapes(file)
    with _naming(file, shapes):
        config = transformer_config(shapes, axes)
    refuse_controlled(file, config["in_channels"], config["out_channels"])
    with _naming(file, shapes), torch.device("meta"):
        model = FluxTransformer2DModel(**config)  # pyright: ignore
    return _fill(model, transformer_plan(model.state_dict()), file, shapes, prefix, dtype)


def read_autoencoder(file: Path, dtype: torch.dtype | None, norm_groups: int = 32) -> AutoencoderKL:
    """A BFL autoencoder file (ae.safetensors) as a stock AutoencoderKL; see ``read_transformer``."""
    from diffusers import AutoencoderKL

    shapes, prefix = _shapes(file)
    with _naming(file, shapes), torch.device("meta"):
        model = AutoencoderKL(**autoencoder_config(shapes, norm_groups))  # pyright: ignore
    levels = _count(shapes, r"encoder\.down\.(\d+)\.")
    return _fill(model, autoencoder_plan(model.state_dict(), levels), file, shapes, prefix, dtype)


def refuse_controlled(where: Path, channels: object, picture: object) -> None:
    """Raise a UserError for a transformer that takes more channels than the ``picture``'s, which it gives."""
    if channels and picture and channels != picture:
        raise UserError(
            f"{where}: takes {channels} channels and gives {picture}: a Fill, Canny or Depth model, whose mask or "
            "control picture no policy here has",
            "give FLUX.1-dev, FLUX.1-schnell or FLUX.1-Kontext-dev",
        )


@contextmanager
def _naming(file: Path, shapes: Shapes) -> Iterator[None]:
    """Names the file where its shapes make no model, and says what it looks like."""
    try:
        yield
    except (UserError, ValueError, ZeroDivisionError, IndexError, RuntimeError) as error:
        kind = next((kind for part, kind in _OTHER_FILES.items() if any(part in key for key in shapes)), "")
        reason = kind or " ".join(str(error).split())[:200]
        raise UserError(
            f"{file}: not a FLUX.1 file of its kind ({reason}); give flux1-dev.safetensors as the checkpoint and "
            "ae.safetensors as its autoencoder"
        ) from error


def _fill(model: Model, plan: Plan, file: Path, shapes: Shapes, prefix: str, dtype: torch.dtype | None) -> Model:
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    expected = {key: (sum(own[part][0] for part in parts), *own[parts[0]][1:]) for key, parts in plan.items()}
    refuse_misfit(
        file,
        missing=expected.keys() - shapes.keys(),
        unknown=shapes.keys() - expected.keys(),
        misshapen=[
            misshapen(key, shapes[key], shape)
            for key, shape in expected.items()
            # the autoencoder's attention: a 1 x 1 convolution is a matrix
            if key in shapes and shapes[key] not in (shape, (*shape, 1, 1))
        ],
        cure="copy the file anew, or give the one of this model",
    )
    refuse_integers(file)
    state: dict[str, Tensor] = {}
    with safe_open(file, "pt") as opened:
        for key, parts in plan.items():
            whole = opened.get_tensor(prefix + key)
            if key.startswith(SWAPPED):
                whole = torch.cat(whole.chunk(2)[::-1])  # (shift, scale) -> (scale, shift)
            pieces = whole.split([own[part][0] for part in parts])
            for part, piece in zip(parts, pieces, strict=True):
                # A copy of its own: views of the mapped file would keep it open, and share memory.
                state[part] = piece.reshape(own[part]).to(dtype or piece.dtype, copy=True)
                refuse_not_finite(file, {key: state[part]})
    model.load_state_dict(state, assign=True)
    return model.eval()


def _shapes(file: Path) -> tuple[dict[str, tuple[int, ...]], str]:
    """(shapes by key without prefix, the prefix)."""
    try:
        with safe_open(file, "pt") as opened:
            shapes = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: can't be loaded ({error}); only whole safetensors are read") from error
    prefix = PREFIX if all(key.startswith(PREFIX) for key in shapes) else ""
    return {key.removeprefix(prefix): shape for key, shape in shapes.items()}, prefix


def _size(shapes: Shapes, key: str, axis: int) -> int:
    if len(shapes.get(key, ())) <= axis:
        raise UserError(f"{key} is missing or has too few axes")
    return shapes[key][axis]


def _count(shapes: Shapes, pattern: str) -> int:
    """How many numbers occur in the keys: a gap then shows as a missing and an unknown one."""
    return len({m[1] for key in shapes if (m := re.match(pattern, key))})
