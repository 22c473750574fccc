"""`cgrpo train klein` on a tiny FLUX.2-klein checkpoint: its pictures, its resumption, one process and several."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinPipeline
from PIL import Image
from safetensors.torch import load_file
from support import tiny_flux2
from support.runs import ADAPTER, as_arguments, in_processes, referenced_run, referenced_tasks

from cgrpo.app.main import main
from cgrpo.app.run import train
from cgrpo.config import Config, load_config


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """klein/ and tasks.json: two tasks with two references of unequal sizes, two with one."""
    folder = tmp_path_factory.mktemp("klein")
    tiny_flux2.build_folder(folder / "klein")
    referenced_tasks(folder, ["0.png", "1.png"], ["2.png"], ["0.png", "1.png"], ["0.png"])
    return folder


def given(world: Path, *more: str) -> list[str]:
    """A guidance of 4 as in the recipe."""
    return referenced_run(world / "klein", "policy.reference_size=1024", "training.learning_rate=0.02", *more)


@pytest.fixture
def small(world: Path):
    """``small(*settings)`` -> the recipe on the tiny world."""

    def make(*settings: str) -> Config:
        return load_config("klein", given(world, *settings))

    return make


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_trained_sampled_and_loaded_by_the_stock_pipeline(small, world: Path, tmp_path: Path) -> None:
    """The ratio is 1 before the first update with guidance 4, and the adapter's picture is the stock pipeline's."""
    run = tmp_path / "run"
    assert main(["train", "klein", *as_arguments(given(world)), "--out", str(run)]) == 0
    assert len(rows(run)) == 2
    for row in rows(run):
        assert row["gradient_norm"] > 0 and row["ratio_drift"] < 1e-4 and row["kl"] >= 0
    references = [str(world / name) for name in ("0.png", "1.png")]
    ask = ["--reference", *references, "--prompt", "a red cube", "--seeds", "1", "--seed", "7", "--steps", "5"]
    assert main(["sample", str(run), *ask, "--out", str(tmp_path / "ours")]) == 0
    ours = np.asarray(Image.open(tmp_path / "ours" / "prompt0-seed7.png")).astype(int)

    pipeline = Flux2KleinPipeline.from_pretrained(world / "klein", local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pictures = []
    for trained in (False, True):
        if trained:
            pipeline.load_lora_weights(str(run / "adapter"))
        (picture,) = pipeline(
            image=[Image.open(name) for name in references], prompt="a red cube", height=32, width=48,
            num_inference_steps=5, guidance_scale=4, max_sequence_length=tiny_flux2.LENGTH,
            generator=torch.Generator().manual_seed(7),
        ).images  # fmt: skip
        pictures.append(np.asarray(picture).astype(int))
    plain, theirs = pictures
    assert abs(ours - theirs).max() <= 1 and abs(ours - theirs).mean() < 0.01
    assert abs(plain - theirs).max() > 1  # training did something

    told = ["--guidance", "1", "--out", str(tmp_path / "unguided")]
    assert main(["sample", str(run), *ask, *told]) == 0
    assert (np.asarray(Image.open(tmp_path / "unguided" / "prompt0-seed7.png")).astype(int) != ours).any()


@pytest.mark.parametrize("method", ["grpo", "forward"])
def test_resumed_is_uninterrupted_bit_for_bit(small, tmp_path: Path, method: str) -> None:
    """Guided alike or otherwise in training and in the guard; with gradients through one half."""
    more = [f"method={method}", *(["sampling.rollout_steps=3"] if method == "forward" else [])]
    more += ["policy.guidance_gradient=conditional", "policy.guidance=2", "policy.evaluation_guidance=4"]
    whole = train(small(*more), tmp_path / "whole")
    part = train(small(*more, "training.iterations=1"), tmp_path / "part")
    again = train(small(*more), resume=part)
    one, two = ((run / ADAPTER).read_bytes() for run in (whole, again))
    assert one == two
    states = [(run / "checkpoints" / "step-2" / "state.safetensors").read_bytes() for run in (whole, again)]
    assert states[0] == states[1]
    assert all(row["gradient_norm"] > 0 for row in rows(whole))


def test_encoded_data_trains_without_the_text_encoder(small, world: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """The negative prompt is encoded along; a store of another making, or of another family, is refused."""
    # In float64: a text encoded beside others differs by roundings, which AdamW's first step makes as large as any.
    cache, more = str(tmp_path / "cache"), ["training.iterations=1", "policy.dtype=float64"]
    asked = as_arguments(given(world, *more))
    assert main(["data", "encode", "klein", *asked, "--out", cache]) == 0
    assert "prompts: 5 encoded, 0 already there\nreferences: 3 encoded, 0" in capsys.readouterr().out
    direct = train(small(*more), tmp_path / "direct")
    with monkeypatch.context() as patch:
        patch.setattr("transformers.Qwen3Model.from_pretrained", None)  # must not be called
        cached = train(small(*more, f"data.cache={cache}"), tmp_path / "cached")
    one, two = (load_file(run / ADAPTER) for run in (direct, cached))
    assert one.keys() == two.keys() and max((one[key] - two[key]).abs().max() for key in one) <= 1e-5
    other = [*asked, *as_arguments([f"data.cache={cache}", "policy.reference_size=512"])]
    assert main(["train", "klein", *other, "--out", str(tmp_path / "no")]) == 2
    assert "reference size 1024 instead of 512" in capsys.readouterr().err


def test_two_processes_and_a_sharded_base_give_the_run_of_one(small, world: Path, tmp_path: Path) -> None:
    exact = ("policy.dtype=float64", "policy.checkpointing=full", "training.iterations=1")
    exact = (*exact, "policy.guidance_gradient=conditional")  # two forwards a velocity, one of them without gradients
    one = load_file(train(small(*exact), tmp_path / "one") / ADAPTER)
    for kind in ("ddp", "fsdp2"):
        asked = as_arguments(given(world, *exact, f"training.parallel={kind}"))
        done = in_processes(2, "none", "train", "klein", *asked, "--out", str(tmp_path / kind))
        assert done.returncode == 0, done.stderr
        other = load_file(tmp_path / kind / ADAPTER)
        assert one.keys() == other.keys()
        assert max((one[key].double() - other[key].double()).abs().max() for key in one) <= 1e-8
    assert max(value.abs().max() for key, value in one.items() if "lora_B" in key) > 1e-4


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("policy.t5=t5", "policy.t5 = t5: "),
        ("policy.guidance=0", "policy.guidance = 0: must be 1"),
        ("sampling.shift=uno", "sampling.shift = 'uno': this policy knows numbers and flux2"),
    ],
)
def test_bad_settings_are_one_line(small, world: Path, tmp_path: Path, capsys, setting: str, told: str) -> None:
    assert main(["train", "klein", *as_arguments(given(world, setting)), "--out", str(tmp_path / "run")]) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if "error" in line or told in line]
    assert any(told in line for line in err)


def test_guidance_halves_belong_to_a_policy_with_a_negative_prompt(capsys, tmp_path: Path) -> None:
    asked = as_arguments(["policy.guidance_gradient=conditional", "logging.tracker=none"])
    assert main(["train", "toybox", *asked, "--out", str(tmp_path / "run")]) == 2
    assert "policy.guidance_gradient = conditional: " in capsys.readouterr().err
