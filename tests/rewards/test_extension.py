"""A package of somebody else's adds the reward of docs/guides/extending.md, as installed there."""

import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.packages import install

from cgrpo.app.main import main
from cgrpo.config import load_config
from cgrpo.errors import UserError
from cgrpo.rewards import REWARDS, make_rewards

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "extending.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)[0]


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    (tmp_path / "sharpness.py").write_text(block("python"))
    ((group, names),) = tomllib.loads(block("toml"))["project"]["entry-points"].items()
    install(tmp_path, monkeypatch, group, names)
    yield
    sys.modules.pop("sharpness", None)


def test_it_is_a_type_like_any_other():
    cfg = load_config("toybox", ["rewards.prompt.type=sharpness", "rewards.prompt.power=2"])
    assert cfg.rewards["prompt"].type == "sharpness" and cfg.model_dump()["rewards"]["prompt"]["power"] == 2
    assert make_rewards(cfg.rewards)["prompt"].power == 2
    assert REWARDS.names()[-1] == "sharpness"
    for setting, says in (
        ("rewards.prompt.power=much", r"rewards\.prompt\.power: .*got \"much\""),
        ("rewards.prompt.pover=2", r"unknown key rewards\.prompt\.pover"),
        ("rewards.prompt.type=sharpnes", r"rewards\.prompt\.type: .*did you mean 'sharpness'"),
    ):
        with pytest.raises(UserError, match=says):
            load_config("toybox", ["rewards.prompt.type=sharpness", setting])


def test_the_command_scores_with_it(tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "sharp.png")
    Image.fromarray(noise).resize((4, 4)).resize((32, 32)).save(tmp_path / "soft.png")
    given = [str(tmp_path / name) for name in ("soft.png", "sharp.png")]
    assert main(["rewards", "score", *given, "--reward", "sharpness", "--prompt", "a cat"]) == 0
    told = capsys.readouterr().out
    assert told.index("sharp.png") < told.index("soft.png")
