"""Adapters of FLUX.2-klein under other programs' names, against diffusers' own converters; and merged into the base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import (
    _convert_kohya_flux2_lora_to_diffusers,
    _convert_non_diffusers_flux2_lora_to_diffusers,
)
from PIL import Image
from safetensors.torch import load_file, save_file
from support.policies import from_folder, shake
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.policies.adapters.exchange import convert_adapter, inspect_adapter
from cgrpo.policies.adapters.files import read_split
from cgrpo.policies.adapters.keys import pairs
from cgrpo.policies.flux2.policy import Flux2Policy
from cgrpo.policies.merge import merge_adapter
from cgrpo.policies.settings import PolicySettings
from cgrpo.types import Batch

SIZES = {"height": 32, "width": 48, "reference_size": 32}
TASK = Batch(("0",), ("a red cube",), ((Image.new("RGB", (32, 32), "red"),),), ("cube",))


@pytest.fixture(scope="module")
def trained(tiny_flux2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Flux2Policy, Path]:
    """A policy with an adapter that does something, and its file."""
    policy = from_folder(Flux2Policy, tiny_flux2_folder, **SIZES)
    policy.add_adapter(rank=3, seed=0)
    shake(policy, 1)
    return policy, policy.save(tmp_path_factory.mktemp("adapter"))


def deltas(state: dict[str, Tensor]) -> dict[str, Tensor]:
    plain = {key.removeprefix("transformer."): value for key, value in state.items()}
    return {module: up @ down for module, (down, up) in pairs(plain).items()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all((found[name] - expected[name]).abs().max() <= 1e-6 * expected[name].abs().max() for name in expected)


def test_comfyui(trained: tuple[Flux2Policy, Path], tmp_path: Path) -> None:
    """q, k and v have an A each, so what BFL stacks has three times the rank; diffusers reads the same."""
    _, file = trained
    expected = deltas(load_file(file))
    out = convert_adapter(file, "comfyui", tmp_path / "comfyui.safetensors")
    state = load_file(out)
    assert state["diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight"].shape == (9, 32)
    assert state["diffusion_model.single_blocks.1.linear1.lora_B.weight"].shape == (9 * 32, 3)
    same(deltas(read_split(out)[0]), expected)
    same(deltas(_convert_non_diffusers_flux2_lora_to_diffusers(dict(state))), expected)
    about = inspect_adapter(out)
    assert about["format"] == "comfyui" and about["rank"] == [3, 9]
    assert inspect_adapter(file)["format"] == "diffusers"


def test_kohya(trained: tuple[Flux2Policy, Path], tmp_path: Path) -> None:
    """With an alpha of half the rank, by diffusers' own reader and by ours."""
    state = load_file(convert_adapter(trained[1], "comfyui", tmp_path / "comfyui.safetensors"))
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        module, _, matrix = key.removeprefix("diffusion_model.").removesuffix(".weight").rpartition(".")
        name = "lora_unet_" + module.replace(".", "_")
        renamed[f"{name}.lora_{'down' if matrix == 'lora_A' else 'up'}.weight"] = value
        if matrix == "lora_A":
            renamed[f"{name}.alpha"] = torch.tensor(value.shape[0] / 2)
    save_file(renamed, tmp_path / "kohya.safetensors")
    found = deltas(read_split(tmp_path / "kohya.safetensors")[0])
    same(found, deltas(_convert_kohya_flux2_lora_to_diffusers(dict(renamed))))
    same(found, {name: value / 2 for name, value in deltas(load_file(trained[1])).items()})


def test_uno_has_no_such_layers(trained: tuple[Flux2Policy, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError):
        convert_adapter(trained[1], "uno", tmp_path / "uno.safetensors")


def test_merged_into_a_whole_folder(trained: tuple[Flux2Policy, Path], tiny_flux2_folder: Path, tmp_path: Path) -> None:
    policy, file = trained
    merged = merge_adapter(file, PolicySettings(path=str(tiny_flux2_folder)), tmp_path / "merged")
    read = from_folder(Flux2Policy, merged, **SIZES)
    x_NLC, sigma_N = policy.noise(0), torch.tensor([0.7])
    with torch.no_grad():
        expected = policy.velocity(x_NLC, sigma_N, policy.encode(TASK))
        found = read.velocity(x_NLC, sigma_N, read.encode(TASK))
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (merged / "model_index.json").is_file() and (merged / "scheduler").is_dir()
