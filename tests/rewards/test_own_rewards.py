"""Rewards that others write: whatever their modules, classes and functions do wrong is one line that names it."""

from __future__ import annotations

import sys

import pytest
import torch
from support.packages import install
from support.tasks import TWO_BLACK, tasks

from cgrpo.errors import UserError
from cgrpo.rewards import FunctionReward, make_reward, read_settings, scored

TWO = tasks(prompts=["", ""])


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write ``mine.py``, which can then be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda source: (tmp_path / "mine.py").write_bytes(source if isinstance(source, bytes) else source.encode())
    sys.modules.pop("mine", None)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("raise ValueError('no\\nmore')", "ValueError: no"),
        ("def f(:", "SyntaxError: "),
        (b"name = 'caf\xe9'\nf = 1", "SyntaxError: "),
        (b"f = 1\x00", "SyntaxError: |ValueError: "),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise SystemExit", "SystemExit"),
        ("import nowhere", "No module named 'nowhere'"),
        ("f = 1 / 0", "ZeroDivisionError"),
        ("assert False", "AssertionError"),
        ("def g(): g()\ng()", "RecursionError"),
        ("import mine.more", "not a package"),
        ("", "no attribute 'f'"),
        ("f = 5", "is no function"),
    ],
)
def test_a_module_with_a_fault(module, source, says):
    module(source)
    _refused("mine:f", says)


@pytest.mark.parametrize("place", [":f", ":", "mine:", "mine:f.g", "mine:f:g", ".mine:f", "nowhere:f", "my module:f"])
def test_a_place_that_is_none(module, place):
    module("def f(pictures, batch):\n    return [1.0] * len(pictures)\n")
    _refused(place, "can't be imported")


def _refused(place: str, says: str) -> None:
    settings = read_settings({"type": place}, "here")
    (line,) = settings.missing()
    assert place in line and "\n" not in line
    with pytest.raises(UserError, match=f"^reward 'x': .*({says})"):
        make_reward("x", settings)


class Odd:
    def __call__(self, pictures, batch):
        return torch.ones(len(pictures), requires_grad=True)


@pytest.mark.parametrize(
    "function",
    [
        Odd(),
        lambda pictures, batch: torch.ones(2, dtype=torch.int64),
        lambda pictures, batch: [torch.tensor(1.0)] * 2,
        lambda pictures, batch: (1, True),
        lambda pictures, batch: torch.ones(2, dtype=torch.float64).numpy(),
    ],
)
def test_scores_in_any_common_form(function):
    assert scored("x", FunctionReward(function, "prompt"), TWO_BLACK, TWO).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda pictures: [1.0, 1.0], "TypeError: .*takes 1 positional argument"),
        (lambda pictures, batch: sys.exit("done"), "SystemExit: done"),
        (lambda pictures, batch: {}["score"], "KeyError: 'score'"),
        (lambda pictures, batch: None, r"shape \[\]"),
        (lambda pictures, batch: 1.0, r"shape \[\]"),
        (lambda pictures, batch: [], r"shape \[0\]"),
        (lambda pictures, batch: [[1.0], [1.0]], r"shape \[2, 1\]"),
        (lambda pictures, batch: [[1.0], [1.0, 2.0]], "ValueError"),
        (lambda pictures, batch: {"a": 1.0}, "TypeError"),
        (lambda pictures, batch: ["good", "bad"], "ValueError"),
        (lambda pictures, batch: (1.0 for _ in pictures), "TypeError"),
        (lambda pictures, batch: [1.0, 1.0j], "TypeError"),
    ],
)
def test_a_function_with_a_fault(function, says):
    with pytest.raises(UserError, match=f"reward 'x' .*{says}"):
        scored("x", FunctionReward(function, "prompt"), TWO_BLACK, TWO)


HEAD = "from cgrpo.rewards import Reward, RewardSettings\nclass Mine(RewardSettings):\n    type: str = 'mine'\n"
BUILD = HEAD + "    def build(self, name, device):\n        "


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("raise ValueError('no')", "mine:Mine can't be loaded .ValueError: no"),
        ("import sys; sys.exit()", "mine:Mine can't be loaded .SystemExit"),
        ("class Mine(:", "mine:Mine can't be loaded .SyntaxError"),
        ("class Mine: pass", "no subclass of cgrpo.rewards.RewardSettings"),
        ("def Mine(pictures, batch): pass", "no subclass of cgrpo.rewards.RewardSettings"),
        (HEAD, "can't be built: NotImplementedError"),
        (BUILD + "return open('nowhere')", "can't be built: FileNotFoundError"),
        (BUILD + "pass", "can't be built: .*NoneType"),
        (BUILD + "return lambda pictures, batch: [1.0]", "can't be built: .*axis"),
        (BUILD + "return type('M', (Reward,), {'axis': 'beauty', 'unit': ''})()", "can't be built: .*axis"),
        (BUILD + "return type('M', (Reward,), {'axis': 'prompt'})()", "can't be built: .*unit"),
        (BUILD + "return type('M', (Reward,), {'axis': 'prompt', 'unit': ''})()", "returned scores|failed"),
    ],
)
def test_a_package_with_a_fault(tmp_path, monkeypatch, module, source, says):
    module(source)
    install(tmp_path, monkeypatch, "cgrpo.rewards", {"mine": "mine:Mine"})
    with pytest.raises(UserError, match=says) as caught:
        scored("x", make_reward("x", read_settings({"type": "mine"}, "here")), TWO_BLACK, TWO)
    assert "\n" not in str(caught.value)
