"""The part that a reward plays in an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cgrpo.rewards import Reward

Role = Literal["reward", "judge", "guard"]


@dataclass(frozen=True)
class Scorer:
    """A reward trained on, a judge that never is, or a guard that watches for a shortcut."""

    role: Role
    score: Reward
