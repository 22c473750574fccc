"""What a store of encodings depends on: copies of a checkpoint are equal in it, and it tells which part was changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from cgrpo.errors import UserError
from cgrpo.policies.flux.policy import FluxPolicy
from cgrpo.policies.flux.text import PromptEncoder
from cgrpo.policies.settings import PolicySettings


def depends(folder: Path) -> dict[str, Any]:
    return FluxPolicy.encodings_depend_on(PolicySettings(path=str(folder)))


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [name for name, value in one.items() if value != other[name]]


def test_dependence_of_a_checkpoint(tiny_folder: Path, tiny_policy: FluxPolicy, tmp_path: Path) -> None:
    own = depends(tiny_folder)
    assert isinstance(tiny_policy.prompts, PromptEncoder)
    assert (own["clip_length"], own["t5_length"]) == tuple(window.length for window in tiny_policy.prompts.windows)
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    assert depends(copy) == own

    settings = json.loads((copy / "vae" / "config.json").read_text())
    renamed = settings | {"_name_or_path": "elsewhere", "_diffusers_version": "9"}
    (copy / "vae" / "config.json").write_text(json.dumps(renamed))
    assert depends(copy) == own
    (copy / "vae" / "config.json").write_text(json.dumps(settings | {"scaling_factor": 0.5}))
    assert differing(depends(copy), own) == ["autoencoder"]


def test_it_tells_weights_and_tokenizers(tiny_folder: Path, tmp_path: Path) -> None:
    own = depends(tiny_folder)
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    weights = load_file(copy / "text_encoder_2" / "model.safetensors")
    name = max(weights)
    weights = {key: value.clone() for key, value in weights.items()}
    weights[name].view(-1)[-1] += 1
    save_file(weights, copy / "text_encoder_2" / "model.safetensors", {"format": "pt"})
    assert differing(depends(copy), own) == ["t5"]

    tokenizer = copy / "tokenizer" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"red"', '"rot"'))
    settings = json.loads((copy / "tokenizer_2" / "tokenizer_config.json").read_text())
    (copy / "tokenizer_2" / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 9}))
    assert differing(depends(copy), own) == ["clip_tokenizer", "t5", "t5_tokenizer", "t5_length"]


def test_dependence_of_missing_parts(tiny_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(UserError, match="tokenizer"):
        depends(copy)
    shutil.rmtree(copy / "text_encoder")
    with pytest.raises(UserError, match="text_encoder"):
        depends(copy)
