"""The held-out guard: is a run hacking its rewards, and which of its states was the best?"""

from cgrpo.evaluation.guard.check import Guard, untouched
from cgrpo.evaluation.guard.rules import best_in_words, best_row, exhausted, gains, news, stopped_in_words, warnings

__all__ = [
    "Guard",
    "best_in_words",
    "best_row",
    "exhausted",
    "gains",
    "news",
    "stopped_in_words",
    "untouched",
    "warnings",
]
