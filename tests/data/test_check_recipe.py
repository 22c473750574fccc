"""`cgrpo data check` of a recipe, and of sets that are readable and yet not meant; `train` asks the same first."""

import importlib.util
import json
from pathlib import Path

import pytest
from PIL import Image

from cgrpo.app import needs
from cgrpo.app.main import main
from cgrpo.app.run import train
from cgrpo.config import load_config
from cgrpo.data import check_manifest, read_tasks
from cgrpo.errors import UserError

UNO = ("policy.path=black-forest-labs/FLUX.1-dev", "policy.quantise=int8")
SEGMENTED = ("rewards.identity.segmenter=facebook/sam-vit-base", "rewards.identity.detector=IDEA-Research/dino")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(2):
        Image.effect_noise((32, 32), 60 + 40 * number).convert("RGB").save(tmp_path / f"{number}.png")
    return tmp_path


def rows(folder: Path, name: str, *given: dict) -> str:
    (folder / name).write_text(json.dumps([{"references": ["0.png"]} | row for row in given]))
    return str(folder / name)


def checked(capsys, *words: str) -> tuple[int, str]:
    code = main(["data", "check", *words])
    return code, capsys.readouterr().out


def given(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def test_captions_of_ones_own_photographs_are_not_tasks(folder, capsys):
    (folder / "0.txt").write_text("my dog on the sofa")
    (folder / "1.txt").write_text("my dog in the garden")
    notes = " ".join(check_manifest(folder).notes)
    assert "2 prompts are the captions of their own references" in notes and '2 of 2 rows have no "subject"' in notes
    code, out = checked(capsys, str(folder))
    assert code == 0 and out.count("note ") == 2 and "cgrpo data prompts" in out


def test_a_set_of_one_subject_is_told(folder):
    path = rows(folder, "a.json", *({"prompt": text, "subject": "dog"} for text in ("a dog at sea", "a wet dog")))
    (note,) = check_manifest(Path(path)).notes
    assert note.startswith("all rows show one subject")
    many = rows(folder, "b.json", {"prompt": "a dog", "subject": "dog"},
                {"prompt": "a cat", "subject": "cat", "references": ["1.png"]})  # fmt: skip
    assert check_manifest(Path(many)).notes == ()


def test_a_recipe_is_checked_with_its_sets_and_rewards(folder, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == "torchao" else find(name, *more)
    )
    source = rows(folder, "train.json", {"prompt": "a dog at sea"}, {"prompt": "a wet dog", "subject": "dog"})
    held = rows(folder, "held.json", {"prompt": "A wet  dog", "subject": "dog", "id": "h"})
    more = (f"data.source={source}", f"guard.source={held}", "rewards.prompt.path=absent", *UNO, *SEGMENTED)
    code, out = checked(capsys, "toybox", *given(*more))
    assert code == 1
    for line in (
        "policy: quantise = int8 needs torchao: pip install torchao",
        "rewards.prompt.path: absent: no such folder",
        "1 of 2 rows, the first of them 0, have no subject",
        "1 of 1 held-out rows have subject and prompt of rows that are trained on, the first of them h",
        "fetched from the hub when the run begins: policy.path = black-forest-labs/FLUX.1-dev",
        "fetched from the hub when the run begins: rewards.identity.detector = IDEA-Research/dino",
    ):
        assert line in out, line
    assert "toybox" not in out.replace("toybox: ", "")  # what the package carries needs no word


def test_the_embedded_default_needs_nothing(capsys):
    assert checked(capsys, "toybox") == (0, "")
    assert main(["data", "check", "absent.json", "--set", "a=b"]) == 2
    assert "--set goes with a recipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            ("rewards.prompt.type=hpsv3", "rewards.prompt.path=a/b/c.safetensors", "rewards.prompt.backbone=a/b"),
            "hpsv3",
        ),
        (SEGMENTED, "have no subject"),
        (("rewards.identity.masks=reference", "rewards.identity.segmenter="), "have no mask for each reference"),
        (("method=sft",), "no target picture"),
    ],
)
def test_a_run_that_can_not_score_stops_before_the_policy_is_loaded(folder, monkeypatch, settings, says):
    def loaded(*given, **more):
        raise AssertionError("loaded")

    monkeypatch.setattr("cgrpo.app.run.make_policy", loaded)
    source = rows(folder, "train.json", {"prompt": "a dog"}, {"prompt": "a cat"})
    with pytest.raises(UserError, match=says):
        train(load_config("toybox", (f"data.source={source}", "logging.tracker=none", *settings)), folder / "run")


def test_masks_stand_in_for_words(folder):
    Image.new("L", (32, 32), 255).save(folder / "mask.png")
    record = {"prompt": "a dog", "masks": ["mask.png"]}
    cfg = load_config("toybox", ("rewards.identity.masks=reference",))
    assert needs.unfit(cfg, read_tasks(Path(rows(folder, "a.json", record)))) == []
    assert needs.unfit(cfg, read_tasks(Path(rows(folder, "b.json", {"prompt": "a dog"})))) != []
