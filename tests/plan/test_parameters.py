"""Parameters against the libraries' own models: exactly, and FLUX.1-dev's too (on the meta device)."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL
from measured import CASES, adapted, transformer
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    Dinov2Config,
    Dinov2Model,
    T5Config,
    T5EncoderModel,
)

from cgrpo.plan.encoders import T5, ClipText, Vae
from cgrpo.plan.rewards import KNOWN, stored_parameters
from cgrpo.plan.shapes import asset
from cgrpo.plan.transformer import Flux

FLUX_DEV = {
    "attention_head_dim": 128,
    "guidance_embeds": True,
    "in_channels": 64,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 19,
    "num_single_layers": 38,
    "pooled_projection_dim": 768,
}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", CASES)
def test_transformer_and_adapter(name: str) -> None:
    case = CASES[name]
    model = transformer(case.flux)
    assert case.flux.parameters == count(model)
    assert type(case.flux).from_config(model.config) == case.flux
    trained = sum(p.numel() for p in adapted(case).parameters() if p.requires_grad)
    assert case.flux.lora_parameters(case.rank) == trained


def test_flux_dev() -> None:
    flux = Flux.from_config(FLUX_DEV)
    assert flux == Flux()
    with torch.device("meta"):
        assert flux.parameters == count(transformer(flux)) == 11_901_408_320
    assert flux.lora_parameters(512) == 956_301_312  # the released UNO adapter's size


@pytest.mark.parametrize(
    ("channels", "depth", "attention", "quant", "post_quant"),
    [((8, 8, 16), 1, False, False, False), ((8, 16, 24, 12), 2, True, True, True), ((4,), 3, True, False, True)],
)
def test_autoencoder(channels: tuple[int, ...], depth: int, attention: bool, quant: bool, post_quant: bool) -> None:
    model = autoencoder(channels, depth, attention, quant, post_quant)
    assert Vae.from_config(model.config).parameters == count(model)


def autoencoder(
    channels: tuple[int, ...], depth: int, attention: bool, quant: bool, post_quant: bool, groups: int = 4
) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=channels,  # pyright: ignore
        layers_per_block=depth,
        latent_channels=16,
        mid_block_add_attention=attention,
        use_quant_conv=quant,
        use_post_quant_conv=post_quant,
        norm_num_groups=groups,
        down_block_types=("DownEncoderBlock2D",) * len(channels),  # pyright: ignore
        up_block_types=("UpDecoderBlock2D",) * len(channels),  # pyright: ignore
    )


def test_flux_autoencoder() -> None:
    with torch.device("meta"):
        model = autoencoder((128, 256, 512, 512), 2, True, False, False, groups=32)
    assert Vae().parameters == count(model) == 83_819_683


@pytest.mark.parametrize("kind", ["gated-gelu", "relu"])
def test_t5(kind: str) -> None:
    config = T5Config(vocab_size=30, d_model=24, d_ff=40, num_heads=3, d_kv=10, num_layers=2, feed_forward_proj=kind)
    assert T5.from_config(config.to_dict()).parameters == count(T5EncoderModel(config))


def test_clip_text() -> None:
    config = CLIPTextConfig(
        vocab_size=30, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
        max_position_embeddings=10,
    )  # fmt: skip
    assert ClipText.from_config(config.to_dict()).parameters == count(CLIPTextModel(config))


def test_the_real_text_encoders() -> None:
    xxl = T5Config(
        vocab_size=32128, d_model=4096, d_ff=10240, num_heads=64, d_kv=64, num_layers=24, feed_forward_proj="gated-gelu"
    )
    large = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    with torch.device("meta"):
        assert T5().parameters == count(T5EncoderModel(xxl)) == 4_762_310_656
        assert ClipText().parameters == count(CLIPTextModel(large)) == 123_060_480


def test_well_known_rewards() -> None:
    large = Dinov2Config(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, image_size=518, patch_size=14)
    vision = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    clip = CLIPConfig(vision_config=vision | {"patch_size": 14}, text_config=text, projection_dim=768)
    with torch.device("meta"):
        assert KNOWN["dinov2-large"][0] == count(Dinov2Model(large))
        assert KNOWN["clip-vit-large-patch14"][0] == count(CLIPModel(clip))


def test_a_folders_parameters_are_read_from_its_header() -> None:
    assert stored_parameters(asset("dino")) == count(Dinov2Model.from_pretrained(asset("dino")))
