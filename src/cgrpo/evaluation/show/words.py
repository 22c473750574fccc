"""Numbers, intervals and verdicts as they are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from cgrpo.files import to_float

DASH, MINUS, TIMES = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def number(value: Any, digits: int = 3, signed: bool = False) -> str:
    """A number for reading, with a true minus sign; a dash for None, NaN and what is no number."""
    if not math.isfinite(to_float(value)):
        return DASH
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", MINUS)


def interval(low: Any, high: Any, digits: int = 3, signed: bool = True) -> str:
    return f"{number(low, digits, signed)} to {number(high, digits, signed)}"


def p_value(p: float) -> str:
    return number(p) if not p < 0.001 else "< 0.001"


def sentence(words: str) -> str:
    """With a capital and a full stop."""
    return f"{words[:1].upper()}{words[1:]}."


@dataclass(frozen=True)
class Verdict:
    """One sentence, and whether it is good news; it stands at the head of a page."""

    kind: Literal["rose", "mixed", "unknown"]
    text: str

    def __html__(self) -> str:
        return Markup('<p class="verdict {}">{}</p>').format(self.kind, self.text)
