"""`cgrpo train qwen21-24gb` on a tiny Qwen-Image-2.1 checkpoint: its pictures, its encodings, its resumption."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support import tiny_qwen21
from support.runs import ADAPTER, as_arguments, in_processes, referenced_run, referenced_tasks

from cgrpo.app.main import main
from cgrpo.app.run import train
from cgrpo.config import load_config


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """qwen21/ and tasks.json: a task with two references, one with one."""
    folder = tmp_path_factory.mktemp("qwen21")
    tiny_qwen21.build_folder(folder / "qwen21")
    referenced_tasks(folder, ["0.png", "1.png"], ["1.png"])
    return folder


def given(world: Path, *more: str) -> list[str]:
    return referenced_run(world / "qwen21", "policy.width=64", *more)


def test_trained_resumed_sampled_and_loaded_by_the_stock_pipeline(world: Path, tmp_path: Path) -> None:
    """The ratio is 1 before the first update, and the adapter's picture is the stock pipeline's."""
    run = train(load_config("qwen21-24gb", given(world)), tmp_path / "run")
    for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        assert row["gradient_norm"] > 0 and row["ratio_drift"] < 1e-5 and row["kl"] >= 0
    part = train(load_config("qwen21-24gb", given(world, "training.iterations=1")), tmp_path / "part")
    again = train(load_config("qwen21-24gb", given(world)), resume=part)
    assert (run / ADAPTER).read_bytes() == (again / ADAPTER).read_bytes()

    references = [str(world / name) for name in ("0.png", "1.png")]
    ask = ["--reference", *references, "--prompt", "a red cube", "--seeds", "1", "--seed", "7", "--steps", "5"]
    assert main(["sample", str(run), *ask, "--out", str(tmp_path / "ours")]) == 0
    ours = np.asarray(Image.open(tmp_path / "ours" / "prompt0-seed7.png")).astype(int)
    pipeline, pictures = tiny_qwen21.stock_pipeline(world / "qwen21"), []
    for trained in (False, True):
        if trained:
            pipeline.load_lora_weights(str(run / "adapter"))
        (picture,) = pipeline(
            image=[Image.open(name) for name in references], prompt="a red cube", height=32, width=64,
            output_resolution=64, num_inference_steps=5, generator=torch.Generator().manual_seed(7),
        ).images  # fmt: skip
        pictures.append(tiny_qwen21.on_white(picture).int().numpy())
    plain, theirs = pictures
    assert abs(ours - theirs).max() <= 1 and abs(ours - theirs).mean() < 0.01
    assert abs(plain - theirs).max() > 1  # training did something


def test_encoded_data_trains_without_the_text_encoder(world: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """A prompt is encoded with its task's references, and where these stand in it; the last bit is the same."""
    cache = str(tmp_path / "cache")
    settings = given(world, "training.iterations=1")
    assert main(["data", "encode", "qwen21-24gb", *as_arguments(settings), "--out", cache]) == 0
    assert "prompts: 2 encoded, 0 already there\nreferences: 2 encoded, 0" in capsys.readouterr().out
    direct = train(load_config("qwen21-24gb", settings), tmp_path / "direct")
    monkeypatch.setattr("transformers.Qwen3VLModel.from_pretrained", None)  # must not be called
    cached = train(load_config("qwen21-24gb", [*settings, f"data.cache={cache}"]), tmp_path / "cached")
    one, two = (load_file(run / ADAPTER) for run in (direct, cached))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_two_processes_and_a_sharded_base_give_the_run_of_one(world: Path, tmp_path: Path) -> None:
    """The sharded base shares a prefix in the rollout alone, which changes the rounding of the update."""
    exact = given(world, "policy.dtype=float64", "training.iterations=1")
    one = load_file(train(load_config("qwen21-24gb", exact), tmp_path / "one") / ADAPTER)
    for kind, bound in {"ddp": 1e-8, "fsdp2": 1e-4}.items():
        asked = as_arguments([*exact, f"training.parallel={kind}"])
        done = in_processes(2, "none", "train", "qwen21-24gb", *asked, "--out", str(tmp_path / kind))
        assert done.returncode == 0, done.stderr
        other = load_file(tmp_path / kind / ADAPTER)
        assert one.keys() == other.keys()
        assert max((one[key].double() - other[key].double()).abs().max() for key in one) <= bound
    assert max(value.abs().max() for key, value in one.items() if "lora_B" in key) > 0.1
