"""One fingerprint per checkpoint, whatever its precision, its files or its layout; another for another."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.policies import add_adapter
from support.tiny_bfl import bfl_transformer
from support.tiny_flux import golden_transformer

from cgrpo.errors import UserError
from cgrpo.fingerprint import of_picture, of_tensors
from cgrpo.policies.fingerprint import file_fingerprint, transformer_fingerprint
from cgrpo.policies.flux.inputs import FluxPrompts
from cgrpo.policies.flux.policy import FluxPolicy
from cgrpo.policies.flux.single_file import read_transformer
from cgrpo.policies.settings import PolicySettings


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(3, generator=generator),
        "b": torch.randn(70, 50, generator=generator),
        "c": torch.randn((), generator=generator),
    }


def test_what_it_depends_on() -> None:
    one = tensors()
    mark = of_tensors(one.items())
    assert len(mark) == 64 and mark == of_tensors(tensors().items())
    assert mark == of_tensors(reversed(one.items()))
    assert mark != of_tensors(tensors(1).items())
    assert mark != of_tensors([("z" if name == "a" else name, value) for name, value in one.items()])
    assert mark != of_tensors((one | {"b": one["b"].reshape(50, 70)}).items())
    assert mark != of_tensors((one | {"b": one["b"] * 1.01}).items())
    assert mark != of_tensors(list(one.items())[:2])


def test_known_value() -> None:
    """Spelt out with hashlib: one tensor of bf16 1.0 and 2.0 (0x3f80, 0x4000, little-endian)."""
    digest = hashlib.sha256(b"(2,)" + bytes.fromhex("803f0040")).hexdigest()
    expected = hashlib.sha256(f"w {digest}\n".encode()).hexdigest()
    assert of_tensors([("w", torch.tensor([1.0, 2.0]))]) == expected


def test_precision_and_memory_layout_do_not_matter() -> None:
    half = {name: value.bfloat16() for name, value in tensors().items()}
    mark = of_tensors(half.items())
    for dtype in (torch.float32, torch.float64):
        assert mark == of_tensors((name, value.to(dtype)) for name, value in half.items())
    strided = half | {"b": half["b"].t().contiguous().t()}
    assert not strided["b"].is_contiguous() and mark == of_tensors(strided.items())
    assert of_tensors([("e", torch.zeros(0, 4))]) != of_tensors([("e", torch.zeros(0, 5))])


def test_files_and_shards(tmp_path: Path) -> None:
    one = tensors()
    save_file(one, tmp_path / "whole.safetensors")
    (tmp_path / "shards").mkdir()
    for name, value in one.items():
        save_file({name: value}, tmp_path / "shards" / f"{name}.safetensors")
    mark = of_tensors(one.items())
    assert mark == file_fingerprint(tmp_path / "whole.safetensors") == file_fingerprint(tmp_path / "shards")
    with pytest.raises(UserError, match="none.safetensors: no such file"):
        file_fingerprint(tmp_path / "none.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no safetensors"):
        file_fingerprint(tmp_path / "empty")


def test_transformer_whatever_its_layout(tmp_path: Path) -> None:
    """Stock folder, BFL file, fused with an adapter, bf16 or fp32: one fingerprint."""
    stock = golden_transformer()
    mark = transformer_fingerprint(stock)
    stock.save_pretrained(tmp_path / "stock", max_shard_size="100KB")
    assert len(list((tmp_path / "stock").glob("*.safetensors"))) > 1
    assert mark == file_fingerprint(tmp_path / "stock")
    save_file(bfl_transformer(stock.state_dict()), tmp_path / "bfl.safetensors")
    assert mark == transformer_fingerprint(read_transformer(tmp_path / "bfl.safetensors", torch.bfloat16, (8, 12, 12)))
    add_adapter(stock, 4, 0)
    assert mark == transformer_fingerprint(stock)
    with torch.no_grad():
        stock.x_embedder.weight[0, 0] += 1
    assert mark != transformer_fingerprint(stock)


def test_of_picture() -> None:
    """Pixels alone don't tell 32 x 24 from 24 x 32."""
    flat = bytes(32 * 24 * 3)
    wide, tall = Image.frombytes("RGB", (32, 24), flat), Image.frombytes("RGB", (24, 32), flat)
    other = Image.frombytes("RGB", (32, 24), b"\1" + flat[1:])
    assert len({of_picture(wide), of_picture(tall), of_picture(other)}) == 3 and of_picture(wide) == of_picture(
        wide.copy()
    )


# What stored encodings depend on


def depends(folder: Path) -> dict[str, Any]:
    return FluxPolicy.encodings_depend_on(PolicySettings(path=str(folder)))


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [name for name, value in one.items() if value != other[name]]


def test_dependence_of_a_checkpoint(tiny_folder: Path, tiny_policy: FluxPolicy, tmp_path: Path) -> None:
    own = depends(tiny_folder)
    assert isinstance(tiny_policy.prompts, FluxPrompts)
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
