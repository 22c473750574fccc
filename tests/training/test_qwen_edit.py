"""`cgrpo train qwen-edit-80gb` on a tiny checkpoint: pictures, encodings, resumption, processes and starts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as stock
from PIL import Image
from safetensors.torch import load_file, save_file
from support import tiny_qwen
from support.runs import (
    ADAPTER,
    as_arguments,
    distance,
    in_processes,
    moved,
    one_line,
    referenced_run,
    referenced_tasks,
)

from cgrpo.app.main import main
from cgrpo.app.run import train
from cgrpo.config import load_config


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """qwen/ and tasks.json: a task with two references, one with one."""
    folder = tmp_path_factory.mktemp("qwen")
    tiny_qwen.build_folder(folder / "qwen")
    Image.effect_noise((48, 32), 90).convert("RGB").save(folder / "target.png")
    referenced_tasks(folder, ["0.png", "1.png"], ["1.png"], target="target.png")
    return folder


def given(world: Path, *more: str) -> list[str]:
    return referenced_run(world / "qwen", *more)


def test_trained_resumed_sampled_and_loaded_by_the_stock_pipeline(world, tmp_path: Path, monkeypatch) -> None:
    """The ratio is 1 before the first update with guidance 4, and the adapter's picture is the stock pipeline's."""
    run = train(load_config("qwen-edit-80gb", given(world)), tmp_path / "run")
    for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        assert row["gradient_norm"] > 0 and row["ratio_drift"] < 1e-4 and row["kl"] >= 0
    part = train(load_config("qwen-edit-80gb", given(world, "training.iterations=1")), tmp_path / "part")
    again = train(load_config("qwen-edit-80gb", given(world)), resume=part)
    assert (run / ADAPTER).read_bytes() == (again / ADAPTER).read_bytes()

    references = [str(world / name) for name in ("0.png", "1.png")]
    ask = ["--reference", *references, "--prompt", "a red cube", "--seeds", "1", "--seed", "7", "--steps", "5"]
    assert main(["sample", str(run), *ask, "--out", str(tmp_path / "ours")]) == 0
    ours = np.asarray(Image.open(tmp_path / "ours" / "prompt0-seed7.png")).astype(int)
    monkeypatch.setattr(stock, "VAE_IMAGE_SIZE", 64**2)
    pipeline, pictures = tiny_qwen.stock_pipeline(world / "qwen"), []
    for trained in (False, True):
        if trained:
            pipeline.load_lora_weights(str(run / "adapter"))
        (picture,) = pipeline(
            image=[Image.open(name) for name in references], prompt="a red cube", negative_prompt=" ", height=32,
            width=48, num_inference_steps=5, true_cfg_scale=4.0, generator=torch.Generator().manual_seed(7),
        ).images  # fmt: skip
        pictures.append(np.asarray(picture).astype(int))
    plain, theirs = pictures
    assert abs(ours - theirs).max() <= 1 and abs(ours - theirs).mean() < 0.01
    assert abs(plain - theirs).max() > 1  # training did something


def test_encoded_data_trains_without_the_text_encoder(world: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """A prompt is encoded with its task's references, and so is the negative one; the last bit is the same."""
    cache = str(tmp_path / "cache")
    settings = given(world, "training.iterations=1")
    assert main(["data", "encode", "qwen-edit-80gb", *as_arguments(settings), "--out", cache]) == 0
    assert "prompts: 4 encoded, 0 already there\nreferences: 2 encoded, 0" in capsys.readouterr().out
    direct = train(load_config("qwen-edit-80gb", settings), tmp_path / "direct")
    monkeypatch.setattr("transformers.Qwen2_5_VLModel.from_pretrained", None)  # must not be called
    cached = train(load_config("qwen-edit-80gb", [*settings, f"data.cache={cache}"]), tmp_path / "cached")
    one, two = (load_file(run / ADAPTER) for run in (direct, cached))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_two_processes_and_a_sharded_base_give_the_run_of_one(world: Path, tmp_path: Path) -> None:
    exact = ["policy.dtype=float64", "policy.checkpointing=full", "training.iterations=1"]
    train(load_config("qwen-edit-80gb", given(world, *exact)), tmp_path / "one")
    for kind in ("ddp", "fsdp2"):
        settings = as_arguments(given(world, *exact, f"training.parallel={kind}"))
        done = in_processes(2, "none", "train", "qwen-edit-80gb", *settings, "--out", str(tmp_path / kind))
        assert done.returncode == 0, done.stderr
        assert distance(tmp_path / "one", tmp_path / kind) <= 1e-8
    assert moved(tmp_path / "one") > 1e-4


def test_ones_own_supervised_lora_as_a_start_and_a_distilled_one_at_evaluation(
    world: Path, tmp_path, capfd, monkeypatch
):
    """Merged or continued; the picture with a distillation's LoRA on top is that of the stock pipeline with both."""
    groups = ("training.prompts", "training.group", "training.updates", "objective")  # settings that sft hasn't
    settings = [setting for setting in given(world) if not setting.startswith(groups)]
    first = train(load_config("qwen-edit-80gb", [*settings, "method=sft", "supervised.batch=2"]), tmp_path / "sft")
    assert moved(first) > 0
    for mode in ("merge", "continue"):
        start = [f"policy.start={first / 'adapter'}", f"policy.start_mode={mode}", "training.iterations=1"]
        run = train(load_config("qwen-edit-80gb", given(world, *start)), tmp_path / mode)
        (row,) = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        assert row["gradient_norm"] > 0 and row["ratio_drift"] < 1e-4
    assert 0 < distance(first, run) < 1  # continued: of the start's names and shapes

    distilled, mlp = tmp_path / "lightning.safetensors", "transformer_blocks.0.img_mlp.net.2"
    draw = torch.Generator().manual_seed(0)
    shapes = {"lora_down": (2, 128), "lora_up": (32, 2)}
    state = {f"{mlp}.{name}.weight": 5 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    save_file(state | {f"{mlp}.alpha": torch.tensor(2.0)}, distilled)
    ask = ["--reference", str(world / "1.png"), "--prompt", "a red cube", "--seeds", "1", "--seed", "7", "--steps", "4"]
    ask = [*ask, "--guidance", "1", "--set", f"policy.evaluation_lora={distilled}"]
    assert main(["sample", str(run), *ask, "--out", str(tmp_path / "ours")]) == 0
    ours = np.asarray(Image.open(tmp_path / "ours" / "prompt0-seed7.png")).astype(int)
    monkeypatch.setattr(stock, "VAE_IMAGE_SIZE", 64**2)
    pipeline, pictures = tiny_qwen.stock_pipeline(world / "qwen"), []
    pipeline.load_lora_weights(str(run / "adapter"), adapter_name="run")
    pipeline.load_lora_weights(str(distilled), adapter_name="distilled")
    for names in (["run"], ["run", "distilled"]):
        pipeline.set_adapters(names)
        (picture,) = pipeline(
            image=[Image.open(world / "1.png")], prompt="a red cube", height=32, width=48,
            num_inference_steps=4, true_cfg_scale=1.0, generator=torch.Generator().manual_seed(7), output_type="pil",
        ).images  # fmt: skip
        pictures.append(np.asarray(picture).astype(int))
    alone, theirs = pictures
    assert abs(ours - theirs).max() <= 1 < abs(alone - theirs).max()

    deep = {key.replace("blocks.0", "blocks.7"): value for key, value in state.items()}
    save_file(deep, tmp_path / "deep.safetensors")
    ask[-1] = f"policy.evaluation_lora={tmp_path / 'deep.safetensors'}"
    error = one_line(capfd, "sample", run, *ask, "--out", tmp_path / "no")
    assert "deep.safetensors: 1 of its layers are not in this base, such as transformer_blocks.7.img_mlp" in error
