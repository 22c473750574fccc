"""The parts of a Qwen-Image-Edit checkpoint (2509, 2511): a diffusers folder, or the same on the model hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cgrpo.errors import UserError
from cgrpo.policies.checkpoints import check_sizes, locate_base, model_index
from cgrpo.policies.models import Model, Stock, model_of
from cgrpo.policies.pictured import LENGTH, check_pad
from cgrpo.policies.qwen_edit.inputs import DROPPED, TEMPLATE
from cgrpo.policies.settings import PolicySettings

PIPELINE = "QwenImageEditPlusPipeline"
STOCK = {
    "transformer": Stock("diffusers:QwenImageTransformer2DModel", "transformer"),
    "autoencoder": Stock("diffusers:AutoencoderKLQwenImage", "vae", "autoencoder"),
    "qwen": Stock(
        "transformers:Qwen2_5_VLModel",
        "text_encoder",
        tokenizer="processor",
        most=LENGTH,
        also=("Qwen2_5_VLForConditionalGeneration",),
        spare=r"lm_head\.weight",  # the head over words
    ),
}


def check_settings(settings: PolicySettings) -> None:
    """Raises UserError for a single file, and for a folder of another pipeline's."""
    base = locate_base(settings)
    if base.is_file():
        fault = f"{base}: single files of Qwen-Image-Edit are not read"
        raise UserError(fault, "give a diffusers folder, or its name on the hub; a LoRA belongs into policy.start")
    pipeline = model_index(base).get("_class_name", PIPELINE)
    if pipeline != PIPELINE:
        fault = f"{base}: is a {pipeline}, which takes no list of references as {PIPELINE} does"
        raise UserError(fault, "give Qwen/Qwen-Image-Edit-2511 or -2509")


def check_tokenizer(tokenizer: Any) -> None:
    check_pad(tokenizer)
    if len(tokenizer(TEMPLATE.format("")).input_ids) <= DROPPED:
        raise ValueError(f"it makes fewer than {DROPPED} tokens of the template")


def check_fit(settings: PolicySettings, parts: Mapping[str, Any]) -> None:
    """Raises UserError for parts of different checkpoints, from which nothing sensible would come out."""
    if "transformer" not in parts:
        return
    config, latent = parts["transformer"].config, parts["autoencoder"].config["z_dim"]
    pairs = {"transformer in_channels and 4 * vae z_dim": (config["in_channels"], 4 * latent)}
    if "qwen" in parts:
        sizes = config["joint_attention_dim"], parts["qwen"].config.text_config.hidden_size
        pairs["transformer joint_attention_dim and text_encoder hidden_size"] = sizes
    check_sizes(locate_base(settings), pairs)


def qwen_models(settings: PolicySettings) -> dict[str, Model]:
    """What ``cgrpo plan`` measures; 2509 and 2511 are of one size."""
    return {part: model_of(settings, stock, "Qwen-Image-Edit-2511", "Qwen") for part, stock in STOCK.items()}
