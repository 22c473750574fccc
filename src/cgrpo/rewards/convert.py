"""Published weights in pickled form, made safetensors once; no reward reads anything pickled.

What is a single reward's own stands beside it: ``RewardSettings.convert``. Pickles are read by torch's restricted
unpickler (``weights_only``), which knows tensors and plain containers and refuses everything else without running it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPModel

from cgrpo.errors import UserError
from cgrpo.files import writing
from cgrpo.rewards.loading import check_fit, choose, load_pretrained, shapes
from cgrpo.tensor_files import write_tensors

FILE = "model.safetensors"
ACTIVATION = "gelu"  # OpenCLIP's own models; quick_gelu is OpenAI's
TOWERS = {"transformer.resblocks.": "text_model", "visual.transformer.resblocks.": "vision_model"}
RENAMED = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
TRANSPOSED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
IN_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth or .pt file, also where they lie under "state_dict" or "model_state_dict".

    Raises UserError if it can't be read, holds anything but weights, or would run code.
    """
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a missing file, a broken one, or one that would run code
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: not a file of plain weights ({type(error).__name__}: {reason}); give the published file"
        ) from error
    state = held
    if isinstance(held, dict):
        state = next((held[key] for key in ("state_dict", "model_state_dict") if key in held), held)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds more than weights by name; give the published file")
    return {str(key): value for key, value in state.items()}


def convert_open_clip(pt: Path, out: Path, reference: Path) -> Path:
    """An OpenCLIP checkpoint (``pt``; HPSv2: HPS_v2.1_compressed.pt) as the transformers folder ``out``.

    ``reference``: a transformers folder of the same architecture, whose configuration and tokenizer are taken over;
    its weights need not be there (HPSv2: laion/CLIP-ViT-H-14-laion2B-s32B-b79K). Weights keep their precision.
    Raises UserError if the checkpoint does not fit that configuration to the last weight, or ``out`` is in use.
    """
    config = load_pretrained(choose(reference, {"clip": "CLIPConfig"}, "CLIP"), reference)
    used = {config.text_config.hidden_act, config.vision_config.hidden_act}
    if used != {ACTIVATION}:
        raise UserError(
            f"CLIP configuration {reference}: says hidden_act {', '.join(sorted(used))}; OpenCLIP's models take "
            f"{ACTIVATION}: give laion/CLIP-ViT-H-14-laion2B-s32B-b79K for HPSv2"
        )
    refuse_used(out)
    state = dict(from_open_clip(read_pickled(pt)))
    with torch.device("meta"):
        needed = shapes(CLIPModel(config).state_dict())
    check_fit(pt, f"CLIP as in {reference}", needed, shapes(state))
    _copy_settings(reference, out)
    write_weights(state, out / FILE)
    return out


def convert_folder(pt: Path, out: Path, reference: Path) -> Path:
    """A transformers checkpoint published as ``pytorch_model.bin`` alone (``pt``) as the safetensors folder ``out``.

    ``reference``: the folder with its configuration, preprocessing and tokenizer. Names and precision stay as they
    are: whether they fit, the reward tells that loads them. Raises UserError if it holds more than weights, or ``out``
    is in use.
    """
    refuse_used(out)
    state = read_pickled(pt)
    _copy_settings(reference, out)
    write_weights(state, out / FILE)
    return out


def _copy_settings(reference: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(reference.iterdir()):
        if file.suffix in (".json", ".txt") and not file.name.endswith(".index.json"):
            shutil.copyfile(file, out / file.name)


def refuse_used(out: Path) -> None:
    """Raise UserError unless ``out`` is new or empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: there already; give a folder that is new or empty")


def from_open_clip(state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """OpenCLIP's weights under transformers' names; those it does not know keep theirs."""
    for key, value in state.items():
        tower = next((prefix for prefix in TOWERS if key.startswith(prefix)), None)
        if key in RENAMED:
            yield RENAMED[key], value
        elif key in TRANSPOSED:
            yield TRANSPOSED[key], value.T if value.ndim == 2 else value  # else refused for its shape
        elif tower is None:
            yield key, value
        else:
            number, _, rest = key.removeprefix(tower).partition(".")
            part, _, kind = rest.rpartition(".")
            layer = f"{TOWERS[tower]}.encoder.layers.{number}"
            if rest.startswith("attn.in_proj_") and value.ndim:  # queries, keys and values on top of each other
                for letter, third in zip("qkv", value.tensor_split(3), strict=True):
                    yield f"{layer}.self_attn.{letter}_proj.{rest.removeprefix('attn.in_proj_')}", third
            else:
                yield f"{layer}.{IN_LAYER.get(part, part)}.{kind}", value


def write_weights(state: dict[str, Tensor], path: Path) -> Path:
    """A safetensors file, whole or not at all. Raises UserError."""
    with writing(path):
        tensors = {key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}
        write_tensors(path, tensors, {"format": "pt"})
    return path
