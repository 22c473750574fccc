"""One request to an OpenAI-compatible endpoint: bounded in time and size, and the key in no message.

Imported only where a judge is made: openai is an extra.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from cgrpo.errors import UserError
from cgrpo.rewards.network import is_local, set_up
from cgrpo.rewards.vlm import VlmSettings
from cgrpo.rewards.vlm.replies import Token
from cgrpo.rewards.vlm.rounds import Rejected, Reply, Retryable, Usage, clipped
from cgrpo.rewards.vlm.rubrics import RESPONSE_FORMATS

OPENAI = "https://api.openai.com/v1"
LARGEST = 1 << 20  # bytes of a reply; a judgement takes a few thousand
LONGEST_WAIT = 600.0  # seconds; an endpoint that asks for more has its daily limit reached
BUSY = {408, 409, 425, 429}
TOP = 20  # likeliest tokens, the most that OpenAI and, by default, vLLM give
MOST_TOKENS = 10**9  # of a request; what says more does not count tokens


class Endpoint:
    """The endpoint that the settings name, within one event loop.

    ``dropped`` holds the parameters that the model was found to refuse; it outlives the endpoint.
    """

    def __init__(self, settings: VlmSettings, key: str, dropped: set[str]):
        self.settings, self.dropped, self._key = settings, dropped, key
        local = is_local(urlsplit(settings.base_url or OPENAI).hostname or "")
        with set_up(f"vlm judge {settings.model}"):
            http = openai.DefaultAsyncHttpxClient(
                trust_env=not local,  # no proxy before this machine
                follow_redirects=False,  # pictures and key go to the named endpoint alone
                headers={"Accept-Encoding": "identity"},  # the size limit counts what arrives
                event_hooks={"response": [_bounded]},
            )
        self._client = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=settings.base_url or OPENAI,
            timeout=settings.timeout,
            max_retries=0,  # the judge's own retries also cover what arrives whole and is still of no use
            http_client=http,
        )

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def ask(self, content: list[dict[str, Any]], seed: int) -> Reply:
        """One reply. Raises Retryable, Rejected, or UserError for what no other attempt can fix.

        A parameter that the model refuses is left out from then on; that request does not count as an attempt.
        """
        while True:
            sent = self._parameters(seed)
            body = {"model": self.settings.model, "messages": [{"role": "user", "content": content}], **sent}
            try:
                async with asyncio.timeout(self.settings.timeout):  # in all, not for each piece of a reply
                    response = await self._client.post("/chat/completions", cast_to=httpx2.Response, body=body)
            except (TimeoutError, openai.APITimeoutError) as error:
                unsent = isinstance(error.__cause__, httpx2.ConnectTimeout | httpx2.PoolTimeout)
                raise Retryable(f"no whole reply within {self.settings.timeout:g} s", billed=not unsent) from None
            except openai.APIStatusError as error:
                self._raise_for_status(error, sent)
            except openai.APIConnectionError as error:
                unsent = isinstance(error.__cause__, httpx2.ConnectError)
                raise Retryable(self._scrub(f"connection failed: {error.__cause__}"), billed=not unsent) from None
            else:
                return self._read(response.text)

    def _parameters(self, seed: int) -> dict[str, Any]:
        wanted = {"temperature": self.settings.temperature, "seed": seed, "max_tokens": self.settings.max_tokens}
        sent: dict[str, Any] = {name: value for name, value in wanted.items() if name not in self.dropped}
        if "max_tokens" in self.dropped:
            sent["max_completion_tokens"] = self.settings.max_tokens
        if self.settings.scoring == "logits":
            sent |= {"logprobs": True, "top_logprobs": TOP}
        form = RESPONSE_FORMATS[self.settings.format]
        return sent if form is None else sent | {"response_format": form}

    def _raise_for_status(self, error: openai.APIStatusError, sent: Mapping[str, Any]) -> None:
        """Returns where another request without a refused parameter may do; raises otherwise."""
        status, settings, text = error.status_code, self.settings, self._scrub(error.response.text)
        if status == 429 and "insufficient_quota" in text:
            raise UserError(f"vlm judge {settings.model}: the account's quota is used up; raise it, then go on")
        if status in BUSY or status >= 500:
            raise Retryable(f"status {status}", wait=retry_after(error.response.headers))
        if status == 401:
            raise UserError(
                f"vlm judge {settings.model}: the endpoint refused the key (status 401); check the environment "
                f"variable {settings.key_variable or '(key_variable is empty)'}"
            )
        if status in (402, 403, 404) or status < 400:
            raise UserError(
                f"vlm judge {settings.model}: status {status} from {settings.base_url or OPENAI} ({clipped(text)}); "
                "check model, base_url and the account"
            )
        if re.search(r"content_(filter|policy)", text):
            raise Retryable("refused by the endpoint's filter", refused=True)
        for name in ("temperature", "seed", "max_tokens"):
            if name in sent and (error.param == name or re.search(rf"\b{name}\b", text)):
                self.dropped.add(name)
                return
        cure = "; choose another format" if re.search(r"response_format|json_schema|json_object", text) else ""
        cure = '; set scoring = "text"' if "logprobs" in text else cure
        raise Rejected(f"status {status} ({clipped(text)}){cure}")

    def _read(self, text: str) -> Reply:
        try:
            table = json.loads(text)
            if message := _error_in(table):  # some endpoints wrap a failure in status 200
                raise Retryable(f"the endpoint says: {self._scrub(message)}")
            choice = table["choices"][0]
            message = choice["message"]
            content, refusal, finish = message.get("content"), message.get("refusal"), choice.get("finish_reason")
            tokens = _tokens(choice.get("logprobs")) if self.settings.scoring == "logits" else ()
            reasoning_only = not content and bool(message.get("reasoning_content") or message.get("reasoning"))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise Retryable("a reply that is no chat completion", billed=True) from None
        if reasoning_only and finish != "length" and not refusal:
            raise Retryable("a reply of thoughts alone (reasoning_content), without content", billed=True)
        return Reply(
            text=self._scrub(_text(content)),
            refused=bool(refusal) or finish == "content_filter",
            cut=finish == "length",
            usage=_usage(table.get("usage")),
            tokens=tokens,
        )

    def _scrub(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _text(content: object) -> str:
    """A message's content: a text, or a list of parts, of which the texts count."""
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, dict) else part for part in content]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _tokens(logprobs: Any) -> tuple[Token, ...]:
    """A reply's tokens and the log-probabilities of the likeliest in the place of each; () where they aren't given."""
    rows = (logprobs or {}).get("content") or ()
    return tuple((row["token"], {one["token"]: float(one["logprob"]) for one in row["top_logprobs"]}) for row in rows)


def _error_in(table: dict[str, Any]) -> str:
    """What a reply without choices says went wrong; "" where it says nothing."""
    error = None if table.get("choices") else table.get("error")
    message = error.get("message") or error.get("code") if isinstance(error, dict) else error
    return str(message) if message else ""


def _usage(table: object) -> Usage | None:
    counts = [table.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(table, dict) else []
    if len(counts) == 2 and all(type(count) is int and 0 <= count <= MOST_TOKENS for count in counts):
        return Usage(*counts)  # pyright: ignore[reportArgumentType]
    return None


async def _bounded(response: httpx2.Response) -> None:
    """A response hook: reading stops at the size limit, whatever the status."""
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) > LARGEST:
        raise TooLarge
    response.stream = _Bounded(response.stream)  # pyright: ignore[reportArgumentType]
    if response.headers.get("content-encoding", "identity") != "identity":
        raise Retryable("a compressed reply, which was not asked for", billed=True)


class TooLarge(Retryable):
    def __init__(self) -> None:
        super().__init__(f"a reply of more than {LARGEST} bytes", billed=True)


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream):
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._stream:
            size += len(piece)
            if size > LARGEST:
                raise TooLarge
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float:
    """Seconds that an endpoint asks to wait (a number or a date), 0 if it does not say. UserError where it is long."""
    given, milliseconds = headers.get("retry-after", ""), headers.get("retry-after-ms", "")
    try:
        seconds = float(milliseconds) / 1000 if milliseconds else float(given)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(given).timestamp() - (time.time() if now is None else now)
        except (ValueError, OverflowError):
            seconds = 0.0
    if seconds > LONGEST_WAIT:
        raise UserError(f"the vlm judge's endpoint asks to wait for {seconds:.0f} s; go on when its limit is lifted")
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
