"""What comes from a person is converted or refused in one line, before anything is loaded."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.command_line import parse

from cgrpo.app.main import main
from cgrpo.config import load_config
from cgrpo.errors import UserError
from cgrpo.launch import launched

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


@pytest.mark.parametrize("text", ["nan", "2024", "true", "1e3", "2024-01-01"])
def test_a_text_is_taken_as_text(text):
    cfg = load_config("toybox", [f"policy.path={text}", f"data.source={text}", "training.seed=3"])
    assert (cfg.policy.path, cfg.data.source, cfg.training.seed) == (text, text, 3)
    own = load_config("toybox", ["rewards.prompt.type=clip", f"rewards.prompt.path={text}"])
    assert own.rewards["prompt"].path == text
    with pytest.raises(UserError, match="training.iterations"):
        load_config("toybox", [f"policy.path={text}", "training.iterations=many"])


def test_a_recipe_with_a_bom(tmp_path):
    (tmp_path / "mine.toml").write_text("[training]\niterations = 7\n", encoding="utf-8-sig")
    assert load_config(str(tmp_path / "mine.toml")).training.iterations == 7


def test_extends_is_relative_to_the_file_that_says_it(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "x.toml").write_text('extends = "naive"\n[training]\niterations = 7\n')
    (tmp_path / "a" / "y.toml").write_text('extends = "../x.toml"\n[training]\nseed = 5\n')
    (tmp_path / "a" / "b" / "z.toml").write_text('extends = "../y.toml"\n')
    (tmp_path / "a" / "loop.toml").write_text('extends = "../a/loop.toml"\n')
    for place in (tmp_path, tmp_path / "a" / "b"):
        monkeypatch.chdir(place)
        for name in (tmp_path / "a" / "b" / "z.toml", os.path.relpath(tmp_path / "a" / "b" / "z.toml")):
            cfg = load_config(str(name))
            assert (cfg.training.iterations, cfg.training.seed, cfg.shaping.type) == (7, 5, "none")
    with pytest.raises(UserError, match="not in a circle"):
        load_config(str(tmp_path / "a" / "loop.toml"))


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
    ],
)
def test_half_a_launch_is_refused(monkeypatch, given, said):
    for name in WHOLE:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    if said:
        with pytest.raises(UserError, match="environment: ") as caught:
            launched()
        assert said in str(caught.value) and "\n" not in str(caught.value)
    else:
        assert launched() == ((1, 2) if given == WHOLE else (0, 1))


def test_half_a_launch_is_one_line(capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "not RANK" in refused(capfd, "train", "--out", tmp_path / "run")


@pytest.mark.parametrize(
    "words", [("sample", "--prompt", "caf\udce9 toy", "--out", "x"), ("data", "check", "\udcff.json")]
)
def test_what_is_no_utf8_is_refused(capfd, words):
    assert "is no UTF-8" in refused(capfd, *words)


def test_a_terminal_that_lacks_letters(tmp_path):
    """Tables are printed with replacement; what is written is whole."""
    Image.new("RGB", (8, 8)).save(tmp_path / "猫 1.png")
    words = ["rewards", "score", "--prompt", "a toy", str(tmp_path / "猫 1.png"), "--reward", "prompt"]
    command = [sys.executable, "-m", "cgrpo", *words, "--json", str(tmp_path / "s.json")]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "cp1252"})
    assert done.returncode == 0 and b"? 1.png" in done.stdout and done.stderr == b""
    assert "猫 1.png" in str(json.loads((tmp_path / "s.json").read_text()))


def test_a_reader_that_has_seen_enough():
    command = f"{shlex.quote(sys.executable)} -m cgrpo plan | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stderr == "" and len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("key", ["training.seed", "training.learning_rate"])
def test_a_truth_value_is_no_number(key):
    with pytest.raises(UserError, match=f"{key}: must be a number, got true"):
        load_config("toybox", [f"{key}=true"])


def test_a_number_of_thousands_of_digits(tmp_path):
    (tmp_path / "mine.toml").write_text(f"[training]\nseed = {'9' * 5000}\n")
    for recipe, settings in ((str(tmp_path / "mine.toml"), []), ("toybox", [f"training.seed={'9' * 5000}"])):
        with pytest.raises(UserError):
            load_config(recipe, settings)


def test_a_recipe_in_utf16(tmp_path):
    (tmp_path / "mine.toml").write_text("[training]\r\niterations = 7\r\n", encoding="utf-16")
    assert load_config(str(tmp_path / "mine.toml")).training.iterations == 7


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
