"""A reply's text to its score: what the published pattern lost or guessed, and what must not be guessed."""

import json

import pytest
from support import tiny_rewards

from cgrpo.rewards.vlm.client import _usage
from cgrpo.rewards.vlm.replies import Unclear, read_score
from cgrpo.rewards.vlm.rubrics import RUBRICS

EXPECTED = {  # the replies of vlm_parse.json; None: to be asked again
    "Score: 3": 3.0,
    "**Score:** 3": 3.0,
    "**Score: 3**": 3.0,
    "Score: [3]": 3.0,
    "Score: 3/4": 3.0,
    "score: 3": 3.0,
    "Score\uff1a3": 3.0,
    "Analysis: Shape Score: 4. Color Score: 2\nScore: 1": 1.0,
    "Score: 3.": 3.0,
    "Score: -1": None,
    "Score: 10": None,
    "Score: .": None,
    "None": None,
    "### Score\n3": 3.0,
    "Score: 3.5.": 3.5,
    "Score: Good (3)": 3.0,
}


def read(reply: str) -> float | None:
    try:
        return read_score(reply)
    except Unclear:
        return None


def test_golden_replies() -> None:
    """What the release scores 0, or crashes on, is read or refused."""
    rows = json.loads((tiny_rewards.DATA / "vlm_parse.json").read_text(encoding="utf-8"))
    assert {row["reply"]: read(row["reply"]) for row in rows} == EXPECTED


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ('{"reason": "a score: 2 thing", "score": 3}', 3),
        ('Thinking.\n```json\n{"score": "3/4", "reason": ""}\n```', 3),
        ('{"score": 1} No, wait. {"score": 2}', 2),
        ('{"result": {"Score": [2]}}', 2),
        ('{"score": 0}', 0),
        ('Shape score: 4\n\n{"score": 1}', 1),
        ("Score: 1\nScore: 2", 2),
        ("Score (0-4): 3", 3),
        ("The toy is gone. Final score: **0** / 4", 0),
        ("<think>Score: 1</think>\n\nScore: 3", 3),
        ("Score: 3 (out of 4)", 3),
        ("Score: 1\nThis score reflects 2 dogs.", 1),
    ],
)
def test_clear(reply: str, score: float) -> None:
    assert read_score(reply) == score


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Score: three",
        "Score: 3-4",
        "Score: 3 or 4",
        "Score: 2 to 3",
        "Score: 3/5",
        "Score: 30%",
        "Score: 4.5",
        "Shape score: 4",
        "Maximum score: 4",
        "Score: 3\nScore: unknown",
        '{"score": 3',
        '{"score": true}',
        '{"score": NaN}',
        '{"score": null}',
        '{"score": 5}',
        '{"score": [1, 2]}',
        '{"score": 3, "score": 1}',
        '{"score": 1}\nScore: 2',
        "{" * 9000,
        '{"a":' * 9000,
        "\t" * 9000,
        "Score: 3/" + "4" * 5000,
        '{"score": "3 out of ' + "4" * 4500 + '"}',
        "Score: \uff19",
        '{"score": "8/10"}',
    ],
)
def test_unclear(reply: str) -> None:
    with pytest.raises(Unclear):
        read_score(reply)


@pytest.mark.parametrize("tokens", [10**400, -1, True, 1.5, "7", None])
def test_a_bill_that_is_none(tokens: object) -> None:
    """Unknown then, which the ledger books as the dearest call so far."""
    assert _usage({"prompt_tokens": tokens, "completion_tokens": 1}) is None
    assert _usage({"prompt_tokens": 900, "completion_tokens": 1}) == (900, 1)


@pytest.mark.parametrize("task", ["identity", "prompt"])
def test_each_level_has_its_anchor(task: str) -> None:
    anchors = [line for line in RUBRICS[task].splitlines() if line[1:4] == " = "]
    assert [line[0] for line in anchors] == ["4", "3", "2", "1", "0"]
