"""Many judgements at an endpoint in a bad state: none lost, none silently 0, none paid for twice, none over budget."""

import asyncio
import json
import logging
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.vlm_endpoint import INPUT, KEY, UnhurriedLoop, pictures, serving, settings, tasks

from cgrpo.errors import UserError
from cgrpo.rewards.vlm import VlmSettings
from cgrpo.rewards.vlm.cache import Judgement, JudgementCache
from cgrpo.rewards.vlm.judge import VlmJudge
from cgrpo.rewards.vlm.rounds import Ledger, Usage

PRICES = {"input_price": 1.0, "output_price": 10.0}  # a reply: 1000 + 100 tokens, 0.002
REPLY = 0.002
COUNT = 500
FAULTS = ["storm", "status 500", "stall", "truncated", "html", "refuse", "range", "huge", "drip", "cut", "flood 200"]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_VLM_KEY", KEY)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def bad_state(index: int, attempt: int, request: dict[str, Any]) -> str:
    """Of 25 pictures one is always refused, one never gets a usable reply; others see up to two faults first."""
    if index % 25 in (7, 8):
        return "refuse" if index % 25 == 7 else ("html", "status 503", "range")[attempt % 3]
    return FAULTS[(3 * index + 5 * attempt) % len(FAULTS)] if attempt < index % 3 else "good"


def test_five_hundred(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.events, "new_event_loop", UnhurriedLoop)
    caplog.set_level(logging.INFO)
    expected = [math.nan if index % 25 in (7, 8) else index % 5 for index in range(COUNT)]
    batch, images_NHWC = tasks(COUNT), pictures(COUNT)
    with serving(bad_state) as endpoint:
        chosen = settings(endpoint, tmp_path, concurrency=48, timeout=0.8, attempts=6, **PRICES)
        judge = VlmJudge(chosen)
        start = time.monotonic()
        assert str(judge(images_NHWC, batch).tolist()) == str([float(score) for score in expected])
        took, asked, did = time.monotonic() - start, sum(endpoint.asked.values()), dict(endpoint.did)
        assert set(FAULTS) <= set(did)
        assert max(endpoint.asked.values()) <= 6
        assert endpoint.most_at_once <= 2 * 48  # the endpoint may still be at requests that timed out
        report = judge.report()
        assert (report["given_up"], report["refused"], report["cached"]) == (20 / COUNT, 20 / COUNT, 0)
        told = sum(did[action] for action in ("good", "truncated", "refuse", "range"))
        assert report["input_tokens"] >= told * INPUT and report["cost"] >= told * REPLY * 0.999
        print(f"{COUNT} judgements, {asked} requests, {took:.1f} s, {did}, {report}")

        # A second run pays for what was given up alone.
        endpoint.asked.clear()
        again = VlmJudge(chosen)
        assert str(again(images_NHWC, batch).tolist()) == str([float(score) for score in expected])
        assert {index % 25 for index in endpoint.asked} == {8} and len(endpoint.asked) == 20
        assert again.report()["cached"] == 480 / COUNT
    assert KEY not in caplog.text
    assert not any(KEY in path.read_text() for path in tmp_path.rglob("*.json"))
    assert len(list(tmp_path.rglob("*.json"))) == 480 and not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("limit", [{"budget": 0.1, **PRICES}, {"token_budget": 55_000}])
def test_budget(limit: dict[str, Any], tmp_path: Path) -> None:
    """Both limits pay for 50 replies, of which 2 in 5 are of no use."""
    with serving(lambda index, attempt, request: "good" if attempt or index % 3 else "truncated") as endpoint:
        chosen = settings(endpoint, tmp_path, concurrency=8, **limit)
        judge = VlmJudge(chosen)
        with pytest.raises(UserError, match=r"budget is used up: .* spent on 5\d000 input and 5\d00 output") as caught:
            judge(pictures(120), tasks(120))
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
        assert len(endpoint.requests) == 50  # not one too many, not one too few
        assert len(list(tmp_path.rglob("*.json"))) == endpoint.did["good"]  # all that was paid for is kept
        with pytest.raises(UserError, match="budget is used up"):
            judge(pictures(120), tasks(120))
        assert len(endpoint.requests) == 50
        while True:  # each further start has the budget anew and goes on where the last one stopped
            try:
                made = VlmJudge(chosen)(pictures(120), tasks(120))
                break
            except UserError:
                assert len(endpoint.requests) < 300
        assert made.tolist() == [index % 5 for index in range(120)]
        assert endpoint.did["good"] == 120


def test_budget_counts_what_is_perhaps_billed(tmp_path: Path) -> None:
    with serving(lambda index, attempt, request: "good" if index < 4 else "html") as endpoint:
        judge = VlmJudge(settings(endpoint, tmp_path, concurrency=1, budget=0.02, **PRICES))
        with pytest.raises(UserError, match="budget"):
            judge(pictures(40), tasks(40))
    assert len(endpoint.requests) == 10


def test_processes_share_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in launch.items():
        monkeypatch.setenv(name, value)
    with serving(lambda index, attempt, request: "good") as endpoint, pytest.raises(UserError, match="budget"):
        VlmJudge(settings(endpoint, budget=0.04, **PRICES))(pictures(40), tasks(40))
    assert len(endpoint.requests) == 5


def test_ledger() -> None:
    ledger, guess = Ledger(input_price=2.0, output_price=10.0, budget=1.0), Usage(100_000, 0)  # the guess: 0.2
    assert [ledger.room(in_flight, guess) for in_flight in (0, 4, 5)] == ["yes", "yes", "wait"]
    assert ledger.room(0, Usage(10**7, 0)) == "yes"  # a guess alone shuts nobody out
    ledger.charge(Usage(100_000, 10_000), guess)  # 0.3
    assert ledger.cost == pytest.approx(0.3)
    assert [ledger.room(in_flight, guess) for in_flight in (0, 1, 2)] == ["yes", "yes", "wait"]
    ledger.charge(None, guess)  # as dear as the dearest
    assert ledger.cost == pytest.approx(0.6)
    ledger.charge(Usage(50_000, 10_000), guess)
    assert ledger.room(0, guess) == "no"  # 0.8 + 0.3
    assert Ledger().room(10**6, guess) == "yes"


BROKEN = [
    "",
    "{",
    "[]",
    "null",
    "{}",
    '{"key": "KEY", "reply": "", "score": 7}',
    '{"key": "KEY", "reply": "", "score": true}',
]
BROKEN += [
    '{"key": "other", "reply": "", "score": 3}',
    '{"key": "KEY", "reply": 1, "score": 3}',
    "[" * 10**5,
    "\x00\xff",
]
BROKEN += ['{"key": "KEY", "reply": "", "score": NaN}', '{"key": "KEY", "score": 3}']


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_entry_is_made_again(text: str, tmp_path: Path) -> None:
    cache, name = JudgementCache(tmp_path), "ab" * 32
    cache.put(name, Judgement(3.0, "fine"), {"model": "m"})
    assert cache.get(name) == Judgement(3.0, "fine")
    path = tmp_path / "ab" / f"{name}.json"
    path.write_text(text.replace("KEY", name), encoding="latin-1")
    assert cache.get(name) is None
    cache.put(name, Judgement(2.0), {})
    assert cache.get(name) == Judgement(2.0)


def test_what_a_judgement_depends_on(tmp_path: Path) -> None:
    """Another model, prompt, picture, rubric (task) or format is another judgement; patience and prices are not."""
    with serving(lambda index, attempt, request: "good") as endpoint:
        base: dict[str, Any] = {"task": "prompt", "model": "judge"}
        for given in (
            {},
            {"model": "other"},
            {"task": "identity"},
            {"format": "json"},
            {"temperature": 1.0},
            {"seed": 1},
        ):
            VlmJudge(settings(endpoint, tmp_path, **base | given))(pictures(1), tasks(1))
        assert len(endpoint.requests) == 6
        batch = tasks(2).select([1])
        VlmJudge(settings(endpoint, tmp_path))(pictures(1), batch)
        VlmJudge(settings(endpoint, tmp_path))(pictures(2)[1:], tasks(1))
        assert len(endpoint.requests) == 8
        VlmJudge(settings(endpoint, tmp_path, timeout=9.0, attempts=2, concurrency=1, **PRICES))(pictures(1), tasks(1))
        assert len(endpoint.requests) == 8


def test_unwritable_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        VlmJudge(settings("http://127.0.0.1:9/v1", tmp_path / "file"))


def write_many(folder: Path, own: int) -> None:
    cache = JudgementCache(folder)
    for turn in range(200):
        name = f"{turn % 5:064d}"
        cache.put(name, Judgement(float(own), "x" * 3000), {})
        assert (found := cache.get(name)) is not None and found.reply == "x" * 3000


def test_several_processes_write_one_entry(tmp_path: Path) -> None:
    workers = [multiprocessing.get_context("fork").Process(target=write_many, args=(tmp_path, n)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len(list(tmp_path.rglob("*"))) == 1 + 5  # the sub-folder and its entries


RUN = """
import sys
sys.path.insert(0, sys.argv[1])
from support.vlm_endpoint import pictures, tasks
from cgrpo.rewards.vlm import VlmSettings
from cgrpo.rewards.vlm.judge import VlmJudge
VlmJudge(VlmSettings.model_validate_json(sys.argv[2]))(pictures(200), tasks(200))
"""


def test_killed_and_resumed(tmp_path: Path) -> None:
    """SIGKILL half-way: what was finished is never asked again; at most what was in flight is paid for twice."""
    with serving(lambda index, attempt, request: "slow 0.02") as endpoint:
        chosen: VlmSettings = settings(endpoint, tmp_path, concurrency=8)
        run = subprocess.Popen([sys.executable, "-c", RUN, str(Path(__file__).parents[1]), chosen.model_dump_json()])
        while len(endpoint.requests) < 100:
            assert run.poll() is None
            time.sleep(0.01)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        time.sleep(0.2)  # what was on its way arrives
        kept = [json.loads(path.read_text()) for path in tmp_path.rglob("*.json")]
        before = sum(endpoint.asked.values())
        assert before - 8 <= len(kept) < 200
        judge = VlmJudge(chosen)
        assert judge(pictures(200), tasks(200)).tolist() == [index % 5 for index in range(200)]
    assert judge.report()["cached"] == len(kept) / 200
    assert sum(endpoint.asked.values()) - before == 200 - len(kept)
    assert 200 <= sum(endpoint.asked.values()) <= 208
    print(f"killed with {len(kept)} kept of {before} asked; {sum(endpoint.asked.values())} requests for 200")
