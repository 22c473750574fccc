"""Other programs' LoRA files: the weights that come of them are those of a stock pipeline that loads the same file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from support.policies import merge_start
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.policies.adapters.exchange import convert_adapter, inspect_adapter
from cgrpo.policies.adapters.files import read_split

TARGETS = r".*(to_q|to_k|to_v|to_out\.0|add_k_proj|proj_out|proj_mlp)"
NAME = "pytorch_lora_weights.safetensors"


def transformer(folder: Path) -> FluxTransformer2DModel:
    return FluxTransformer2DModel.from_pretrained(folder / "transformer", local_files_only=True)


def fused(folder: Path, lora: Path) -> dict[str, Tensor]:
    """The weights of a stock pipeline with ``lora`` fused in."""
    pipeline = FluxPipeline(None, None, None, None, None, None, transformer(folder))  # type: ignore[arg-type]
    pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name)
    pipeline.fuse_lora(components=["transformer"])
    pipeline.unload_lora_weights()
    return pipeline.transformer.state_dict()


def merged(folder: Path, lora: Path) -> dict[str, Tensor]:
    model = transformer(folder)
    merge_start(model, lora)
    return model.state_dict()


def check(folder: Path, stock: dict[str, Tensor], ours: dict[str, Tensor]) -> None:
    """The same weights within float32's rounding, and not the base's."""
    base = transformer(folder).state_dict()
    assert stock.keys() == ours.keys() == base.keys()
    assert not [key for key in stock if (stock[key] - ours[key]).abs().max() > 1e-5]
    assert max((stock[key] - base[key]).abs().max() for key in stock) > 0.1


def saved(folder: Path, out: Path, **settings) -> Path:
    """A LoRA as a stock pipeline saves it, with peft's settings in its header."""
    model = transformer(folder)
    model.add_adapter(LoraConfig(target_modules=TARGETS, **settings))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    told = model.peft_config["default"].to_dict()
    layers = get_peft_model_state_dict(model)
    FluxPipeline.save_lora_weights(out, transformer_lora_layers=layers, transformer_lora_adapter_metadata=told)
    return out / NAME


@pytest.mark.parametrize(
    ("settings", "scales"),
    [
        ({"r": 4, "lora_alpha": 4}, 1.0),
        ({"r": 4, "lora_alpha": 6}, 1.5),
        ({"r": 4, "lora_alpha": 4, "use_rslora": True}, 2.0),
        ({"r": 4, "lora_alpha": 4, "alpha_pattern": {"proj_out": 16}}, [1.0, 4.0]),
        ({"r": 4, "lora_alpha": 4, "rank_pattern": {r"attn\.to_q": 2}}, [1.0, 2.0]),
        (
            {
                "r": 4, "lora_alpha": 2, "use_rslora": True, "rank_pattern": {"proj_mlp": 9, "to_k": 1},
                "alpha_pattern": {r"transformer_blocks\.0\.attn\.to_k": 5.0, "proj_mlp": 12},
            },
            [1.0, 2.0, 4.0, 5.0],
        ),
    ],
)  # fmt: skip
def test_the_scale_is_stocks(tiny_folder: Path, tmp_path: Path, settings, scales) -> None:
    file = saved(tiny_folder, tmp_path, **settings)
    stock = fused(tiny_folder, file)
    check(tiny_folder, stock, merged(tiny_folder, file))
    assert inspect_adapter(file)["scale"] == scales
    check(tiny_folder, stock, fused(tiny_folder, convert_adapter(file, "diffusers", tmp_path / "converted")))
    comfyui = convert_adapter(file, "comfyui", tmp_path / "comfyui.safetensors")
    check(tiny_folder, stock, merged(tiny_folder, comfyui))
    assert inspect_adapter(comfyui)["format"] == "comfyui" and inspect_adapter(comfyui)["scale"] == 1


BFL = {  # modules of Black Forest Labs by (outputs, inputs) of the tiny FLUX
    "double_blocks.0.img_attn.qkv": (96, 32), "double_blocks.0.txt_attn.qkv": (96, 32),
    "double_blocks.0.img_attn.proj": (32, 32), "double_blocks.0.txt_mlp.2": (32, 128),
    "double_blocks.0.img_mod.lin": (192, 32), "single_blocks.0.linear2": (32, 160),
}  # fmt: skip


# Stock diffusers reads the first at FLUX.1's own width alone, and leaves the last layer's out unsaid.
STACKED = {"single_blocks.1.linear1": (224, 32)}
LAST = {"final_layer.linear": (32, 32), "final_layer.adaLN_modulation.1": (64, 32)}


def written(
    style: str, matrices: tuple[str, str], alpha: bool, dtype: torch.dtype = torch.float32, modules=BFL
) -> dict[str, Tensor]:
    """A LoRA under BFL's names as ``style`` writes them."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for place, (module, (rows, columns)) in enumerate(modules.items()):
        rank = 3 + place % 3
        name = style + (module.replace(".", "_") if style == "lora_unet_" else module)
        state[f"{name}.{matrices[0]}.weight"] = (0.3 * torch.randn(rank, columns, generator=generator)).to(dtype)
        state[f"{name}.{matrices[1]}.weight"] = (0.3 * torch.randn(rows, rank, generator=generator)).to(dtype)
        if alpha:
            state[f"{name}.alpha"] = torch.tensor(2.0 + place)
    return state


KOHYA, PEFT = ("lora_down", "lora_up"), ("lora_A", "lora_B")


@pytest.mark.parametrize("alpha", [True, False])
@pytest.mark.parametrize(("style", "layout"), [("lora_unet_", "kohya"), ("diffusion_model.", "comfyui")])
def test_stacked_layers_are_stocks(tiny_folder: Path, tmp_path: Path, style: str, layout: str, alpha: bool) -> None:
    save_file(written(style, KOHYA, alpha), tmp_path / "a.safetensors")
    stock = fused(tiny_folder, tmp_path / "a.safetensors")
    check(tiny_folder, stock, merged(tiny_folder, tmp_path / "a.safetensors"))
    assert inspect_adapter(tmp_path / "a.safetensors")["format"] == layout
    for to in ("diffusers", "comfyui"):
        again = convert_adapter(tmp_path / "a.safetensors", to, tmp_path / f"{to}.safetensors")
        check(tiny_folder, stock, fused(tiny_folder, again))


@pytest.mark.parametrize("style", ["lora_unet_", "diffusion_model."])
def test_a_single_blocks_first_layer(tmp_path: Path, style: str) -> None:
    """q, k, v and the first matrix of the MLP, one above the other."""
    state = written(style, KOHYA, alpha=True, modules=STACKED)
    save_file(state, tmp_path / "a.safetensors")
    down, up, _ = state.values()
    delta = 2 / 3 * up @ down
    parts = [f"single_transformer_blocks.1.{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
    for file in (tmp_path / "a.safetensors", convert_adapter(tmp_path / "a.safetensors", "comfyui", tmp_path / "b")):
        found, _ = read_split(file)
        deltas = [found[f"{part}.lora_B.weight"] @ found[f"{part}.lora_A.weight"] for part in parts]
        assert [len(part) for part in deltas] == [32, 32, 32, 128]
        assert torch.allclose(torch.cat(deltas), delta, atol=1e-6)


@pytest.mark.parametrize("style", ["lora_unet_", "diffusion_model."])
def test_the_last_layer(tmp_path: Path, style: str) -> None:
    """The halves of its modulation lie the other way round in diffusers."""
    state = written(style, KOHYA, alpha=False, modules=LAST)
    save_file(state, tmp_path / "a.safetensors")
    down, up, swapped_down, swapped_up = state.values()
    for file in (tmp_path / "a.safetensors", convert_adapter(tmp_path / "a.safetensors", "comfyui", tmp_path / "b")):
        found, _ = read_split(file)
        assert torch.equal(found["proj_out.lora_A.weight"], down) and torch.equal(found["proj_out.lora_B.weight"], up)
        assert torch.equal(found["norm_out.linear.lora_A.weight"], swapped_down)
        assert torch.equal(found["norm_out.linear.lora_B.weight"], torch.cat((swapped_up[32:], swapped_up[:32])))


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", "model.diffusion_model.", "base_model.model."])
def test_one_adapter_in_every_dress(tmp_path: Path, prefix: str, capsys) -> None:
    save_file(written("lora_unet_", KOHYA, alpha=False, modules=BFL | STACKED | LAST), tmp_path / "kohya.safetensors")
    save_file(written(prefix, PEFT, alpha=False, modules=BFL | STACKED | LAST), tmp_path / "a.safetensors")
    expected, _ = read_split(tmp_path / "kohya.safetensors")
    found, _ = read_split(tmp_path / "a.safetensors")
    assert expected.keys() == found.keys() and all(torch.equal(expected[key], found[key]) for key in expected)
    assert ("no adapter_config.json" in capsys.readouterr().err) == (prefix == "base_model.model.")


def test_pefts_own_folder(tiny_folder: Path, tmp_path: Path) -> None:
    file = saved(tiny_folder, tmp_path / "stock", r=4, lora_alpha=8)
    state = {key.replace("transformer.", "base_model.model.", 1): value for key, value in load_file(file).items()}
    (tmp_path / "peft").mkdir()
    save_file(state, tmp_path / "peft" / "adapter_model.safetensors")
    told = {"r": 4, "lora_alpha": 8, "peft_type": "LORA"}
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps(told))
    assert (inspect_adapter(tmp_path / "peft")["format"], inspect_adapter(tmp_path / "peft")["scale"]) == ("peft", 2)
    check(tiny_folder, fused(tiny_folder, file), merged(tiny_folder, tmp_path / "peft"))


def test_a_text_encoders_part_is_said(tiny_folder: Path, tmp_path: Path, capsys) -> None:
    kept = load_file(saved(tiny_folder, tmp_path, r=4, lora_alpha=4))
    for number, name in enumerate(("text_encoder.text_model.q", "base_model.model.text_model.q", "text_encoder_2.q")):
        file = tmp_path / f"{number}.safetensors"
        save_file(kept | {f"{name}.lora_A.weight": torch.ones(1), f"{name}.lora_B.weight": torch.ones(1)}, file)
        assert read_split(file)[0].keys() == {key.removeprefix("transformer.") for key in kept}
        assert "2 tensors of its text encoders' part are left out" in capsys.readouterr().err
        assert inspect_adapter(file)["left_out"] == 2


def test_files_that_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    kept = load_file(saved(tiny_folder, tmp_path, r=4, lora_alpha=4))
    module, other = "transformer.transformer_blocks.0.attn.to_q", "unet.down"
    odd: dict[str, dict[str, Tensor]] = {
        "is DoRA": {f"{module}.dora_scale": torch.ones(32)},
        "is LoKr": {f"{module}.lokr_w1": torch.ones(4, 4)},
        "is a bias": {f"{module}.lora_B.bias": torch.ones(32)},
        "of no known LoRA layout": {f"{other}.lora_{matrix}.weight": torch.ones(4, 4) for matrix in "AB"},
        "two layouts at once": written("diffusion_model.", PEFT, alpha=False),
        "holds int8 numbers": {f"{module}.lora_A.weight": torch.ones(4, 32, dtype=torch.int8)},
        "programs differ": {f"{module}.alpha": torch.tensor(1.0)},
        f"{module}.lora_A.weight holds NaN": {f"{module}.lora_A.weight": torch.full((4, 32), torch.nan)},
        f"{module}.lora_B.weight holds NaN": {f"{module}.lora_B.weight": torch.full((32, 4), -torch.inf)},
    }  # fmt: skip
    for told, extra in odd.items():
        save_file(kept | extra, tmp_path / "odd.safetensors")
        for use in (read_split, inspect_adapter):
            with pytest.raises(UserError, match=told) as caught:
                use(tmp_path / "odd.safetensors")
            assert str(caught.value).startswith(f"{tmp_path / 'odd.safetensors'}: ")
    headers = {
        "has rank 4, but its settings say 8": {"r": 8, "lora_alpha": 8},
        r"alpha_pattern\.\(to_q": {"r": 4, "lora_alpha": 4, "alpha_pattern": {"(to_q": 3}},
        "lora_alpha: ": {"r": 4, "lora_alpha": "4"},
        "alpha_pattern: ": {"r": 4, "alpha_pattern": [1]},
        "DoRA": {"r": 4, "use_dora": True},
    }
    for says, settings in headers.items():
        told = {f"transformer.{key}": value for key, value in settings.items()}
        save_file(kept, tmp_path / "odd.safetensors", metadata={"lora_adapter_metadata": json.dumps(told)})
        with pytest.raises(UserError, match=f"odd.safetensors: .*{says}"):
            read_split(tmp_path / "odd.safetensors")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    state = written("diffusion_model.", PEFT, alpha=False, dtype=dtype)
    save_file(state, tmp_path / "a.safetensors")
    found, _ = read_split(tmp_path / "a.safetensors")
    key = "double_blocks.0.img_attn.proj.lora_A.weight"
    assert torch.equal(
        found["transformer_blocks.0.attn.to_out.0.lora_A.weight"], state[f"diffusion_model.{key}"].bfloat16()
    )
    assert inspect_adapter(tmp_path / "a.safetensors")["dtype"] == str(dtype).removeprefix("torch.")
    assert not inspect_adapter(tmp_path / "a.safetensors")["untrained"]
