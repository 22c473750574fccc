"""Qwen-Image-2.1: its guidance, what goes through the model, what it refuses."""

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

from cgrpo.errors import UserError
from cgrpo.policies.adapters.files import read_split
from cgrpo.policies.build import family_of
from cgrpo.policies.qwen21.policy import Qwen21Policy
from cgrpo.policies.qwen_edit.policy import QwenEditPolicy
from cgrpo.policies.settings import PolicySettings
from cgrpo.types import Batch

SIZES = {"height": 32, "width": 64, "reference_size": 32, "reference_rule": "qwen", "guidance": 4.0}
RED = Image.new("RGB", (32, 32), "red")
TASKS = Batch(("0", "1"), ("a red cube", "a ball on the beach in the snow"), ((RED,),) * 2, ("cube",) * 2)


@pytest.fixture(scope="module")
def read(tiny_qwen21_folder: Path) -> Qwen21Policy:
    return from_folder(Qwen21Policy, tiny_qwen21_folder, **SIZES)


def make(read: Qwen21Policy, dtype: torch.dtype = torch.float32, **settings) -> Qwen21Policy:
    """With an adapter that does something."""
    transformer = copy.deepcopy(read.transformer).to(dtype)
    policy = Qwen21Policy(transformer, read.codec, read.prompts, PolicySettings(**SIZES | settings))
    policy.add_adapter(rank=2, seed=0)
    return shake(policy, 1)


@pytest.mark.parametrize("gradient", ["both", "conditional"])
def test_guidance(read: Qwen21Policy, gradient: str) -> None:
    """Of both halves, each with its own prefix; shared or not."""
    policy = make(read, guidance_gradient=gradient)
    x_NLC, sigma_N = torch.cat([policy.noise(seed) for seed in (0, 1)]), torch.tensor([0.9, 0.4])
    cond, own = policy.encode(TASKS), list(policy.trainable_parameters().values())
    toward, away = policy.velocity(x_NLC, sigma_N, cond.conditional()), policy.velocity(x_NLC, sigma_N, cond.negative())
    away = away.detach() if gradient == "conditional" else away
    expected, found = away + 4 * (toward - away), policy.velocity(x_NLC, sigma_N, cond)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(v.square().sum(), own) for v in (found, expected)]
    with policy.shared_prefix(cond) as shared:
        v_NLC = policy.velocity(x_NLC, sigma_N, shared)
        torch.testing.assert_close(v_NLC, expected)
        v_NLC.square().sum().backward()
    gradients.append(tuple(p.grad for p in own if p.grad is not None))
    for one, two, three in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(three, two, rtol=1e-4, atol=1e-5)
    assert (toward - away).abs().max() > 1e-4


def test_what_goes_through_the_model(read: Qwen21Policy) -> None:
    """Without guidance no negative prompt is read; time reaches a bfloat16 base exactly, that of the prefix is 0."""
    policy, seen = make(read, torch.bfloat16, guidance=1.0), []
    policy.transformer.time_text_embed.time_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert len(policy.read_texts(policy.settings, TASKS)) == 2
    cond = policy.encode(TASKS.select([0])).repeat(2)
    (prefix,) = cond.prefixes
    assert cond.negatives == () and prefix.runs == ((5, (2, 2)), (8, (0, 0))) and len(cond) == 2
    x_NLC = torch.cat([policy.noise(seed) for seed in (0, 1)]).to(policy.dtype)
    with policy.shared_prefix(cond) as shared:
        policy.velocity(x_NLC, torch.tensor([0.986, 0.984]), shared).sum().backward()
    assert [value.tolist() for value in seen] == [[0], torch.tensor([0.986, 0.984]).tolist()]
    assert {p.dtype for p in policy.trainable_parameters().values()} == {torch.float32}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in policy.trainable_parameters().values())


def test_adapters_of_other_programs_and_families(read: Qwen21Policy, tiny_qwen_folder: Path, tmp_path: Path) -> None:
    """All 32 blocks under ComfyUI's names; the layers of a block tell the family where attention alone does not."""
    file = make(read).save(tmp_path / "own")
    state = {key: value for key, value in load_file(file).items() if "blocks.1." in key}
    late = {key.replace("blocks.1.", f"blocks.{n}."): value.clone() for key, value in state.items() for n in range(32)}
    save_file(late, tmp_path / "late.safetensors")
    comfy = {key.replace("transformer.", "diffusion_model.", 1): value for key, value in late.items()}
    save_file(comfy, tmp_path / "comfy.safetensors")
    split, other = (read_split(tmp_path / f"{name}.safetensors")[0] for name in ("late", "comfy"))
    assert split.keys() == other.keys() and len(split) == 32 * 4 * 2
    policy = Qwen21Policy(copy.deepcopy(read.transformer), read.codec, read.prompts, PolicySettings(**SIZES))
    with pytest.raises(UserError, match="120 unknown weights"):  # of 30 blocks that the tiny model lacks
        policy.begin_with(tmp_path / "late.safetensors", "merge")
    edit = from_folder(QwenEditPolicy, tiny_qwen_folder, height=32, width=32, reference_size=32)
    text = {key.replace("to_q", "add_q_proj"): value.clone() for key, value in late.items() if "to_q" in key}
    save_file(late | text, tmp_path / "edit.safetensors")  # as Qwen-Image's, which has blocks of two streams
    with pytest.raises(UserError, match="adapter of Qwen-Image's layers|unknown weights"):
        policy.begin_with(tmp_path / "edit.safetensors", "merge")
    gate = {f"transformer.transformer_blocks.0.img_mlp.gate_layer.lora_{m}.weight": torch.ones(1, 1) for m in "AB"}
    save_file(gate, tmp_path / "gate.safetensors")
    with pytest.raises(UserError, match=r"an adapter of Qwen-Image-2\.1's layers, but this base is Qwen-Image"):
        edit.begin_with(tmp_path / "gate.safetensors", "merge")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"guidance": 0.5}, r"policy\.guidance = 0\.5: must be 1"),
        ({"height": 48}, r"48, 64: must be multiples of 32"),
        ({"clip": "clip"}, r"policy\.clip = clip"),
    ],
)
def test_settings_that_it_refuses(tiny_qwen21_folder: Path, changes, match: str) -> None:
    settings = PolicySettings(path=str(tiny_qwen21_folder), **SIZES | changes)
    with pytest.raises(UserError, match=match):
        family_of(settings).from_checkpoint(settings)  # pyright: ignore[reportAttributeAccessIssue]


def test_tasks_that_it_refuses(read: Qwen21Policy) -> None:
    with pytest.raises(UserError, match=r"sampling\.shift = 'flux2'"):
        read.sigmas(4, "flux2")
    for pictures, match in (((RED,) * 11, "11 references: .* at most 10"), ((Image.new("RGB", (4000, 2)),), "narrow")):
        with pytest.raises(UserError, match=match):
            read.encode(Batch(("a",), ("a",), (pictures,), ("",)))


def refuses(path: Path, match: str) -> None:
    settings = PolicySettings(path=str(path), type="qwen21", **SIZES)
    with pytest.raises(UserError, match=match) as caught:
        family_of(settings).from_checkpoint(settings)  # pyright: ignore[reportAttributeAccessIssue]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "changes", "match"),
    [
        ("model_index.json", {"_class_name": "QwenImagePipeline"}, "is a QwenImagePipeline, not a QwenImage21Pipeline"),
        ("model_index.json", {"sample_sigmas": [1.0, 0.7]}, "step-distilled"),
        ("transformer/config.json", {"causal_condition": False}, "causal_condition = false"),
        ("transformer/config.json", {"_class_name": "QwenImageTransformer2DModel"}, "holds a QwenImageTransformer2DM"),
        ("vae/config.json", {"z_dim": 8}, "vae"),
    ],
)
def test_other_folders(tiny_qwen21_folder: Path, tmp_path: Path, part: str, changes: dict, match: str) -> None:
    folder = shutil.copytree(tiny_qwen21_folder, tmp_path / "qwen21")
    (folder / part).write_text(json.dumps(json.loads((folder / part).read_text()) | changes))
    refuses(folder, match)


def test_single_files_and_missing_parts(tiny_qwen21_folder: Path, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "qwen_image_2.1.safetensors")
    refuses(tmp_path / "qwen_image_2.1.safetensors", "single files of Qwen-Image-2.1 are not read")
    folder = shutil.copytree(tiny_qwen21_folder, tmp_path / "qwen21")
    shutil.rmtree(folder / "processor")
    shutil.rmtree(folder / "vae")
    refuses(folder, r"vae: this part of the checkpoint is missing.*processor: this part of the checkpoint is missing")
