"""A run knows by content what it was made of, and goes on with nothing else."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from cgrpo.app.main import main
from cgrpo.app.materials import pictures_fingerprint, tasks_fingerprint
from cgrpo.app.run import train
from cgrpo.data import read_tasks
from cgrpo.errors import UserError


def data_set(folder: Path, prompt: str = "a toy at night", colour: str = "red") -> Path:
    folder.mkdir(exist_ok=True)
    Image.effect_noise((32, 32), 60).convert("RGB").save(folder / "0.png")
    Image.new("RGB", (32, 32), colour).save(folder / "1.png")
    rows = [{"prompt": prompt, "subject": "toy", "references": [f"{number}.png"]} for number in range(2)]
    (folder / "train.json").write_text(json.dumps(rows))
    return folder


def test_another_data_set_under_the_same_name_is_refused(small, tmp_path, monkeypatch):
    here, there = data_set(tmp_path / "here"), data_set(tmp_path / "there", "a toy on the beach")
    monkeypatch.chdir(here)
    run = train(small("data.source=train.json", "training.iterations=1"), tmp_path / "run")
    monkeypatch.chdir(there)
    longer = small("data.source=train.json", "training.iterations=2")
    train(longer, resume=run)  # on what the path meant where the run began
    assert json.loads((run / "config.json").read_text())["data"]["source"] == "train.json"
    here.rename(tmp_path / "copy")
    longer = small("data.source=train.json", "training.iterations=3")
    with pytest.raises(UserError, match=rf"data.source = train.json has changed since the run began in {here}"):
        train(longer, resume=run)
    monkeypatch.chdir(tmp_path / "copy")  # the set may move
    train(longer, resume=run)


def test_another_reward_or_base_is_refused(small, tiny, tmp_path):
    run = train(small("training.iterations=1"), tmp_path / "run")
    kept = (run / "materials.json").read_text()
    for name in ("rewards.prompt", tiny.replace("=", " = ")):
        (run / "materials.json").write_text(json.dumps(json.loads(kept) | {name: "0" * 64}))
        with pytest.raises(UserError, match=f"^{name} has changed since"):
            train(small("training.iterations=2"), resume=run)
    (run / "materials.json").unlink()  # as the cure for a damaged one says
    train(small("training.iterations=2"), resume=run)
    assert (run / "materials.json").read_text() == kept


def test_what_counts_in_a_data_set(tmp_path):
    def mark(folder: Path) -> str:
        return tasks_fingerprint(read_tasks(folder / "train.json"))

    first = mark(data_set(tmp_path / "a"))
    assert mark(data_set(tmp_path / "b", "a toy by day")) != first
    other = data_set(tmp_path / "c")
    shutil.copytree(tmp_path / "a", other, dirs_exist_ok=True)
    assert mark(other) == first
    with (other / "1.png").open("ab") as file:
        file.write(os.urandom(1))
    assert mark(other) != first


def test_pictures_count_by_what_is_in_them(tmp_path):
    """Where the names and sizes are the same: a bitmap of another colour, a shard packed anew."""

    def marks(colour: str) -> list[str]:
        Image.new("RGB", (8, 8), colour).save(tmp_path / "a.bmp")
        (tmp_path / "a.txt").write_text("a toy")
        (tmp_path / "m.json").write_text('[{"prompt": "a toy", "image": "a.bmp"}]')
        with tarfile.open(tmp_path / "s.tar", "w") as shard:
            for name in ("a.bmp", "a.txt"):
                shard.add(tmp_path / name, name)
        return [pictures_fingerprint(read_tasks(tmp_path / name)) for name in ("m.json", "s.tar")]

    red = marks("red")
    assert [one == other for one, other in zip(red, marks("blue"), strict=True)] == [False, False]
    assert marks("red")[0] == red[0]


@pytest.mark.parametrize(("words", "says"), [(["naive"], "a recipe"), (["--out", "other"], "--out")])
def test_what_a_resumed_run_would_ignore_is_refused(capfd, tmp_path, words, says):
    assert main(["train", *words, "--resume", str(tmp_path)]) == 2
    assert f"leave {says} out" in capfd.readouterr().err


def test_prompts_that_are_cut_are_said_once_with_their_number(small, tmp_path, capfd):
    """The embedded T5 reads as many tokens as its tokenizer asks for."""
    long = "a toy " * 600
    folder = data_set(tmp_path / "data", long)
    train(small(f"data.source={folder / 'train.json'}", "training.iterations=1"), tmp_path / "run")
    said = [line for line in capfd.readouterr().err.splitlines() if "prompts are cut by" in line]
    assert [line.partition(" at ")[0] for line in said] == [
        "cgrpo: 2 of 2 prompts are cut by CLIP", "cgrpo: 2 of 2 prompts are cut by T5"
    ]  # fmt: skip
    assert all(line.endswith("the first of them record 0's") for line in said)
