"""What comes from a person is converted or refused in one line, before anything is loaded."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.command_line import parse

from cgrpo.app.main import main
from cgrpo.config import load_config
from cgrpo.errors import UserError
from cgrpo.launch import OTHERS, clean_environment, launched

WHOLE = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
HUGE = "99999999999999999999"


def refused(capfd, *arguments: object) -> str:
    """The one line on stderr; a progress bar before it doesn't count."""
    assert main([str(argument) for argument in arguments]) == 2
    err = capfd.readouterr().err
    assert "Traceback" not in err
    line = err.strip().splitlines()[-1]
    assert line.startswith("cgrpo: ")
    return line


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "NaN"])
@pytest.mark.parametrize(
    "before",
    [
        ("plan", "--tflops"), ("plan", "--memory"), ("plan", "--utilisation"),
        ("data", "syncd", "x", "--top", "1", "--out", "y", "--max-similarity"),
    ],
)  # fmt: skip
def test_numbers_are_finite(capfd, before, value):
    *words, name = before
    assert f"{name}: must be a finite number" in refused(capfd, *words, f"{name}={value}")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_settings_are_finite(capfd, value):
    prompt = ("--prompt", "a toy", "--out", "never")
    assert "policy.guidance" in refused(capfd, "sample", f"--guidance={value}", *prompt)
    for key in ("policy.guidance", "training.learning_rate", "shaping.alpha", "sampling.noise_level"):
        with pytest.raises(UserError, match=f"{key}.*finite|{key}.*(greater|less)"):
            load_config("toybox", [f"{key}={value}"])


@pytest.mark.parametrize("value", [HUGE, "-1"])
@pytest.mark.parametrize(
    "before",
    [
        ("sample", "--prompt", "a toy", "--out", "never", "--seed"),
        ("evaluate", "toybox", "--out", "never", "--first-seed"),
        ("toybox", "build", "--out", "never", "--seed"),
        ("rewards", "serve", "--port"),
        ("plan", "--references"),
    ],
)
def test_whole_numbers_are_ones_that_libraries_take(capfd, before, value):
    *words, name = before
    assert f"{name}. Must be " in refused(capfd, *words, f"{name}={value}")


@pytest.mark.parametrize("value", [HUGE, "-1"])
def test_a_seed_of_the_settings(capfd, value):
    assert "training.seed" in refused(capfd, "train", "--set", f"training.seed={value}", "--out", "never")


def test_earlier_samples_are_kept(capfd, tmp_path):
    words = ("sample", "--steps", "2", "--seeds", "1", "--out", tmp_path, "--prompt")
    assert main([str(word) for word in (*words, "a small toy on the left in the snow")]) == 0
    kept = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert "prompt0-seed0.png: is there already" in refused(capfd, *words, "a small toy on the right in the snow")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == kept


def never(pictures, batch):
    return [float("nan")] * len(pictures)


def test_scores_that_all_failed_are_a_failure(capfd, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    words = ["rewards", "score", "--prompt", "a toy", "--reward", "prompt", str(tmp_path / "a.png")]
    assert main(words) == 0
    assert main([*words, "--set", "rewards.prompt.type=test_edge:never"]) == 1
    assert "1 of 1 scores failed" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["out.xyz", ".", "absent/out.png"])
def test_a_sheet_that_can_not_be_written_is_refused_before_the_scoring(capfd, tmp_path, name):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    words = ("rewards", "score", "--prompt", "a toy", tmp_path / "a.png", "--sheet", tmp_path / name)
    assert "--sheet" in refused(capfd, *words)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE is set but not RANK"),
        ({"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, "not MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "many"}, "not RANK"),
        ({"LOCAL_RANK": ""}, ""),
        ({"RANK": "3"}, ""),
        (WHOLE | {"WORLD_SIZE": "two"}, "WORLD_SIZE must be a whole number"),
        (WHOLE | {"RANK": "-1"}, "RANK must be a whole number"),
        (WHOLE | {"RANK": "2"}, "RANK (2) must be below WORLD_SIZE (2)"),
        (WHOLE | {"MASTER_PORT": "99999"}, "MASTER_PORT"),
        (WHOLE, ""),
        ({"RANK": "", "LOCAL_RANK": " ", "WORLD_SIZE": "", "MASTER_ADDR": "here"}, ""),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE = 2: mpirun"),
        ({"PMI_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, "torchrun --nproc_per_node 2"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "SLURM_STEP_NUM_TASKS = 4: srun"),
        ({"PMI_SIZE": "1", "OMPI_COMM_WORLD_SIZE": "1", "MV2_COMM_WORLD_SIZE": "1", "PMI_RANK": "0"}, ""),
        (WHOLE | {"OMPI_COMM_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": ""}, ""),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "ACCELERATE_USE_DEEPSPEED is set"),
        (WHOLE | {"ACCELERATE_USE_FSDP": "1"}, "training.parallel=fsdp2"),
        ({"ACCELERATE_USE_FSDP": "false", "ACCELERATE_MIXED_PRECISION": "fp16"}, ""),
    ],
)
def test_half_a_launch_is_refused(monkeypatch, given, said):
    """What is left in the environment says the same to accelerate."""
    for name in (*WHOLE, *OTHERS):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    if said:
        with pytest.raises(UserError, match="environment: ") as caught:
            launched()
        assert said in str(caught.value) and "\n" not in str(caught.value)
    else:
        several = WHOLE.items() <= given.items()
        clean_environment()
        assert launched() == ((1, 2) if several else (0, 1))
        assert not {name for name in given if name in os.environ} - (set(WHOLE) if several else set())


def test_half_a_launch_is_one_line(capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "not RANK" in refused(capfd, "train", "--out", tmp_path / "run")


@pytest.mark.parametrize(
    "words", [("sample", "--prompt", "caf\udce9 toy", "--out", "x"), ("data", "check", "\udcff.json")]
)
def test_what_is_no_utf8_is_refused(capfd, words):
    assert "is no UTF-8" in refused(capfd, *words)


def test_a_terminal_that_lacks_letters(tmp_path, monkeypatch):
    """Tables are printed with replacement; what is written is whole."""
    Image.new("RGB", (8, 8)).save(tmp_path / "猫 1.png")
    words = ["rewards", "score", "--prompt", "a toy", str(tmp_path / "猫 1.png"), "--reward", "prompt"]
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", errors="strict")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main([*words, "--json", str(tmp_path / "s.json")]) == 0
    assert b"? 1.png" in terminal.buffer.getvalue()
    assert "猫 1.png" in str(json.loads((tmp_path / "s.json").read_text()))


def test_a_reader_that_has_seen_enough():
    """cgrpo ... | head: the pipe's other end is closed before anything is written."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "cgrpo", "cite"], stdout=write, stderr=subprocess.PIPE, env=os.environ)
    os.close(write)
    assert done.stderr == b"" and done.returncode == 128 + 13


def test_home_is_found_where_no_shell_looks(capfd, tmp_path, monkeypatch):
    """--out=~/x and key=~/x come as they are; a recipe no shell ever sees."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set.json").write_text("[]")
    (tmp_path / "mine.toml").write_text('[data]\nsource = "~/set.json"\n[guard]\nsource = "~nobody-here/x"\n')
    cfg = load_config("mine.toml", ["policy.path=~/flux"])
    assert (cfg.data.source, cfg.policy.path) == (f"{tmp_path}/set.json", f"{tmp_path}/flux")
    assert cfg.guard.source == "~nobody-here/x"
    assert f"{tmp_path}/set.json: holds no rows" in refused(capfd, "data", "check", "~/set.json")
    assert parse(["train", "--out=~/run"]).out == tmp_path / "run"


def test_a_prompt_that_shows_nothing(capfd, tmp_path):
    assert "--prompt is empty" in refused(capfd, "sample", "--prompt", "\u200b \u2060", "--out", tmp_path / "x")


def test_what_is_cut_is_counted_before_the_training(capfd, tmp_path):
    """By data check of a recipe, and by data encode."""
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    rows = [{"prompt": prompt, "subject": "toy", "image": "0.png"} for prompt in ("a toy", "a toy " * 600)]
    (tmp_path / "m.json").write_text(json.dumps(rows))
    setting = ("--set", f"data.source={tmp_path / 'm.json'}")
    assert main(["data", "check", "toybox", "--quick", *setting]) == 0
    said = capfd.readouterr().out
    assert "1 of 2 prompts are cut by CLIP at" in said and "1 of 2 prompts are cut by T5 at" in said
    assert main(["data", "encode", "toybox", *setting, "--out", str(tmp_path / "store")]) == 0
    assert "1 of 2 prompts are cut by T5 at" in capfd.readouterr().err
