"""Checkpoints that load to the last weight and are wrong all the same: their settings, or which weights they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_flux import WORDS, word_tokenizer

from cgrpo.errors import UserError
from cgrpo.policies.flux.checkpoint import load_parts
from cgrpo.policies.settings import PolicySettings

WEIGHTS = "diffusion_pytorch_model.safetensors"
NOTHING = object()


@pytest.fixture
def spoilt(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(tiny_folder, tmp_path / "flux")


def load(folder: Path) -> None:
    load_parts(PolicySettings(path=str(folder)), torch.float32, torch.device("cpu"), torch.device("cpu"))


def settings(file: Path, key: str, value: Any) -> None:
    table = json.loads(file.read_text())
    table.pop(key)
    file.write_text(json.dumps(table if value is NOTHING else table | {key: value}))


@pytest.mark.parametrize("key", ["scaling_factor", "shift_factor"])
@pytest.mark.parametrize("value", [NOTHING, "0.3", float("nan"), True])
def test_latents_without_a_scale(spoilt: Path, key: str, value: Any) -> None:
    """The library's default is another family's 0.18215."""
    settings(spoilt / "vae/config.json", key, value)
    with pytest.raises(UserError, match=f"vae/config.json: {key} is .*FLUX.1's is 0.(3611|1159)"):
        load(spoilt)


def test_what_a_scale_may_be(spoilt: Path) -> None:
    settings(spoilt / "vae/config.json", "shift_factor", None)  # none: as autoencoders without one are saved
    load(spoilt)
    settings(spoilt / "vae/config.json", "scaling_factor", 0)
    with pytest.raises(UserError, match="scaling_factor is 0"):
        load(spoilt)


def test_axes_that_are_no_heads(spoilt: Path) -> None:
    settings(spoilt / "transformer/config.json", "axes_dims_rope", [16, 56, 56])  # or left out: the library's own
    with pytest.raises(UserError, match=r"axes_dims_rope \[16, 56, 56\] do not add up to attention_head_dim 16"):
        load(spoilt)


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
def test_a_tokenizer_of_more_words_than_the_encoder_knows(spoilt: Path, name: str) -> None:
    shutil.rmtree(spoilt / name)
    word_tokenizer([*WORDS, "zebra"], 10).save_pretrained(spoilt / name)
    with pytest.raises(UserError, match=f"the tokenizer of {name.replace('tokenizer', 'text_encoder')} has"):
        load(spoilt)


def test_whole_numbers_without_a_scale(spoilt: Path) -> None:
    file = spoilt / "transformer" / WEIGHTS
    state = load_file(file)
    save_file(state | {"x_embedder.weight": (state["x_embedder.weight"] * 100).to(torch.int8)}, file)
    with pytest.raises(UserError, match="x_embedder.weight holds I8 numbers, whose scale is unknown"):
        load(spoilt)


def test_weights_of_two_savings(spoilt: Path) -> None:
    """Saved anew, in one file, beside the pieces of before."""
    (spoilt / "transformer" / f"{WEIGHTS}.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(UserError, match=f"transformer: holds weights twice, {WEIGHTS} and the pieces"):
        load(spoilt)
