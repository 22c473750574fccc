"""A reply's text -> its score. A guess would poison a group of samples: what is unclear is no score."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

LOWEST, HIGHEST = 0, 4
Token = tuple[str, Mapping[str, float]]  # of a reply, and the log-probabilities of the likeliest in its place
LEVEL = re.compile(r"\W*([0-4])\W*")  # a token that is a level, whatever quotes or brackets it has
LIKELY = 0.5  # that the token is any level at all
TAIL = 8192  # characters from the end that are read
NUMBER = r"[-+]?\d+(?:\.\d+)?"
OUT_OF = r"(?:[*_`\])]*\s*\(?\s*(?:/|out\s+of)\s*(\d+))?"
# Ends a number: no digit, no decimal, no range ("3-4", "3 or 4") may follow.
END = r"(?!\s*(?:[-\u2013\u2014~]|to|or|and)\s*\d)(?![.,]?\d)(?!\s*%)"
VALUE = re.compile(rf"[\s*_`\"'\[({{<]*({NUMBER}){OUT_OF}{END}", re.IGNORECASE)
GRADED = re.compile(rf"[\s*_`\"']*[a-z]+\s*[(\[]({NUMBER}){OUT_OF}[)\]]", re.IGNORECASE)  # Good (3)
RANGE = r"(?:\s*[(\[]\s*(?:0\s*(?:-|\u2013|to)\s*4|out\s+of\s+4)\s*[)\]])?"  # Score (0-4):
# "Score" and a colon, or as a heading with the number below. It opens a line or a sentence: "Shape score" is another.
MARK = re.compile(
    rf"(?:^[ \t>#*_`|-]*|[.!?;][ \t]+[*_`]*)(?:(?:the|my|final|overall)[ \t]+)*score\b{RANGE}[*_`]*"
    rf"(?:\s*[:\uff1a=][*_`]*|[ \t]*\n)",
    re.IGNORECASE | re.MULTILINE,
)
KEY = re.compile(r"[\"']score[\"']\s*:", re.IGNORECASE)


class Unclear(Exception):
    """A reply without one clear score from 0 to 4; the message says why, in a few words."""


def read_score(text: str) -> float:
    """The score that a reply ends on, 0 to 4. Raises Unclear.

    The last JSON object with a score counts, or else the last "Score:" that opens a line or a sentence. A line after
    the object must not contradict it.
    """
    text = text.rpartition("</think>")[2][-TAIL:]
    table, rest = _last_object(text)
    if KEY.search(rest):
        raise Unclear("broken JSON")
    scores = {score for score in (_value(table["score"]) if table else None, _from_marks(rest)) if score is not None}
    if not scores:
        raise Unclear("no score in the reply")
    if len(scores) > 1:
        raise Unclear("two scores that differ")
    return scores.pop()


def expected_score(text: str, tokens: Sequence[Token]) -> float:
    """The mean of the levels 0 to 4 by the probabilities of the token that states a reply's score. Raises Unclear.

    That token is the first level after the reply's last word "score", and must agree with ``read_score``. Other tokens
    in its place don't count, unless they are likelier than all levels together.
    """
    written = read_score(text)
    level, likeliest = _score_token(tokens)
    weights: dict[int, float] = defaultdict(float)
    for token, logarithm in likeliest.items():
        if other := LEVEL.fullmatch(token):
            weights[int(other[1])] += math.exp(min(logarithm, 0.0))
    total = sum(weights.values())
    if level != written or not total > LIKELY:
        raise Unclear("the token after the word score is no clear score")
    return sum(value * weight for value, weight in weights.items()) / total


def _score_token(tokens: Sequence[Token]) -> tuple[int, Mapping[str, float]]:
    """The level that it states, and the likeliest tokens in its place. Raises Unclear."""
    said, start = "".join(token for token, _ in tokens).lower().rfind("score"), 0
    for token, likeliest in tokens:
        if start >= said and (level := LEVEL.fullmatch(token)):
            return int(level[1]), likeliest
        start += len(token)
    raise Unclear("no token is the score")


def _last_object(text: str) -> tuple[dict[str, Any], str]:
    """The last JSON object that holds a score, and the text after it; {} and the whole text where there is none."""
    decoder, last, rest, at = json.JSONDecoder(object_pairs_hook=_table), {}, text, text.find("{")
    while at >= 0:
        after = at + 1
        try:
            table, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            table, end = {}, at
        if "score" in table:
            last, rest, after = table, text[end:], end
        at = text.find("{", after)
    return last, rest


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object with its keys in lower case."""
    scores = [value for key, value in pairs if key.lower() == "score"]
    if len(scores) > 1 and any(value != scores[0] for value in scores):
        raise Unclear("two scores that differ")
    return {key.lower(): value for key, value in pairs}


def _value(value: object) -> float:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return _number(value, 0, whole=True)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unclear("the score is no number")
    return _checked(value)


def _from_marks(text: str) -> float | None:
    marks = list(MARK.finditer(text))
    return _number(text, marks[-1].end()) if marks else None


def _number(text: str, at: int, *, whole: bool = False) -> float:
    """The number at ``at``, as ``3``, ``[3]``, ``3/4``, ``Good (3)``; ``whole``: nothing may follow it."""
    match = VALUE.match(text, at) or GRADED.match(text, at)
    if match is None:
        raise Unclear("no number after the word score")
    rest = text[match.end() :].strip() if whole else text[match.end() :].partition("\n")[0]
    if re.search(r"\d", rest) or (whole and rest.strip(".)]}>*\"' ")):
        raise Unclear("more than one number after the word score")
    if match[2] is not None and (len(match[2]) > 9 or int(match[2]) != HIGHEST):  # a judge may repeat a digit for ever
        raise Unclear("a score on another scale")
    return _checked(float(match[1]))


def _checked(score: float) -> float:
    if not LOWEST <= score <= HIGHEST:
        raise Unclear("a score out of range")
    return float(score)
