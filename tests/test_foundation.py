"""The root modules: errors that name a path, fingerprints, and names that other packages add."""

import json
import sys

import pytest
import torch
from PIL import Image
from support.packages import install

from cgrpo import fingerprint
from cgrpo.errors import UserError
from cgrpo.extensions import Extensions
from cgrpo.files import reading, writing


def test_reading_names_the_path(tmp_path):
    missing, broken = tmp_path / "missing.json", tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(UserError, match=r"missing\.json: no such file"), reading(missing):
        missing.read_text()
    with pytest.raises(UserError, match=r"broken\.json.*; write it again"), reading(broken, "write it again"):
        json.loads(broken.read_text())
    with pytest.raises(UserError, match="^as it is$"), reading(missing):
        raise UserError("as it is")


def test_writing_names_the_path(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path.name}: can't be written"), writing(tmp_path):
        tmp_path.write_text("a folder")


def test_fingerprints(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert fingerprint.of_bytes(b"abc") == fingerprint.of_text("abc") == fingerprint.of_file(file) == abc
    assert fingerprint.of_settings({"b": 1, "a": 2}) == fingerprint.of_settings({"a": 2, "b": 1})
    one, other = Image.new("L", (2, 3)), Image.new("L", (3, 2))
    assert fingerprint.of_picture(one) != fingerprint.of_picture(other)
    tensors = {"a": torch.arange(5000.0), "b": torch.tensor(1.0)}
    assert fingerprint.of_tensors(tensors.items()) == fingerprint.of_tensors(reversed(tensors.items()))


REWARDS = Extensions("reward", "cgrpo.rewards", {"clip": "json:loads"})


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package that adds a reward, and one that can't be loaded."""
    (tmp_path / "sharp.py").write_text("class Sharpness: pass\n")
    names = {"sharpness": "sharp:Sharpness", "broken": "nowhere:Reward"}
    install(tmp_path, monkeypatch, "cgrpo.rewards", names)
    yield
    sys.modules.pop("sharp", None)


def test_own_names_and_others(installed):
    assert REWARDS.names()[0] == "clip" and {"sharpness", "broken"} <= set(REWARDS.names())
    assert REWARDS.load("clip") is json.loads
    assert REWARDS.load("sharpness").__name__ == "Sharpness"
    with pytest.raises(UserError, match=r"reward 'broken': nowhere:Reward can't be loaded"):
        REWARDS.load("broken")


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(UserError, match="no reward 'clipp'; did you mean 'clip'"):
        REWARDS.load("clipp")
