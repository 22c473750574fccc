"""One round of questions: many at a time, with retries, within the budget; and how one request can end."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal, NamedTuple, Protocol

from PIL.Image import Image

from cgrpo.errors import UserError
from cgrpo.rewards.vlm import VlmSettings
from cgrpo.rewards.vlm.cache import Judgement
from cgrpo.rewards.vlm.replies import Token, Unclear, expected_score, read_score
from cgrpo.rewards.vlm.rubrics import Part, data_url, message

LONGEST_PAUSE = 60.0  # seconds between two attempts, unless the endpoint asks for more
TAKEN_FOR_BROKEN = 8  # requests that the endpoint won't take, before any was judged
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
    """A chat completion: its text, whether it was refused or cut off, its bill where it says so, and its tokens where
    their probabilities were asked for and given."""

    text: str
    refused: bool = False
    cut: bool = False
    usage: Usage | None = None
    tokens: tuple[Token, ...] = ()


class Retryable(Exception):
    """The attempt failed, another may not; the message says why.

    ``wait``: seconds that the endpoint asks for. ``billed``: the call may be billed all the same.
    """

    def __init__(self, reason: str, *, wait: float = 0.0, billed: bool = False, refused: bool = False):
        super().__init__(clipped(reason))
        self.wait, self.billed, self.refused = wait, billed, refused


class Rejected(Exception):
    """The endpoint won't take this request, however often it is sent."""


def clipped(text: str) -> str:
    """One short line."""
    return " ".join(text.split())[:200]


class Client(Protocol):
    async def ask(self, content: list[dict[str, Any]], seed: int) -> Reply: ...


class Stopped(Exception):
    """Another question has ended the round."""


class Round:
    """Questions by key -> judgements by key; None where the attempts ran out. Lives in one event loop.

    ``finished`` is called as soon as a judgement stands. ``proven``: whether the endpoint has judged anything yet.
    ``reasons`` collects why attempts ran out. The first UserError, such as the end of the budget, ends the round: no
    other request is begun, those under way are finished and kept, then it is raised.
    """

    def __init__(
        self,
        endpoint: Client,
        settings: VlmSettings,
        ledger: Ledger,
        finished: Callable[[str, Judgement], None],
        proven: bool = False,
    ):
        self.endpoint, self.settings, self.ledger = endpoint, settings, ledger
        self.finished, self.proven = finished, proven
        self.reasons: list[str] = []
        self._results: dict[str, Judgement | None] = {}
        self._in_flight = 0
        self._rejected = 0
        self._not_before = 0.0  # until when an endpoint that is too busy wants no request at all
        self._change, self._stop = asyncio.Condition(), asyncio.Event()
        self._encoding = Lock()
        self._shared: dict[int, str] = {}  # data URLs, by id, of pictures that stand in several questions

    async def judge(self, questions: Mapping[str, tuple[Part, ...]]) -> dict[str, Judgement | None]:
        waiting, errors = iter(questions.items()), []
        count = Counter(id(part) for parts in questions.values() for part in parts if not isinstance(part, str))
        self._shared = {at: "" for at, times in count.items() if times > 1}
        count = min(self.settings.concurrency, len(questions))
        await asyncio.gather(*(self._work(waiting, errors) for _ in range(count)))
        if self._rejected and self._rejected == len(questions) and not self.proven:
            errors.append(self._broken())
        if errors:
            raise errors[0]
        return self._results

    async def _work(self, waiting: Iterator[tuple[str, tuple[Part, ...]]], errors: list[Exception]) -> None:
        """Take one question after another from what all workers share."""
        for key, parts in waiting:
            try:
                self._results[key] = await self._judge_one(key, parts)
            except Stopped:
                return
            except Exception as error:
                errors.append(error)
                self._stop.set()
                async with self._change:
                    self._change.notify_all()
                return

    async def _judge_one(self, key: str, parts: tuple[Part, ...]) -> Judgement | None:
        settings = self.settings
        content = await asyncio.to_thread(message, parts, self._encoded)
        guess, ready, refusals, unusable, reason = self._guess(parts), 0.0, 0, 0, ""
        for attempt in range(settings.attempts):
            try:
                # Another seed after a reply of no use: at temperature 0 the same seed would give the same reply.
                reply = await self._attempt(content, settings.seed + unusable, guess, ready)
                unusable += 1
                if reply.refused:
                    raise Retryable("refused by the judge", refused=True)
                if reply.cut:
                    raise Retryable(f"a reply cut off at max_tokens ({settings.max_tokens})")
                judgement = Judgement(self._score(reply), reply.text)
            except Rejected as error:
                self._rejected += 1
                self.reasons.append(str(error))
                if not self.proven and self._rejected >= TAKEN_FOR_BROKEN:
                    raise self._broken() from None
                return None
            except (Retryable, Unclear) as error:
                reason, wait = str(error), error.wait if isinstance(error, Retryable) else 0.0
                now, pause = _now(), min(LONGEST_PAUSE, settings.backoff * 2**attempt) * random.uniform(0.5, 1)
                ready = now + pause
                if wait:
                    self._not_before = max(self._not_before, now + wait)
                refusals += isinstance(error, Retryable) and error.refused
                if refusals >= settings.refusals:
                    return self._finish(key, Judgement(math.nan, reason))
            else:
                self.proven = True
                return self._finish(key, judgement)
        self.reasons.append(reason)
        return None

    def _score(self, reply: Reply) -> float:
        """Raises Unclear, and UserError where the endpoint gives no probabilities."""
        if self.settings.scoring == "text":
            return read_score(reply.text)
        if not reply.tokens:
            where = f"vlm judge {self.settings.model}: the endpoint gives no logprobs"
            raise UserError(where, 'set scoring = "text"')
        return expected_score(reply.text, reply.tokens)

    def _encoded(self, picture: Image) -> str:
        """The picture as a data URL, made once where several questions show it: references, which all samples share."""
        if id(picture) not in self._shared:
            return data_url(picture)
        with self._encoding:  # several threads ask for it at once
            if not self._shared[id(picture)]:
                self._shared[id(picture)] = data_url(picture)
            return self._shared[id(picture)]

    def _finish(self, key: str, judgement: Judgement) -> Judgement:
        self.finished(key, judgement)
        return judgement

    async def _attempt(self, content: list[dict[str, Any]], seed: int, guess: Usage, ready: float) -> Reply:
        await self._enter(guess, ready)
        try:
            reply = await self.endpoint.ask(content, seed)
            self.ledger.charge(reply.usage, guess)
            return reply
        except Retryable as error:
            if error.billed:
                self.ledger.charge(None, guess)
            raise
        finally:
            self._in_flight -= 1
            async with self._change:
                self._change.notify_all()

    async def _enter(self, guess: Usage, ready: float) -> None:
        """Wait until a request may be sent. Raises Stopped, and UserError where the budget allows none."""
        while (delay := max(ready, self._not_before) - _now()) > 0 and not self._stop.is_set():
            # Those whom the endpoint's limit held up come back one after another.
            spread = random.uniform(0, self.settings.backoff / 4)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), delay + spread)
        async with self._change:
            while not self._stop.is_set():
                room = self.ledger.room(self._in_flight, guess)
                if room == "yes":
                    self._in_flight += 1
                    return
                if room == "no":
                    raise self._spent()
                await self._change.wait()
        raise Stopped

    def _guess(self, parts: tuple[Part, ...]) -> Usage:
        words = sum(len(part) for part in parts if isinstance(part, str)) // 3
        pictures = sum(not isinstance(part, str) for part in parts)
        return Usage(words + PICTURE_TOKENS * pictures, self.settings.max_tokens)

    def _spent(self) -> UserError:
        ledger, settings = self.ledger, self.settings
        kept = f"stay in {settings.cache}, free of charge" if settings.cache else "are lost: cache is off"
        return UserError(
            f"vlm judge {settings.model}: the budget is used up: {ledger.cost:.4f} spent on {ledger.input} input and "
            f"{ledger.output} output tokens by this process; run again (training: with --resume) to spend as much "
            f"once more; finished judgements {kept}"
        )

    def _broken(self) -> UserError:
        return UserError(f"vlm judge {self.settings.model}: the endpoint takes no request: {self.reasons[-1]}")


def _now() -> float:
    return asyncio.get_running_loop().time()
