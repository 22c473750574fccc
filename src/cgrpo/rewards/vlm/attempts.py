"""How one request to the judge can end."""

from __future__ import annotations

from dataclasses import dataclass

from cgrpo.rewards.vlm.ledger import Usage


@dataclass(frozen=True)
class Reply:
    """A chat completion: its text, whether it was refused or cut off, and its bill where it says so."""

    text: str
    refused: bool = False
    cut: bool = False
    usage: Usage | None = None


class Again(Exception):
    """The attempt failed, another may not; the message says why.

    ``wait``: seconds that the endpoint asks for. ``billed``: the call may be billed all the same.
    """

    def __init__(self, reason: str, *, wait: float = 0.0, billed: bool = False, refused: bool = False):
        super().__init__(clipped(reason))
        self.wait, self.billed, self.refused = wait, billed, refused


class Hopeless(Exception):
    """The endpoint won't take this request, however often it is sent."""


def clipped(text: str) -> str:
    """One short line."""
    return " ".join(text.split())[:200]
