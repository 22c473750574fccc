"""NaN and infinity have one gate each: weights when they are read, latents when they are decoded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.policies import from_folder
from support.tiny_bfl import bfl_transformer

from cgrpo.errors import BrokenPicture, UserError
from cgrpo.policies.flux.policy import FluxPolicy
from cgrpo.policies.flux.single_file import read_transformer

SIZES = {"height": 32, "width": 48, "reference_size": 32}
WEIGHTS = {
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder_2": "model.safetensors",
}


def damage(file: Path, value: float) -> str:
    """One entry of the last matrix set to ``value``; its name."""
    state = load_file(file)
    name = [key for key, tensor in state.items() if tensor.ndim == 2][-1]
    state[name][-1, -1] = value
    save_file(state, file, metadata={"format": "pt"})
    return name


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("part", WEIGHTS)
def test_a_damaged_part_is_refused_by_name(tiny_folder: Path, tmp_path: Path, part: str, value: float) -> None:
    shutil.copytree(tiny_folder, tmp_path / "flux")
    name = damage(tmp_path / "flux" / part / WEIGHTS[part], value)
    with pytest.raises(UserError, match=f"{tmp_path / 'flux' / part}: {name} holds NaN or infinity"):
        from_folder(FluxPolicy, tmp_path / "flux", **SIZES)


def test_a_damaged_bfl_file_is_refused_by_name(tiny_folder: Path, tmp_path: Path) -> None:
    from diffusers import FluxTransformer2DModel

    stock = FluxTransformer2DModel.from_pretrained(tiny_folder / "transformer", local_files_only=True)
    file = tmp_path / "flux.safetensors"
    save_file(bfl_transformer(stock.state_dict()), file)
    name = damage(file, torch.nan)
    with pytest.raises(UserError, match=f"flux.safetensors: {name} holds NaN"):
        read_transformer(file, torch.float32, (4, 6, 6))


def test_latents_that_are_no_picture(tiny_policy: FluxPolicy) -> None:
    x_NLC = torch.zeros(3, *tiny_policy.latent_shape)
    assert tiny_policy.decode(x_NLC).shape == (3, 32, 48, 3)
    x_NLC[1, 0, 0] = torch.nan
    x_NLC[2, -1, -1] = torch.inf
    with pytest.raises(BrokenPicture, match="2 of 3 sampled pictures are NaN or infinite"):
        tiny_policy.decode(x_NLC)
