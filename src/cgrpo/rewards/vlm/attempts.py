"""How one request to the judge can end, what it costs, and whether another call fits the budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

PICTURE_TOKENS = 1500  # a guess for one picture, until an endpoint has told what it counts
Room = Literal["yes", "wait", "no"]


class Usage(NamedTuple):
    """Tokens of one call."""

    input: int
    output: int


@dataclass
class Ledger:
    """Prices are per million tokens; ``budget`` (in their currency) and ``token_budget`` limit the sum, 0 is no limit.

    A call is let in only if it fits the budget beside those in flight, each taken to be as dear as the dearest so far.
    Before the first bill a guess stands in, and then one call at a time is let in even if the guess does not fit.
    """

    input_price: float = 0.0
    output_price: float = 0.0
    budget: float = 0.0
    token_budget: int = 0
    input: int = 0
    output: int = 0
    dearest: Usage | None = None

    @property
    def cost(self) -> float:
        return self.price(Usage(self.input, self.output))

    def price(self, usage: Usage) -> float:
        return (usage.input * self.input_price + usage.output * self.output_price) / 1e6

    def room(self, in_flight: int, guess: Usage) -> Room:
        """Whether one more call may start: "wait" for those in flight to end, "no" for good."""
        call = self.dearest or guess
        limits = [(self.budget, self.cost, self.price(call)), (self.token_budget, self.input + self.output, sum(call))]
        answer: Room = "yes"
        for limit, spent, each in limits:
            if limit and (spent >= limit or (self.dearest and spent + each > limit)):
                return "no"
            if limit and in_flight and spent + (in_flight + 1) * each > limit:
                answer = "wait"
        return answer

    def charge(self, usage: Usage | None, guess: Usage) -> None:
        """Book a call; None: it may well be billed, but the bill is unknown, so the dearest so far or the guess is."""
        if usage is None:
            usage = self.dearest or guess
        else:
            old = self.dearest or Usage(0, 0)
            self.dearest = Usage(max(old.input, usage.input), max(old.output, usage.output))
        self.input += usage.input
        self.output += usage.output


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
