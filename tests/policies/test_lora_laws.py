"""Laws of adapter files: a layer is the stock one whatever its name's dress, or refused by name; nothing is lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import Flux2Transformer2DModel
from safetensors.torch import load_file, save_file
from support import tiny_qwen, tiny_qwen21
from support.tiny_flux import tiny_transformer
from torch import Tensor, nn

from cgrpo.errors import UserError
from cgrpo.policies.adapters.exchange import blend_adapters, convert_adapter, inspect_adapter
from cgrpo.policies.adapters.files import read_split
from cgrpo.policies.adapters.keys import pairs
from cgrpo.policies.adapters.known import read_keys
from cgrpo.policies.adapters.layers import merge_start
from cgrpo.policies.flux.family import LAYOUT as FLUX
from cgrpo.policies.flux2.family import LAYOUT as FLUX2
from cgrpo.policies.layouts import Layout
from cgrpo.policies.qwen21.family import LAYOUT as QWEN21
from cgrpo.policies.qwen_edit.family import LAYOUT as QWEN

FAMILIES: dict[str, tuple[Layout, Callable[[], Any]]] = {
    "flux": (FLUX, lambda: tiny_transformer(num_layers=2)),
    "flux2": (FLUX2, lambda: Flux2Transformer2DModel(
        in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=36, guidance_embeds=True, axes_dims_rope=(4, 4, 4, 4),
    )),
    "qwen": (QWEN, lambda: tiny_qwen.tiny_transformer()),
    "qwen21": (QWEN21, lambda: tiny_qwen21.tiny_transformer()),
}  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def stock(request: pytest.FixtureRequest) -> tuple[Layout, Callable[[], Any]]:
    layout, make = FAMILIES[request.param]

    def seeded() -> Any:
        torch.manual_seed(0)
        return make()

    return layout, seeded


def whole(model: nn.Module, scale: float = 0.3) -> dict[str, Tensor]:
    """An adapter of every linear layer, by split key."""
    generator, state = torch.Generator().manual_seed(0), {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            state[f"{name}.lora_A.weight"] = torch.randn(2, layer.in_features, generator=generator)
            state[f"{name}.lora_B.weight"] = scale * torch.randn(layer.out_features, 2, generator=generator)
    return state


def deltas(split: dict[str, Tensor]) -> dict[str, Tensor]:
    return {module: up.double() @ down.double() for module, (down, up) in pairs(split).items()}


def named(before: str, matrices: tuple[str, str] = ("lora_A", "lora_B"), inside: str = "") -> Callable[[str], str]:
    """How a program writes a split key: what stands before it, within blocks, and its words for A and B."""

    def write(key: str) -> str:
        module, matrix, _ = key.rsplit(".", 2)
        module = re.sub(r"(blocks\.\d+\.)", rf"\1{inside}", module)
        if before.endswith("_"):
            module = module.replace(".", "_")
        return f"{before}{module}.{matrices[matrix == 'lora_B']}.weight"

    return write


DRESSES = {
    "stock": named("transformer."), "bare": named(""), "peft": named("base_model.model."),
    "peft around a pipeline's": named("base_model.model.transformer."),
    "peft within it": named("transformer.base_model.model."), "DDP": named("module.transformer."),
    "compiled": named("transformer._orig_mod."), "FSDP": named("transformer._fsdp_wrapped_module."),
    "FSDP and DDP": named("module._fsdp_wrapped_module.transformer."), "DeepSpeed": named("_forward_module."),
    "compiled blocks": named("transformer.", inside="_orig_mod."),
    "FSDP's blocks": named("transformer.", inside="_fsdp_wrapped_module._checkpoint_wrapped_module."),
    "ComfyUI of diffusers": named("diffusion_model."),
    "older diffusers": named("transformer.", ("lora.down", "lora.up")),
    "a named adapter": named("transformer.", ("lora_A.default", "lora_B.default")),
    "kohya's matrices": named("transformer.", ("lora_down", "lora_up")),
    "OneTrainer": named("lora_transformer_", ("lora_down", "lora_up")),
    "LyCORIS": named("lycoris_", ("lora_down", "lora_up")),
}  # fmt: skip


@pytest.mark.parametrize("dress", DRESSES)
def test_every_layer_is_the_stock_one(stock: tuple[Layout, Callable[[], Any]], dress: str) -> None:
    with torch.device("meta"):
        layers = {name: layer for name, layer in stock[1]().named_modules() if isinstance(layer, nn.Linear)}
    expected = {}
    for number, (name, layer) in enumerate(layers.items()):
        expected[f"{name}.lora_A.weight"] = torch.full((2, layer.in_features), float(number))
        expected[f"{name}.lora_B.weight"] = torch.full((layer.out_features, 2), float(number))
    found = read_keys({DRESSES[dress](key): value for key, value in expected.items()}, None).split
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    "layer",
    [
        "blocks.0.self_attn.q",  # Wan
        "layers.0.attention.to_q",  # Z-Image
        "transformer_blocks.0.attn.to_z",
        "transformer_blocks.0.attn.to_q.extra",
        "transformer_blocks.0.img_mod.3",
        "joint_transformer_blocks.0.attn.to_q",
        "transformer_blocks.a.attn.to_q",
        "single_transformer_blocks.0.ff.net.2",
        "distilled_guidance_layer.in_proj",  # Chroma
        "down_blocks.0.attentions.0.to_q",
        "to_q",
        "x_embedder.1",
        "proj_out.0",
    ],
)
@pytest.mark.parametrize("dress", DRESSES)
def test_a_layer_of_nobody_is_refused_by_name(dress: str, layer: str) -> None:
    keys = [DRESSES[dress](f"{layer}.lora_{matrix}.weight") for matrix in "AB"]
    with pytest.raises(UserError, match="no known LoRA layout"):
        read_keys({keys[0]: torch.ones(2, 4), keys[1]: torch.ones(4, 2)}, None)


@pytest.mark.parametrize("way", ["", "comfyui"])
def test_stock_loads_what_is_converted(stock: tuple[Layout, Callable[[], Any]], tmp_path: Path, way: str) -> None:
    """All layers at once, also by way of ComfyUI's names, where BFL stacks them: the weights are those of a merge."""
    _, make = stock
    save_file({f"transformer.{key}": value for key, value in whole(make()).items()}, tmp_path / "a.safetensors")
    file = tmp_path / "a.safetensors"
    if way:
        file = convert_adapter(file, "comfyui", tmp_path / "b.safetensors")
        assert inspect_adapter(file)["format"] == way
    converted = load_file(convert_adapter(file, "diffusers", tmp_path / "c.safetensors"))
    loaded, merged = make(), make()
    loaded.load_lora_adapter(converted)
    loaded.fuse_lora()
    loaded.unload_lora()
    merge_start(merged, tmp_path / "a.safetensors", stock[0])
    ours = merged.state_dict()
    for key, value in loaded.state_dict().items():
        torch.testing.assert_close(value, ours[key], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("scale", [0.3, 3e-3, 1e-6])
def test_a_blend_is_exact_at_any_precision(tmp_path: Path, dtype: torch.dtype, scale: float) -> None:
    model = FAMILIES["flux"][1]()
    files, own = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"], []
    for number, file in enumerate(files, 1):
        state = {f"transformer.{key}": number * value for key, value in whole(model, scale=scale).items()}
        save_file({key: value.to(dtype) for key, value in state.items()}, file)
        own.append(deltas(read_split(file)[0]))
    file = blend_adapters(files[0], [(files[1], 0.3)], tmp_path / "mix.safetensors")
    for module, delta in deltas(read_split(file)[0]).items():
        expected = 0.7 * own[0][module] + 0.3 * own[1][module]
        assert (delta - expected).norm() <= 1e-6 * expected.norm()
