"""When the client asks again, how often, and what happens when nobody answers."""

from __future__ import annotations

import httpx
import pytest
from support.reward_server import connect
from support.tasks import TWO_BLACK, tasks

from cgrpo.errors import UserError
from cgrpo.rewards import FunctionReward
from cgrpo.rewards.remote.client import Transport
from cgrpo.rewards.remote.wire import Health

HEALTH = Health(ready=True, protocol=1, rewards={}, versions={}, max_body=1).model_dump_json()


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Sleeping takes no time but by this clock; the sleeps, in order."""
    sleeps: list[float] = []
    monkeypatch.setattr("time.sleep", sleeps.append)
    monkeypatch.setattr("time.monotonic", lambda: sum(sleeps))
    return sleeps


def transport(answers, patience: float = 60.0) -> Transport:
    """One whose server gives ``answers``, one after another: a status, or an exception."""
    made = Transport("reward 'x'", "http://nowhere.invalid", "", 1.0, patience)

    def handle(request: httpx.Request) -> httpx.Response:
        answer = next(answers)
        if isinstance(answer, int):
            return httpx.Response(answer, text=HEALTH if answer == 200 else '{"error": "no"}')
        raise answer

    made._http = httpx.Client(base_url="http://nowhere.invalid", transport=httpx.MockTransport(handle))
    return made


def forever(answer):
    while True:
        yield answer


@pytest.mark.parametrize(
    "trouble",
    [
        502,
        503,
        504,
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout(""),
        httpx.ReadTimeout(""),
        httpx.ReadError(""),
        httpx.RemoteProtocolError("cut off"),
    ],
)
def test_what_passes_is_asked_again(clock, capsys, trouble):
    made = transport(iter([trouble, trouble, 200]))
    assert isinstance(made.request("GET", "health", Health), Health)
    assert made.retries == 2 and clock == [0.5, 1.0]
    first, last = capsys.readouterr().err.splitlines()
    assert "retrying for 60 s" in first and "answers again" in last


def test_waits_grow_and_end_with_the_patience(clock):
    with pytest.raises(UserError, match=r"no answer for 60 s \(ConnectError: refused\).*--resume"):
        transport(forever(httpx.ConnectError("refused"))).request("GET", "health", Health)
    assert clock == [0.5, 1, 2, 4, 8, 15, 15, 14.5]
    del clock[:]
    with pytest.raises(UserError):
        transport(forever(503), patience=0).request("GET", "health", Health)
    assert clock == []


def test_the_patience_begins_anew_with_each_failure(clock):
    made = transport(iter([503] * 6 + [200] + [503] * 6 + [200]), patience=40)
    for _ in range(2):
        made.request("GET", "health", Health)
    assert sum(clock) == 2 * (0.5 + 1 + 2 + 4 + 8 + 15)


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 500])
def test_what_does_not_pass_stops_at_once(clock, status):
    made = transport(iter([status]))
    with pytest.raises(UserError, match="reward 'x': no"):
        made.request("GET", "health", Health)
    assert clock == [] and made.retries == 0


@pytest.mark.parametrize("on_failure", ["stop", "nan"])
def test_nobody_answers(serving, capsys, on_failure):
    calls = []

    def ones(pictures, batch):
        calls.append(len(pictures))
        return [1.0] * len(pictures)

    running = serving({"x": FunctionReward(ones, "prompt")})
    remote = connect(running.url, patience=0.2, on_failure=on_failure)
    images, batch = TWO_BLACK, tasks(prompts=["", ""])
    assert remote(images, batch).tolist() == [1, 1]
    running.stop()
    if on_failure == "stop":
        with pytest.raises(UserError, match=r"no answer for 0.2 s \(ConnectError"):
            remote(images, batch)
    else:
        assert remote(images, batch).isnan().all()
        assert "2 pictures are not scored" in capsys.readouterr().err
        serving({"x": FunctionReward(ones, "prompt")}, running.port)
        assert remote(images, batch).tolist() == [1, 1]
        assert remote.report() == {"retries": 1.0}
        assert calls == [2, 2]


def test_a_server_that_was_never_there_is_a_mistake():
    with pytest.raises(UserError, match=r"^reward 'mine' at http://127.0.0.1:9: no answer for 0 s"):
        connect("http://127.0.0.1:9", patience=0, on_failure="nan")
