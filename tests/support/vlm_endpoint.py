"""A chat-completions endpoint on this machine that misbehaves as it is told; and pictures it can tell apart."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import selectors
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cgrpo.rewards.vlm import VlmSettings
from cgrpo.types import Batch

KEY = "sk-secret-4f1d2c3b4a59687"
INPUT, OUTPUT = 1000, 100  # tokens billed for each reply
STORM = {"Retry-After": "0.1"}


def pictures(count: int) -> Tensor:
    """uint8 [count, 8, 8, 3], each of its own colour."""
    index_N = torch.arange(count)
    colours_N3 = torch.stack([index_N % 256, index_N // 256, torch.full_like(index_N, 7)], -1)
    return colours_N3.to(torch.uint8)[:, None, None].expand(-1, 8, 8, -1).contiguous()


def tasks(count: int) -> Batch:
    reference = Image.new("RGB", (8, 8), (9, 9, 200))
    names = tuple(str(row) for row in range(count))
    return Batch(names, tuple(f"a toy numbered {name}" for name in names), ((reference,),) * count, ("toy",) * count)


def index_of(request: dict[str, Any]) -> int:
    """The number of the generated picture in a request."""
    urls = [part["image_url"]["url"] for part in request["messages"][0]["content"] if part["type"] == "image_url"]
    red, green, _ = read_url(urls[-1]).getpixel((0, 0))  # pyright: ignore
    return red + 256 * green


def read_url(url: str) -> Image.Image:
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


class _Turns(selectors.DefaultSelector):
    """``now`` counts the seconds spent waiting, at most 20 ms for each turn of the loop."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        began = time.monotonic()
        ready = super().select(0.02 if timeout is None else min(timeout, 0.02))
        self.now += min(time.monotonic() - began, 0.02)
        return ready


class UnhurriedLoop(asyncio.SelectorEventLoop):
    """An event loop whose timeouts count its own waiting alone: a busy machine is not taken for a late reply."""

    def __init__(self) -> None:
        self._turns = _Turns()
        super().__init__(self._turns)

    def time(self) -> float:
        return self._turns.now


class Endpoint:
    """``behave(index, attempt, request)`` names what happens; attempts of a picture count from 0."""

    def __init__(self, behave: Callable[[int, int, dict[str, Any]], str]):
        self.behave = behave
        self.requests: list[dict[str, Any]] = []
        self.asked: Counter[int] = Counter()
        self.did: Counter[str] = Counter()
        self.paths: set[str] = set()
        self.times: list[float] = []
        self.most_at_once = self.now = self.sent = 0
        self.lock, self.closing = threading.Lock(), threading.Event()
        self.url = ""

    def enter(self, path: str, request: dict[str, Any]) -> tuple[int, str]:
        index = index_of(request)
        with self.lock:
            action = self.behave(index, self.asked[index], request)
            self.paths.add(path)
            self.requests.append(request)
            self.times.append(time.monotonic())
            self.asked[index] += 1
            self.did[action] += 1
            self.now += 1
            self.most_at_once = max(self.most_at_once, self.now)
        return index, action


@contextmanager
def serving(behave: Callable[[int, int, dict[str, Any]], str]) -> Iterator[Endpoint]:
    endpoint = Endpoint(behave)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            index, action = endpoint.enter(self.path, request)
            try:
                act(self, endpoint, index, action)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            finally:
                with endpoint.lock:
                    endpoint.now -= 1

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield endpoint
        finally:
            endpoint.closing.set()
            server.shutdown()
            thread.join()


def completion(content: str | list[Any] | None, **said: Any) -> bytes:
    choice = {"index": 0, "finish_reason": said.pop("finish_reason", "stop"), "logprobs": said.pop("logprobs", None)}
    message = {"role": "assistant", "content": content, "refusal": said.pop("refusal", None)}
    usage = {"prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}
    table = {"id": "x", "object": "chat.completion", "created": 0, "model": "judge", "usage": usage, **said}
    return json.dumps(table | {"choices": [choice | {"message": message}]}).encode()


def good(index: int) -> str:
    return json.dumps({"reason": "the first score: 1", "score": index % 5})


def logits(levels: dict[str, float], score: str = "") -> bytes:
    """A reply with tokens: a score from ``levels`` by their probabilities, the likeliest where none is named."""
    score = score or max(levels, key=lambda level: levels[level])
    tokens = ['{"reason": "no ', "score", " of ", "1", '", "', "score", '": ', score, "}"]
    certain = [{"token": token, "logprob": 0.0, "top_logprobs": [{"token": token, "logprob": 0.0}]} for token in tokens]
    certain[-2]["top_logprobs"] = [{"token": token, "logprob": math.log(p)} for token, p in levels.items()]
    return completion("".join(tokens), logprobs={"content": certain})


def act(handler: BaseHTTPRequestHandler, endpoint: Endpoint, index: int, action: str) -> None:
    def answer(body: bytes, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        for at in range(0, len(body), 1 << 16):
            handler.wfile.write(body[at : at + (1 << 16)])
            endpoint.sent += len(body[at : at + (1 << 16)])

    def error(status: int, message: str, **headers: str) -> None:
        answer(json.dumps({"error": {"message": message, "type": "t", "param": None}}).encode(), status, **headers)

    match action.partition(" ")[0]:
        case "good":
            answer(completion(good(index)))
        case "slow":
            time.sleep(float(action.split()[1]))
            answer(completion(good(index)))
        case "say":
            answer(completion(action.partition(" ")[2]))
        case "logits":  # "logits 3:0.6 4:0.4"
            pairs = [pair.rpartition(":") for pair in action.split()[1:]]
            answer(logits({level: float(share) for level, _, share in pairs}))
        case "echo":  # the key, where it should never be seen again
            answer(completion(f"{handler.headers['Authorization']}\nScore: {index % 5}"))
        case "status":
            status, *rest = action.split(" ", 2)[1:]
            error(int(status), " ".join(rest) or f"you sent {handler.headers['Authorization']}")
        case "storm":  # "storm N": when N of them are in
            while endpoint.did[action] < int(action.partition(" ")[2] or 1) and not endpoint.closing.wait(0.002):
                pass
            error(429, "slow down", **STORM)
        case "stall":
            endpoint.closing.wait(5)
        case "drip":
            body = completion(good(index))
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            for byte in body:
                if endpoint.closing.wait(0.05):
                    return
                handler.wfile.write(bytes([byte]))
        case "cut":  # the connection ends inside the body
            body = completion(good(index))
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body[:40])
            handler.close_connection = True
        case "truncated":
            answer(completion(f"Score: {(index + 1) % 5}", finish_reason="length"))
        case "html":
            answer(b"<html>Bad gateway</html>", kind="text/html")
        case "parts":  # a reply's content as parts, some of them no text
            text = good(index)
            answer(completion([{"type": "reasoning", "text": None}, {"type": "text", "text": text[:9]}, text[9:]]))
        case "thoughts":
            table = json.loads(completion(None))
            table["choices"][0]["message"]["reasoning_content"] = "Score: 1"
            answer(json.dumps(table).encode())
        case "wrapped":  # an error inside a 200
            answer(json.dumps({"choices": None, "error": {"message": action.partition(" ")[2], "code": 502}}).encode())
        case "list":
            answer(b"[1, 2]")
        case "refuse":
            answer(completion(None, refusal="I can't judge that."))
        case "filter":
            error(400, "content_policy_violation")
        case "range":
            answer(completion('{"reason": "wonderful", "score": 9}'))
        case "redirect":
            answer(b"{}", 307, Location=endpoint.url + "/elsewhere")
        case "huge":
            answer(completion("x" * 3_000_000))
        case "flood":
            handler.send_response(int(action.split()[1]))
            handler.send_header("Connection", "close")
            handler.end_headers()
            for _ in range(1000):  # 64 MB, of which the sockets hold some
                handler.wfile.write(b" " * (1 << 16))
                endpoint.sent += 1 << 16
            handler.close_connection = True
        case _:
            raise AssertionError(action)


def settings(endpoint: Endpoint | str, cache: object = "", **given: Any) -> VlmSettings:
    """Impatient, for tests."""
    url = endpoint if isinstance(endpoint, str) else endpoint.url
    base = {"task": "prompt", "model": "judge", "base_url": url, "key_variable": "TEST_VLM_KEY", "cache": str(cache)}
    return VlmSettings(**base | {"timeout": 5.0, "backoff": 0.02, "attempts": 4} | given)
