"""A checkpoint that does not fit is one line that names what is wrong."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from cgrpo.errors import UserError
from cgrpo.rewards.dino_seg import DinoEncoder, DinoSeg


@pytest.fixture
def folder(tiny_dinov2, tmp_path):
    return shutil.copytree(tiny_dinov2, tmp_path / "dino")


def refusal(folder) -> str:
    with pytest.raises(UserError) as caught:
        DinoSeg(DinoEncoder(folder), None, masks="none")
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


def test_all_weights_that_do_not_fit_are_named(folder):
    state = {key: value.clone() for key, value in load_file(folder / "model.safetensors").items()}
    for n, key in enumerate(sorted(state)[:5]):
        state[f"surplus.{n}"] = state.pop(key)
    state["layernorm.weight"] = torch.ones(7)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    message = refusal(folder)
    assert "does not fit Dinov2Model" in message
    assert "5 missing (" in message and "5 left over (surplus.0, surplus.1, surplus.2, ...)" in message
    assert "1 of another shape (layernorm.weight [7], not [32])" in message


def test_broken_files_are_named(folder):
    (folder / "model.safetensors").write_bytes(b"no weights")
    refusal(folder)
    (folder / "model.safetensors").unlink()
    refusal(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": "wide"}))
    refusal(folder)
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "vit"}))
    assert "says model_type 'vit'; known are dinov2, dinov2_with_registers, dinov3_vit" in refusal(folder)
    (folder / "config.json").write_text("{")
    assert "config.json: can't be read" in refusal(folder)


def test_pickled_weights_are_not_read(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    refusal(folder)
