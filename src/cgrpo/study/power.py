"""How many answers a study needs, before anyone is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from scipy import stats

WITHIN = 0.3  # correlation of two raters' answers to an item, assumed until a study has measured it
POWER, LEVEL = 0.8, 0.05
MOST = 8  # raters an item


def item_variance(wins: float, ties: float, raters: int, within: float = WITHIN) -> float:
    """Variance of an item's mean score (win 1, tie 1/2, loss 0) over items, ``raters`` answers each.

    ``wins``: share of wins among answers that are no tie; ``ties``: share of ties; ``within``: correlation of two
    raters' answers to the same item.
    """
    decided = 1 - ties
    one = decided * (wins * (1 - wins) + (wins - 0.5) ** 2) - (decided * (wins - 0.5)) ** 2
    return one * (1 + (raters - 1) * within) / raters


def items_needed(
    wins: float = 0.55, raters: int = 3, ties: float = 0.0, within: float = WITHIN, power: float = POWER
) -> int:
    """Items at which a two-sided test at 5 % finds a win share of ``wins`` : 1 - ``wins`` with ``power``."""
    effect = (1 - ties) * abs(wins - 0.5)
    chance, found = (math.sqrt(item_variance(share, ties, raters, within)) for share in (0.5, wins))
    return math.ceil(((stats.norm.ppf(1 - LEVEL / 2) * chance + stats.norm.ppf(power) * found) / effect) ** 2)


def detectable(items: int, raters: int, ties: float = 0.0, within: float = WITHIN) -> float:
    """The share of wins, above one half, that ``items`` find with 80 % power; 1.0 where not even that is found."""
    low, high = 0.5, 1.0
    if items_needed(high - 1e-9, raters, ties, within) > items:
        return 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if items_needed(middle, raters, ties, within) <= items else (middle, high)
    return high


def power_table(items: int, raters: int) -> dict[str, Any]:
    """What ``create`` says: items that 55 : 45 takes by raters an item, and what this study can tell apart."""
    found = detectable(items, raters)
    return {
        "assumed": {"correlation of two raters within an item": WITHIN, "power": POWER, "level": LEVEL, "ties": 0.0},
        "items for 55 : 45, by raters per item": {str(r): items_needed(0.55, r) for r in range(1, MOST + 1)},
        "items": items,
        "raters per item": raters,
        "tells apart": [round(100 * found, 1), round(100 * (1 - found), 1)],
    }


def power_line(table: dict[str, Any]) -> str:
    """One sentence for a person."""
    needed = table["items for 55 : 45, by raters per item"]
    high, low = table["tells apart"]
    shown: Sequence[str] = [f"{needed[r]} items at {r}" for r in ("1", "3", "8")]
    return (
        f"power 80 %: {table['items']} items x {table['raters per item']} raters tell {high:g} : {low:g} apart; "
        f"55 : 45 takes {', '.join(shown)} raters an item (no ties, correlation {WITHIN:g} within an item)"
    )
