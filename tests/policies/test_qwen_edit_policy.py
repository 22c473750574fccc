"""Qwen-Image-Edit: guidance that keeps lengths, what it refuses, how its checkpoint and its adapters are read."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.policies import from_folder, shake
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.policies.adapters.exchange import convert_adapter, inspect_adapter
from cgrpo.policies.adapters.files import read_split
from cgrpo.policies.build import family_of
from cgrpo.policies.flux.policy import FluxPolicy
from cgrpo.policies.qwen_edit.policy import QwenEditPolicy
from cgrpo.policies.settings import PolicySettings
from cgrpo.types import Batch

SIZES = {"height": 32, "width": 48, "reference_size": 32, "reference_rule": "qwen", "guidance": 4.0}
RED = Image.new("RGB", (32, 32), "red")
TASKS = Batch(("0", "1"), ("a red cube", "a ball on the beach in the snow"), ((RED,),) * 2, ("cube",) * 2)


@pytest.fixture(scope="module")
def read(tiny_qwen_folder: Path) -> QwenEditPolicy:
    return from_folder(QwenEditPolicy, tiny_qwen_folder, **SIZES)


def make(read: QwenEditPolicy, dtype: torch.dtype = torch.float32, **settings) -> QwenEditPolicy:
    """With an adapter that does something."""
    transformer = copy.deepcopy(read.transformer).to(dtype)
    policy = QwenEditPolicy(transformer, read.codec, read.prompts, PolicySettings(**SIZES | settings))
    policy.add_adapter(rank=2, seed=0)
    return shake(policy, 1)


def points(policy: QwenEditPolicy) -> tuple[Tensor, Tensor]:
    return torch.cat([policy.noise(seed) for seed in (0, 1)]).to(policy.dtype), torch.tensor([0.9, 0.4])


@pytest.mark.parametrize("gradient", ["both", "conditional"])
def test_guidance_keeps_every_tokens_length(read: QwenEditPolicy, gradient) -> None:
    policy = make(read, torch.float64, guidance=4.0, guidance_gradient=gradient)
    (x_NLC, sigma_N), cond = points(policy), policy.encode(TASKS)
    toward, away = policy.velocity(x_NLC, sigma_N, cond.conditional()), policy.velocity(x_NLC, sigma_N, cond.negative())
    away = away.detach() if gradient == "conditional" else away
    mixed = away + 4 * (toward - away)
    expected = mixed / mixed.norm(dim=-1, keepdim=True) * toward.norm(dim=-1, keepdim=True)
    found = policy.velocity(x_NLC, sigma_N, cond)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.norm(dim=-1), toward.norm(dim=-1))
    own = list(policy.trainable_parameters().values())
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(4), dtype=found.dtype)
    pairs = zip(*(torch.autograd.grad((v * weight).sum(), own) for v in (found, expected)), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs)
    assert (toward - away).abs().max() > 1e-3


def test_what_goes_through_the_model(read: QwenEditPolicy) -> None:
    """Without guidance the negative prompt is not read; time reaches a bfloat16 base exactly, references at 0."""
    policy, seen = make(read, torch.bfloat16, guidance=1.0), []
    policy.transformer.time_text_embed.time_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    cond = policy.encode(TASKS)
    assert cond.negative_NLC is None and cond.sizes == ((1, 2, 3), (1, 2, 2))
    assert cond.mask_NL.sum(1).tolist() == [len(cond.text_NLC[0]) - 5, len(cond.text_NLC[0])]
    x_NLC, _ = points(policy)
    policy.velocity(x_NLC, torch.tensor([0.986, 0.984]), cond).sum().backward()
    assert torch.equal(seen[0], torch.tensor([0.986, 0.984, 0, 0]))
    assert {p.dtype for p in policy.trainable_parameters().values()} == {torch.float32}


def test_the_last_blocks_text_does_not_train(read: QwenEditPolicy) -> None:
    """Nothing reads it. An adapter of another program that has these layers can be merged all the same."""
    names = {name for name in make(read).trainable_parameters() if "add_q_proj" in name or "to_add_out" in name}
    assert len(names) == 4 and all("transformer_blocks.0." in name for name in names)


def test_adapters_under_other_names(read: QwenEditPolicy, tiny_folder: Path, tmp_path: Path) -> None:
    policy = make(read)
    own = policy.save(tmp_path / "own")
    late = {key.replace("blocks.1.", "blocks.59."): value for key, value in load_file(own).items()}
    save_file(late, tmp_path / "late.safetensors")  # attention alone: the number of the block tells the family
    converted = convert_adapter(tmp_path / "late.safetensors", "comfyui", tmp_path / "comfyui.safetensors")
    assert "diffusion_model.transformer_blocks.59.attn.to_q.lora_A.weight" in load_file(converted)
    assert read_split(converted)[0].keys() == read_split(tmp_path / "late.safetensors")[0].keys()
    # Lightning's files have neither prefix nor peft's words, and an alpha for each layer.
    words = {"lora_A": "lora_down", "lora_B": "lora_up"}
    lightning = {}
    for key, value in read_split(own)[0].items():
        module, matrix, _ = key.rsplit(".", 2)
        lightning |= {f"{module}.{words[matrix]}.weight": value, f"{module}.alpha": torch.tensor(1.0)}
    save_file(lightning, tmp_path / "lightning.safetensors")
    assert inspect_adapter(tmp_path / "lightning.safetensors")["scale"] == 0.5
    start = QwenEditPolicy(copy.deepcopy(read.transformer), read.codec, read.prompts, PolicySettings(**SIZES))
    start.begin_with(tmp_path / "lightning.safetensors", "merge")
    assert any((start.transformer.state_dict()[k] != v).any() for k, v in read.transformer.state_dict().items())
    flux = from_folder(FluxPolicy, tiny_folder, height=32, width=32, reference_size=32)
    mlp = {f"transformer.transformer_blocks.0.img_mod.1.lora_{m}.weight": torch.ones(1, 1) for m in "AB"}
    save_file(mlp, tmp_path / "mlp.safetensors")
    with pytest.raises(UserError, match=r"an adapter of Qwen-Image's layers, but this base is FLUX\.1"):
        flux.begin_with(tmp_path / "mlp.safetensors", "merge")


def test_a_lora_on_top_at_evaluation_alone(read: QwenEditPolicy) -> None:
    """Beside a trained adapter and without one; what its pictures depend on says so."""
    policy, merged = make(read, guidance=1.0), make(read, guidance=1.0)
    plain = policy.pictures_depend_on()["transformer"]
    draw = torch.Generator().manual_seed(3)
    split = {
        "transformer_blocks.0.attn.to_q.lora_A.weight": torch.randn(2, 32, generator=draw),
        "transformer_blocks.0.attn.to_q.lora_B.weight": torch.randn(32, 2, generator=draw),
    }
    policy.on_top = split
    layer = merged.transformer.transformer_blocks[0].attn.to_q.base_layer
    layer.weight.data += split["transformer_blocks.0.attn.to_q.lora_B.weight"] @ split[min(split)]
    given = (*points(policy), policy.encode(TASKS))
    with torch.no_grad():
        before = policy.velocity(*given)
        with policy.evaluated():
            found, expected = policy.velocity(*given), merged.velocity(*given)
            with policy.reference(), merged.reference():
                bare, expected_bare = policy.velocity(*given), merged.velocity(*given)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(bare, expected_bare)
        assert torch.equal(policy.velocity(*given), before)
        assert min((found - before).abs().max(), (found - bare).abs().max()) > 1e-3
    assert policy.pictures_depend_on()["transformer"] != plain


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"guidance": 0.5}, r"policy\.guidance = 0\.5: must be 1"),
        ({"height": 40}, "multiples of 16"),
        ({"clip": "clip"}, r"policy\.clip = clip"),
    ],
)
def test_settings_that_it_refuses(tiny_qwen_folder: Path, changes, match: str) -> None:
    settings = PolicySettings(path=str(tiny_qwen_folder), **SIZES | changes)
    with pytest.raises(UserError, match=match):
        family_of(settings).from_checkpoint(settings)  # pyright: ignore[reportAttributeAccessIssue]


def test_tasks_that_it_refuses(read: QwenEditPolicy) -> None:
    with pytest.raises(UserError, match=r"'flux2': this policy knows numbers and qwen"):
        read.sigmas(4, "flux2")
    for pictures, match in (((RED,) * 4, "4 references: .* at most 3"), ((Image.new("RGB", (4000, 2)),), "too narrow")):
        with pytest.raises(UserError, match=match):
            read.encode(Batch(("a",), ("a",), (pictures,), ("",)))


@pytest.mark.parametrize(
    ("pipeline", "match"),
    [
        ("QwenImagePipeline", "is a QwenImagePipeline, .* give Qwen/Qwen-Image-Edit-2511"),  # text alone
        ("QwenImageEditPipeline", "is a QwenImageEditPipeline"),  # the first, of one picture
    ],
)
def test_other_pipelines_of_the_same_transformer(tiny_qwen_folder, tmp_path: Path, pipeline: str, match: str) -> None:
    folder = shutil.copytree(tiny_qwen_folder, tmp_path / "qwen")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": pipeline}))
    refuses(folder, match)


def refuses(path: Path, match: str) -> None:
    settings = PolicySettings(path=str(path), **SIZES)
    with pytest.raises(UserError, match=match) as caught:
        family_of(settings).from_checkpoint(settings)  # pyright: ignore[reportAttributeAccessIssue]
    assert "\n" not in str(caught.value)


def test_single_files(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "Qwen-Image-Edit-2511-Lightning-4steps.safetensors")
    refuses(tmp_path / "Qwen-Image-Edit-2511-Lightning-4steps.safetensors", "single files .* into policy.start")
    (tmp_path / "Qwen-Image-Edit-2511-Q4_K_M.gguf").write_bytes(b"GGUF\3\0\0\0")
    refuses(tmp_path / "Qwen-Image-Edit-2511-Q4_K_M.gguf", "gguf: .* diffusers folder")


def test_all_faults_of_a_folder_in_one_line(tiny_qwen_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_qwen_folder, tmp_path / "qwen")
    shutil.rmtree(folder / "processor")
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    save_file({key: state[key] for key in state if key != min(state)} | {"surplus": torch.zeros(1)}, file)
    refuses(folder, r"lacks 1 weights.*unknown weights, such as surplus.*processor: this part of the checkpoint is")
    shutil.copytree(tiny_qwen_folder / "vae", folder / "vae", dirs_exist_ok=True)
    shutil.copytree(tiny_qwen_folder / "tokenizer", folder / "processor")
    refuses(folder, "preprocessor_config.json")
