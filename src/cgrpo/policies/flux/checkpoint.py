"""The parts of a FLUX.1 checkpoint: a diffusers folder, the same on the model hub, or BFL's single files."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgrpo.errors import UserError
from cgrpo.policies.checkpoints import check_sizes, locate_base, model_index, read_settings
from cgrpo.policies.flux.inputs import CLIP_LENGTH, T5_LENGTH
from cgrpo.policies.flux.single_file import SCALING, SHIFT, refuse_controlled
from cgrpo.policies.models import Stock
from cgrpo.policies.settings import PolicySettings

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

STOCK = {  # text encoders of whole models are read, too
    "transformer": Stock("diffusers:FluxTransformer2DModel", "transformer"),
    "autoencoder": Stock("diffusers:AutoencoderKL", "vae", "autoencoder"),
    "t5": Stock(
        "transformers:T5EncoderModel",
        "text_encoder_2",
        "t5",
        "tokenizer_2",
        T5_LENGTH,
        also=("T5ForConditionalGeneration", "T5Model"),
        # the decoder half; embed_tokens: the shared table once more
        spare=r"(decoder|lm_head)\..*|encoder\.embed_tokens\.weight",
    ),
    "clip": Stock(
        "transformers:CLIPTextModel",
        "text_encoder",
        "clip",
        "tokenizer",
        CLIP_LENGTH,
        also=("CLIPTextModelWithProjection", "CLIPModel"),
        # the picture half and the heads over both; position_ids: a buffer in files of before 2023
        spare=r"(vision_model|visual_projection|text_projection)\..*|logit_scale|(.*\.)?position_ids",
    ),
}
TEXT_ENCODERS = {"clip": ("clip_tokenizer", CLIP_LENGTH), "t5": ("t5_tokenizer", T5_LENGTH)}


def refuse_unscaled(vae: Path) -> None:
    """Raises UserError for a scale or shift that the file leaves out: the library's defaults are another family's."""
    config = read_settings(vae / "config.json")
    for key, none in (("scaling_factor", False), ("shift_factor", True)):
        value = config.get(key, "nothing")
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not ((number and (none or value != 0)) or (none and value is None)):
            raise UserError(
                f"{vae / 'config.json'}: {key} is {value}, and latents have no scale without; give the "
                f"autoencoder's own: FLUX.1's is {SHIFT if none else SCALING}"
            )


def check_settings(settings: PolicySettings) -> None:
    """Report on stderr where a pipeline's kind and policy.position_ids don't go together.

    Raises UserError for a transformer that takes other inputs.
    """
    base = locate_base(settings)
    file = base / "transformer" / "config.json"
    config = read_settings(file) if file.is_file() else {}
    refuse_controlled(base, config.get("in_channels"), config.get("out_channels"))
    schemes = {"FluxPipeline": "d", "FluxKontextPipeline": "kontext"}
    own = schemes.get(model_index(base).get("_class_name", ""), settings.position_ids)
    if (own == "kontext") != (settings.position_ids == "kontext"):
        kind = "FLUX.1 Kontext" if own == "kontext" else "no Kontext model: nothing taught it to look at references so"
        given = f"policy.position_ids = {settings.position_ids}"
        print(f"cgrpo: {settings.path}: is {kind}, but {given}; set it to {own}, or give another base", file=sys.stderr)


def check_fit(settings: PolicySettings, parts: Mapping[str, Any]) -> None:
    """Raises UserError for parts of different checkpoints, from which nothing sensible would come out."""
    where = locate_base(settings)
    transformer, clip, t5 = parts.get("transformer"), parts.get("clip"), parts.get("t5")
    if transformer is not None:
        config, latent = transformer.config, parts["autoencoder"].config["latent_channels"]
        pairs = {"transformer in_channels and 4 * vae latent_channels": (config["in_channels"], 4 * latent)}
        if clip and t5:
            pairs |= {
                "transformer joint_attention_dim and text_encoder_2 d_model": (
                    config["joint_attention_dim"],
                    t5.config.d_model,
                ),
                "transformer pooled_projection_dim and text_encoder hidden_size": (
                    config["pooled_projection_dim"],
                    clip.config.hidden_size,
                ),
            }
        check_sizes(where, pairs)
        if sum(config["axes_dims_rope"]) != config["attention_head_dim"]:
            raise UserError(
                f"{where}: axes_dims_rope {list(config['axes_dims_rope'])} do not add up to attention_head_dim "
                f"{config['attention_head_dim']}",
                "fix transformer/config.json",
            )
    if not (clip and t5):
        return
    for name, model, tokenizer in (
        ("text_encoder", clip, parts["clip_tokenizer"]),
        ("text_encoder_2", t5, parts["t5_tokenizer"]),
    ):
        if len(tokenizer) > model.config.vocab_size:
            raise UserError(
                f"{where}: the tokenizer of {name} has {len(tokenizer)} words, and it knows {model.config.vocab_size}; "
                "it is another model's"
            )
    # CLIP pools at its end token. Where it finds none it silently pools the first token, the same for all prompts;
    # eos_token_id 2 is the old convention "the highest id is the end token".
    tokenizer, wanted = parts["clip_tokenizer"], clip.config.eos_token_id
    if tokenizer.eos_token_id != (len(tokenizer) - 1 if wanted == 2 else wanted):
        raise UserError(
            f"{where}: text_encoder pools at eos_token_id {wanted}, but the tokenizer ends prompts with "
            f"{tokenizer.eos_token_id}",
            "fix eos_token_id in text_encoder/config.json",
        )


def save_pipeline(
    settings: PolicySettings, transformer: FluxTransformer2DModel, parts: dict[str, Any], folder: Path
) -> None:
    """Write ``transformer`` and the other ``parts`` into ``folder`` as a FluxPipeline.

    BFL's files come without a scheduler's settings, which are FLUX.1-dev's or -schnell's.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    scheduler = locate_base(settings) / "scheduler"
    if scheduler.is_dir():
        steps = FlowMatchEulerDiscreteScheduler.from_pretrained(scheduler, local_files_only=True)
    elif transformer.config["guidance_embeds"]:
        steps = FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_image_seq_len=256, max_image_seq_len=4096
        )
    else:
        steps = FlowMatchEulerDiscreteScheduler(shift=1.0)
    texts = (parts[name] for name in ("clip", "clip_tokenizer", "t5", "t5_tokenizer"))
    FluxPipeline(steps, parts["autoencoder"], *texts, transformer).save_pretrained(folder)  # pyright: ignore
