"""The mark of a store of encodings: copies of a checkpoint share it, and it tells which part was changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from cgrpo.errors import UserError
from cgrpo.policies.encodings.mark import EncodingMark, encoding_mark
from cgrpo.policies.encodings.text import PromptEncoder
from cgrpo.policies.flux.policy import FluxPolicy


def mark_of(folder: Path) -> EncodingMark:
    return encoding_mark(
        clip=folder / "text_encoder",
        clip_tokenizer=folder / "tokenizer",
        t5=folder / "text_encoder_2",
        t5_tokenizer=folder / "tokenizer_2",
        autoencoder=folder / "vae",
        rule="uno",
        long_side=32,
        posterior="mean",
        dtype="float32",
    )


def differing(one: EncodingMark, other: EncodingMark) -> list[str]:
    return [name for name, value in vars(one).items() if value != vars(other)[name]]


def test_mark_of_a_checkpoint(tiny_folder: Path, tiny_policy: FluxPolicy, tmp_path: Path) -> None:
    mark = mark_of(tiny_folder)
    assert isinstance(tiny_policy.prompts, PromptEncoder)
    assert (mark.clip_length, mark.t5_length) == (tiny_policy.prompts.clip_length, tiny_policy.prompts.t5_length)
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    assert mark_of(copy) == mark

    settings = json.loads((copy / "vae" / "config.json").read_text())
    renamed = settings | {"_name_or_path": "elsewhere", "_diffusers_version": "9"}
    (copy / "vae" / "config.json").write_text(json.dumps(renamed))
    assert mark_of(copy) == mark
    (copy / "vae" / "config.json").write_text(json.dumps(settings | {"scaling_factor": 0.5}))
    assert differing(mark_of(copy), mark) == ["autoencoder"]


def test_mark_tells_weights_and_tokenizers(tiny_folder: Path, tmp_path: Path) -> None:
    mark = mark_of(tiny_folder)
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    weights = load_file(copy / "text_encoder_2" / "model.safetensors")
    name = max(weights)
    weights = {key: value.clone() for key, value in weights.items()}
    weights[name].view(-1)[-1] += 1
    save_file(weights, copy / "text_encoder_2" / "model.safetensors", {"format": "pt"})
    assert differing(mark_of(copy), mark) == ["t5"]

    tokenizer = copy / "tokenizer" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"red"', '"rot"'))
    settings = json.loads((copy / "tokenizer_2" / "tokenizer_config.json").read_text())
    (copy / "tokenizer_2" / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 9}))
    assert differing(mark_of(copy), mark) == ["clip_tokenizer", "t5", "t5_tokenizer", "t5_length"]


def test_mark_of_missing_parts(tiny_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(UserError, match="tokenizer"):
        mark_of(copy)
    shutil.rmtree(copy / "text_encoder")
    with pytest.raises(UserError, match="text_encoder"):
        mark_of(copy)
