"""Siblings of the LoRA files of test_lora_layouts.py: what programs write around the matrices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.policies.adapters.exchange import convert_adapter
from cgrpo.policies.adapters.files import read_split

MODULE, BFL = "transformer_blocks.0.attn.to_out.0", "double_blocks.0.img_attn.proj"
KOHYA = "lora_unet_double_blocks_0_img_attn_proj"
ONETRAINER = "lora_transformer_transformer_blocks_0_attn_to_out_0"  # diffusers' names, with kohya's underscores
CONFIG = {"r": 2, "lora_alpha": 2}
DOWN, UP = torch.arange(8.0).reshape(2, 4) + 1, torch.arange(8.0).reshape(4, 2) - 3


def state(before: str, down: str = ".lora_A.weight", up: str = ".lora_B.weight") -> dict[str, Tensor]:
    return {before + down: DOWN.clone(), before + up: UP.clone()}


def written(folder: Path, tensors: dict[str, Tensor], name: str = "x.safetensors") -> Path:
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
    return folder / name


FUSED = "transformer_blocks.0.attn.to_qkv"
UNOS = state("double_blocks.0.processor.proj_lora1", ".down.weight", ".up.weight")
KOHYAS = state(KOHYA, ".lora_down.weight", ".lora_up.weight")


@pytest.mark.parametrize(
    ("tensors", "scale"),
    [
        (state(f"transformer.{MODULE}", ".lora_A.mine.weight", ".lora_B.mine.weight"), 1),  # peft's adapter by name
        (state(ONETRAINER, ".lora_down.weight", ".lora_up.weight") | {f"{ONETRAINER}.alpha": torch.tensor(4.0)}, 2),
        (state(f"base_model.model.diffusion_model.{BFL}"), 1),
        ({key: value[..., None, None] for key, value in KOHYAS.items()}, 1),  # a convolution over one pixel
        (KOHYAS | {f"{KOHYA}.alpha": torch.tensor(4, dtype=torch.int64)}, 2),
        (KOHYAS | {f"{KOHYA}.alpha": torch.tensor([[4.0]])}, 2),
        (KOHYAS | {f"{KOHYA}.alpha": torch.tensor(4.0).to(torch.float8_e4m3fn)}, 2),
    ],
)
def test_it_is_read_at_its_strength(tmp_path: Path, tensors: dict[str, Tensor], scale: float) -> None:
    split, _ = read_split(written(tmp_path, tensors))
    assert split.keys() == {f"{MODULE}.lora_A.weight", f"{MODULE}.lora_B.weight"}
    assert torch.equal(split[f"{MODULE}.lora_B.weight"] @ split[f"{MODULE}.lora_A.weight"], scale * UP @ DOWN)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (KOHYAS | {f"{KOHYA}.alpha": torch.ones(2)}, "an alpha of many numbers"),
        (KOHYAS | {f"{KOHYA}.lora_mid.weight": torch.ones(2, 2, 3, 3)}, "LoCon's convolution"),
        (state(MODULE) | {f"{MODULE}.lora_A.scale_weight": torch.ones(())}, "a scale of 8-bit numbers"),
        (KOHYAS | {"scaled_fp8": torch.ones(1)}, "a scale of 8-bit numbers"),
        ({f"{MODULE}.lora_A.weight": DOWN[:0], f"{MODULE}.lora_B.weight": UP[:, :0]}, "don't go together"),
        (
            state(MODULE, ".lora_A.one.weight", ".lora_B.one.weight")
            | state(MODULE, ".lora_A.two.weight", ".lora_B.two.weight"),
            "holds 2 adapters, one, two",
        ),
        (KOHYAS | {f"{KOHYA}.alpha": torch.tensor(0.0)}, "alpha 0, which is no strength to some"),
        (state(f"module.transformer.{MODULE}") | state(f"transformer.{MODULE}"), "with and without a wrapper's name"),
        (state(MODULE) | state(MODULE, ".lora_down.weight", ".lora_up.weight"), "a matrix of .* twice"),
        (
            state("transformer_blocks.0.attn.to_q")
            | {f"{FUSED}.lora_A.weight": DOWN, f"{FUSED}.lora_B.weight": torch.cat([UP] * 3)},
            "both fused and split",
        ),
        ({key: value.to(torch.int8) for key, value in UNOS.items()}, "int8 numbers, whose scale is unknown"),
        ({key: value[:0] if "down" in key else value[:, :0] for key, value in UNOS.items()}, "don't go together"),
    ],
)
def test_it_is_refused_by_name(tmp_path: Path, tensors: dict[str, Tensor], says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_split(written(tmp_path, tensors))


def test_a_stacked_layer_is_written_anew(tmp_path: Path) -> None:
    """As q, k and v apart, though one A is common to them."""
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    up = torch.arange(24.0).reshape(12, 2)
    file = written(tmp_path, {f"{name}.lora_down.weight": DOWN, f"{name}.lora_up.weight": up})
    split, _ = read_split(convert_adapter(file, "diffusers", tmp_path / "out.safetensors"))
    deltas = [split[f"{FUSED[:-6]}{part}.lora_B.weight"] @ DOWN for part in ("to_q", "to_k", "to_v")]
    assert torch.equal(torch.cat(deltas), up @ DOWN) and torch.equal(split[f"{FUSED[:-6]}to_k.lora_A.weight"], DOWN)


def test_files_around_it(tmp_path: Path) -> None:
    """The only one of a folder is it, a piece of one isn't, and a pointer is told from a damaged file."""
    written(tmp_path, state(f"transformer.{MODULE}"), "my-lora.safetensors")
    assert len(read_split(tmp_path)[0]) == 2
    piece = written(tmp_path, state(f"transformer.{MODULE}"), "adapter_model-00001-of-00002.safetensors")
    with pytest.raises(UserError, match="one of 2 pieces"):
        read_split(piece)
    (tmp_path / "my-lora.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UserError, match="git lfs pull"):
        read_split(tmp_path / "my-lora.safetensors")
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(UserError, match="adapter_config.json: can't be read"):
        read_split(written(tmp_path, state(f"base_model.model.{MODULE}"), "adapter_model.safetensors"))


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"init_lora_weights": "pissa_niter_4"}, "began with pissa_niter_4, which takes from the base's weights"),
        ({"init_lora_weights": "olora"}, "began with olora"),
        ({"peft_type": "ADALORA"}, "of peft's type ADALORA"),
        ({"use_rslora": "false"}, "use_rslora: "),
        ({"lora_alpha": True}, "lora_alpha: "),
    ],
)
def test_settings_that_no_plain_lora_has(tmp_path: Path, told: dict, says: str) -> None:
    """Beside peft's file, and in a stock pipeline's header: each was merged as if it were one."""
    (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG | told))
    with pytest.raises(UserError, match=says):
        read_split(written(tmp_path, state(f"base_model.model.{MODULE}")))
    header = {f"transformer.{key}": value for key, value in (CONFIG | told).items()}
    file = tmp_path / "y.safetensors"
    save_file(state(f"transformer.{MODULE}"), file, metadata={"lora_adapter_metadata": json.dumps(header)})
    with pytest.raises(UserError, match=says):
        read_split(file)


def test_pefts_file_whose_keys_lost_their_prefix(tmp_path: Path) -> None:
    """By its name the config beside it is its own; beside another name it is another's."""
    (tmp_path / "adapter_config.json").write_text(
        json.dumps(CONFIG | {"lora_alpha": 8, "init_lora_weights": "gaussian"})
    )
    for name, scale in (("adapter_model.safetensors", 4), ("mine.safetensors", 1)):
        split, _ = read_split(written(tmp_path, state(MODULE), name))
        assert torch.equal(split[f"{MODULE}.lora_B.weight"] @ split[f"{MODULE}.lora_A.weight"], scale * UP @ DOWN)
