"""BFL's single files: the same weights, the same settings and the same results as the diffusers folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from safetensors.torch import save_file
from support.policies import GOLDEN
from support.tiny_bfl import bfl_autoencoder, bfl_transformer
from support.tiny_flux import ACROSS_MACHINES, golden, golden_transformer, tiny_autoencoder

from cgrpo.errors import UserError
from cgrpo.policies.flux.policy import FluxPolicy
from cgrpo.policies.flux.single_file import autoencoder_config, read_autoencoder, read_transformer, transformer_config

GOLDEN_AXES = (8, 12, 12)


@pytest.fixture(scope="module")
def theirs() -> dict[str, torch.Tensor]:
    return bfl_transformer(golden_transformer().state_dict())


def autoencoder(channels: tuple[int, ...] = (8, 8, 16)) -> AutoencoderKL:
    torch.manual_seed(0)
    return tiny_autoencoder(channels, norm_num_groups=4, layers_per_block=2).eval()


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_transformer(theirs: dict[str, torch.Tensor], tmp_path: Path, prefix: str) -> None:
    """Bit-equal weights under the right keys, and the reference code's output."""
    stock = golden_transformer()
    assert len(theirs) == 2 * 10 + 2 * 24 + 2 * 8 and theirs["double_blocks.0.img_attn.qkv.weight"].shape == (192, 64)
    save_file({prefix + key: value for key, value in theirs.items()}, tmp_path / "flux.safetensors")
    ours = read_transformer(tmp_path / "flux.safetensors", torch.float32, GOLDEN_AXES)
    state = ours.state_dict()
    assert state.keys() == stock.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in stock.state_dict().items())
    for key in ("num_attention_heads", "attention_head_dim", "joint_attention_dim", "pooled_projection_dim"):
        assert ours.config[key] == stock.config[key]
    forward = golden("golden_uno/tiny_forward.safetensors")
    policy = FluxPolicy(ours, None, None, GOLDEN)
    latents = [forward["ref1_latent"], forward["ref2_latent"]]
    cond = policy.condition(forward["txt"], forward["vec"], latents, forward["guidance"])
    with torch.no_grad():
        v_NLC = policy.velocity(forward["img_tokens"], forward["timesteps"], cond)
    assert torch.allclose(v_NLC, forward["out_nolora.2ref.d"], atol=ACROSS_MACHINES)


def test_settings_of_the_published_model() -> None:
    """Shapes of flux1-dev.safetensors, without its weights."""
    with torch.device("meta"):
        dev = FluxTransformer2DModel(guidance_embeds=True, num_layers=2, num_single_layers=3)
    shapes = {key: tuple(value.shape) for key, value in bfl_transformer(dev.state_dict()).items()}
    assert shapes["single_blocks.2.linear1.weight"] == (21504, 3072)
    assert transformer_config(shapes) == {
        "in_channels": 64, "out_channels": 64, "num_layers": 2, "num_single_layers": 3, "attention_head_dim": 128,
        "num_attention_heads": 24, "joint_attention_dim": 4096, "pooled_projection_dim": 768, "guidance_embeds": True,
        "axes_dims_rope": (16, 56, 56),
    }  # fmt: skip
    schnell = {key: shape for key, shape in shapes.items() if not key.startswith("guidance_in")}
    assert transformer_config(schnell)["guidance_embeds"] is False


def test_dtype(theirs: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(theirs, tmp_path / "flux.safetensors")
    ours = read_transformer(tmp_path / "flux.safetensors", torch.bfloat16, GOLDEN_AXES)
    assert {p.dtype for p in ours.parameters()} == {torch.bfloat16} and not ours.training


@torch.no_grad()
def test_autoencoder(tmp_path: Path) -> None:
    stock = autoencoder()
    save_file(bfl_autoencoder(stock.state_dict(), 3), tmp_path / "ae.safetensors")
    ours = read_autoencoder(tmp_path / "ae.safetensors", torch.float32, norm_groups=4)
    state = ours.state_dict()
    assert state.keys() == stock.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in stock.state_dict().items())
    assert ours.config["scaling_factor"] == 0.3611 and ours.config["shift_factor"] == 0.1159
    pixels = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    latents = stock.encode(pixels).latent_dist.mean  # pyright: ignore
    assert torch.equal(ours.encode(pixels).latent_dist.mean, latents)  # pyright: ignore
    assert torch.equal(ours.decode(latents).sample, stock.decode(latents).sample)  # pyright: ignore


def test_autoencoder_settings() -> None:
    stock = autoencoder((8, 16, 32, 32))
    shapes = {key: tuple(value.shape) for key, value in bfl_autoencoder(stock.state_dict(), 4).items()}
    config = autoencoder_config(shapes)
    assert config["block_out_channels"] == (8, 16, 32, 32) and config["layers_per_block"] == 2
    assert config["latent_channels"] == 8 and config["norm_num_groups"] == 32


def test_every_fault_is_told_at_once(theirs: dict[str, torch.Tensor], tmp_path: Path) -> None:
    wrong = dict(theirs)
    del wrong["txt_in.bias"], wrong["single_blocks.0.linear1.weight"]
    wrong["odd"] = torch.zeros(1)
    wrong["img_in.bias"] = torch.zeros(3)
    save_file(wrong, tmp_path / "flux.safetensors")
    with pytest.raises(UserError) as caught:
        read_transformer(tmp_path / "flux.safetensors", torch.float32, GOLDEN_AXES)
    told = str(caught.value)
    assert "flux.safetensors: lacks 2 weights, such as single_blocks.0.linear1.weight, txt_in.bias" in told
    assert "1 unknown weights, such as odd" in told
    assert "1 weights of another shape, such as img_in.bias ([3] instead of [64])" in told and "\n" not in told


def test_a_gap_between_blocks_is_told(theirs: dict[str, torch.Tensor], tmp_path: Path) -> None:
    moved = {key.replace("single_blocks.1.", "single_blocks.7."): value for key, value in theirs.items()}
    save_file(moved, tmp_path / "flux.safetensors")
    with pytest.raises(UserError, match="lacks 8 weights, such as single_blocks.1.*has 8 unknown.*single_blocks.7"):
        read_transformer(tmp_path / "flux.safetensors", torch.float32, GOLDEN_AXES)


def test_other_files(theirs: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"PK\x03\x04 a pickle")
    save_file(theirs, tmp_path / "flux.safetensors")
    for read in (read_transformer, read_autoencoder):
        with pytest.raises(UserError, match="x.safetensors: not a FLUX.1 file"):
            read(tmp_path / "x.safetensors", torch.float32)
        with pytest.raises(UserError, match="bad.safetensors: can't be loaded"):
            read(tmp_path / "bad.safetensors", torch.float32)
    with pytest.raises(UserError, match="flux.safetensors: not a FLUX.1 file"):
        read_autoencoder(tmp_path / "flux.safetensors", torch.float32)
