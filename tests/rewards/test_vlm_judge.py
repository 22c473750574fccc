"""The judge against an endpoint that misbehaves, one way at a time."""

import asyncio
import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support import vlm_endpoint
from support.vlm_endpoint import INPUT, KEY, OUTPUT, pictures, serving, settings, tasks

from cgrpo.config import load_config, parse_config
from cgrpo.errors import UserError
from cgrpo.rewards import make_reward
from cgrpo.rewards.vlm.client import retry_after
from cgrpo.rewards.vlm.judge import VlmJudge
from cgrpo.rewards.vlm.rubrics import data_url
from cgrpo.types import Batch


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_VLM_KEY", KEY)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def scores(judge: VlmJudge, count: int) -> list[float]:
    return judge(pictures(count), tasks(count)).tolist()


def first(action: str, times: int = 1):
    """``action`` for the first attempts at each picture, then a good reply."""
    return lambda index, attempt, request: action if attempt < times else "good"


def always(action: str):
    return lambda index, attempt, request: action


def content(request: dict[str, Any]) -> list[dict[str, Any]]:
    return request["messages"][0]["content"]


@pytest.mark.parametrize("form", ["schema", "json", "text"])
def test_prompt_request(form: str) -> None:
    with serving(always("good")) as endpoint:
        judge = VlmJudge(settings(endpoint, format=form, seed=5))
        assert judge.axis == "prompt"
        assert scores(judge, 7) == [0, 1, 2, 3, 4, 0, 1]
    assert endpoint.paths == {"/v1/chat/completions"}
    request = next(r for r in endpoint.requests if vlm_endpoint.index_of(r) == 3)
    assert (request["model"], request["temperature"], request["seed"], request["max_tokens"]) == ("judge", 0, 5, 1000)
    texts = [part["text"] for part in content(request) if part["type"] == "text"]
    assert "<text>a toy numbered 3</text>" in texts
    (url,) = [part["image_url"]["url"] for part in content(request) if part["type"] == "image_url"]
    sent = vlm_endpoint.read_url(url)
    assert (sent.format, sent.mode, sent.size) == ("PNG", "RGB", (8, 8))
    assert list(sent.tobytes()) == pictures(7)[3].flatten().tolist()  # lossless
    kind = {"schema": "json_schema", "json": "json_object", "text": None}[form]
    assert request.get("response_format", {}).get("type") == kind
    assert ("JSON" in texts[-1]) == (form != "text")
    if form == "schema":
        assert request["response_format"]["json_schema"]["schema"]["properties"]["score"]["enum"] == [0, 1, 2, 3, 4]


def test_identity_request_shows_references_first() -> None:
    batch = tasks(2)
    reference = batch.references[0][0]
    batch = type(batch)(batch.ids, batch.prompts, ((reference, reference), ()), ("toy", "toy"))
    with serving(always("good")) as endpoint:
        judge = VlmJudge(settings(endpoint, task="identity"))
        assert judge.axis == "identity"
        made = judge(pictures(2), batch)
    assert made[0] == 0 and made[1].isnan()  # nothing to compare with
    (request,) = endpoint.requests
    urls = [part["image_url"]["url"] for part in content(request) if part["type"] == "image_url"]
    colours = [vlm_endpoint.read_url(url).getpixel((0, 0)) for url in urls]
    assert colours == [(9, 9, 200), (9, 9, 200), (0, 0, 7)]
    text = " ".join(part.get("text", "") for part in content(request))
    assert "<text>toy</text>" in text and "numbered" not in text


RETRIED = ["storm", "status 500 oops", "status 503", "truncated", "html", "list", "refuse", "filter", "range", "huge"]
RETRIED += [
    "cut",
    "thoughts",
    "wrapped upstream is busy",
    "flood 200",
    "flood 500",
    "say ",
    "say I would rather not.",
    "say Score: 3 or 4",
]


@pytest.mark.parametrize("action", RETRIED)
def test_another_attempt_succeeds(action: str) -> None:
    with serving(first(action)) as endpoint:
        assert scores(VlmJudge(settings(endpoint)), 5) == [0, 1, 2, 3, 4]
    assert set(endpoint.asked.values()) == {2}


@pytest.mark.parametrize("action", ["storm", "status 500", "html", "range", "truncated", "cut", "say Score: 7"])
def test_a_failure_is_nan(action: str, caplog: pytest.LogCaptureFixture) -> None:
    with serving(lambda index, attempt, request: action if index == 1 else "good") as endpoint:
        judge = VlmJudge(settings(endpoint))
        made = scores(judge, 3)
    assert made[0] == 0 and math.isnan(made[1]) and made[2] == 2
    assert endpoint.asked == {0: 1, 1: 4, 2: 1}
    assert judge.report()["given_up"] == pytest.approx(1 / 3)
    assert "1 of 3 judgements given up" in caplog.text


def test_a_reply_in_parts_is_read() -> None:
    with serving(always("parts")) as endpoint:
        assert scores(VlmJudge(settings(endpoint)), 5) == [0, 1, 2, 3, 4]
    assert set(endpoint.asked.values()) == {1}


@pytest.mark.parametrize(
    ("action", "message", "billed"), [("wrapped upstream is busy", "upstream is busy", 0), ("thoughts", "reasoning", 1)]
)
def test_what_went_wrong_is_said_and_billed_where_it_is(
    action: str, message: str, billed: int, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(always(action)) as endpoint:
        judge = VlmJudge(settings(endpoint, attempts=2, token_budget=10**6))
        assert math.isnan(scores(judge, 1)[0])
    assert message in caplog.text
    assert (judge.report()["input_tokens"] > 0) == bool(billed)


def test_this_machine_is_asked_past_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody is there
    with serving(always("good")) as endpoint:
        assert scores(VlmJudge(settings(endpoint)), 2) == [0, 1]


def test_large_pictures_are_shrunk_and_shared_ones_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[tuple[int, int]] = []

    def count(picture: Image.Image) -> str:
        encoded.append(picture.size)
        return data_url(picture)

    monkeypatch.setattr("cgrpo.rewards.vlm.rounds.data_url", count)
    reference = Image.new("RGB", (4000, 3000), (9, 9, 200))
    batch = Batch(("a", "b", "c"), ("",) * 3, ((reference,),) * 3, ("toy",) * 3)
    with serving(always("good")) as endpoint:
        assert VlmJudge(settings(endpoint, task="identity"))(pictures(3), batch).tolist() == [0, 1, 2]
        assert sorted(encoded) == [(8, 8)] * 3 + [(1024, 768)]
        urls = [part["image_url"]["url"] for part in content(endpoint.requests[0]) if part["type"] == "image_url"]
        assert [vlm_endpoint.read_url(url).size for url in urls] == [(1024, 768), (8, 8)]
        assert max(map(len, urls)) < 100_000
        VlmJudge(settings(endpoint, task="identity", picture_side=64))(pictures(1), batch.select([0]))
    assert encoded[-2:] == [(64, 48), (8, 8)] or encoded[-2:] == [(8, 8), (64, 48)]


def test_refusals_are_counted_and_not_repeated(tmp_path: Path) -> None:
    with serving(lambda index, attempt, request: "refuse" if index % 2 else "good") as endpoint:
        judge = VlmJudge(settings(endpoint, tmp_path, refusals=2, attempts=9))
        assert str(scores(judge, 4)) == "[0.0, nan, 2.0, nan]"
        assert endpoint.asked == {0: 1, 1: 2, 2: 1, 3: 2}
        usage = {"input_tokens": 6 * INPUT, "output_tokens": 6 * OUTPUT, "cost": 0.0}
        assert judge.report() == {"given_up": 0, "refused": 0.5, "cached": 0, **usage}
        assert str(scores(judge, 4)) == "[0.0, nan, 2.0, nan]"
        assert sum(endpoint.asked.values()) == 6
        assert judge.report() == {"given_up": 0, "refused": 0.5, "cached": 1, **dict.fromkeys(usage, 0)}
        assert judge.report() == {}


def test_retry_after_holds_everyone_up() -> None:
    busy = {"left": 4}

    def behave(index: int, attempt: int, request: dict[str, Any]) -> str:
        busy["left"] -= 1
        return "storm 4" if busy["left"] >= 0 else "good"

    with serving(behave) as endpoint:
        assert scores(VlmJudge(settings(endpoint, concurrency=4, backoff=1e-3)), 20) == [i % 5 for i in range(20)]
    times = sorted(endpoint.times)
    assert times[4] - times[3] >= 0.08  # the endpoint asked for 0.1 s, in four replies after the fourth request
    assert endpoint.did["storm 4"] == 4


def test_retry_after_forms() -> None:
    date = {"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}
    noon = 1792567680.0  # 07:28:00 that day
    assert retry_after(date, noon) == 30.0
    assert retry_after(date, noon + 60) == 0.0
    assert retry_after({"retry-after-ms": "250", "retry-after": "1"}) == 0.25
    assert [retry_after({"retry-after": word}) for word in ("7", "0.5", "-3", "soon", "nan", "")] == [
        7,
        0.5,
        0,
        0,
        0,
        0,
    ]
    with pytest.raises(UserError, match="asks to wait for 86400 s"):
        retry_after({"retry-after": "86400"})


@pytest.mark.parametrize("action", ["stall", "drip"])
def test_timeout_is_of_the_whole_request(action: str) -> None:
    """A reply of 350 bytes, one in 0.05 s, would take 17 s; each is well within any timeout for one read."""
    with serving(always(action)) as endpoint:
        judge = VlmJudge(settings(endpoint, timeout=0.4, attempts=2, backoff=1e-3, token_budget=10**6))
        start = time.monotonic()
        assert math.isnan(scores(judge, 1)[0])
        took = time.monotonic() - start
    assert 0.8 <= took < 9  # ten and more if only single reads had a limit
    assert judge.report()["output_tokens"] == 2 * 1000  # perhaps billed: booked at max_tokens, as nothing is known


@pytest.mark.parametrize("action", ["flood 200", "flood 500"])
def test_a_huge_reply_is_not_read(action: str) -> None:
    """64 MB without a length: reading ends at 1 MiB, and the endpoint gets rid of little more."""
    with serving(always(action)) as endpoint:
        assert math.isnan(scores(VlmJudge(settings(endpoint, attempts=1)), 1)[0])
        time.sleep(0.1)
        assert endpoint.sent < 32_000_000


def test_unreachable_costs_nothing() -> None:
    judge = VlmJudge(settings("http://127.0.0.1:9/v1", attempts=2, input_price=1.0, budget=1.0))
    assert math.isnan(scores(judge, 1)[0])
    assert judge.ledger.cost == 0


def test_concurrency() -> None:
    with serving(always("slow 0.05")) as endpoint:
        assert scores(VlmJudge(settings(endpoint, concurrency=3)), 12) == [i % 5 for i in range(12)]
    assert endpoint.most_at_once == 3


def test_equal_questions_are_asked_once() -> None:
    with serving(always("good")) as endpoint:
        judge = VlmJudge(settings(endpoint))
        assert judge(pictures(3).repeat(4, 1, 1, 1), tasks(3).select([0, 1, 2] * 4)).tolist() == [0, 1, 2] * 4
    assert endpoint.asked == {0: 1, 1: 1, 2: 1}


def test_refused_parameters_are_left_out_from_then_on() -> None:
    def behave(index: int, attempt: int, request: dict[str, Any]) -> str:
        for name in ("temperature", "seed", "max_tokens"):
            if name in request:
                return f"status 400 Unsupported parameter: '{name}' is not supported with this model."
        return "good"

    with serving(behave) as endpoint:
        judge = VlmJudge(settings(endpoint, concurrency=1, attempts=1))
        assert scores(judge, 3) == [0, 1, 2]
        assert scores(judge, 4) == [0, 1, 2, 3]
    assert endpoint.did["good"] == 7 and len(endpoint.requests) == 10
    assert endpoint.requests[-1]["max_completion_tokens"] == 1000


def test_another_seed_after_a_reply_of_no_use() -> None:
    with serving(first("range", 2)) as endpoint:
        assert scores(VlmJudge(settings(endpoint, seed=7)), 1) == [0]
    assert [request["seed"] for request in endpoint.requests] == [7, 8, 9]


@pytest.mark.parametrize(
    ("action", "match"),
    [
        ("status 401", "refused the key.*TEST_VLM_KEY"),
        ("status 404 no such model", "no such model.*check model, base_url"),
        ("redirect", "status 307"),
        ("status 429 insufficient_quota", "quota is used up"),
        ("status 400 what is that", "takes no request: status 400 .*what is that"),
        ("status 400 response_format json_schema is unknown", "choose another format"),
    ],
)
def test_what_no_attempt_can_fix(action: str, match: str) -> None:
    with serving(always(action)) as endpoint, pytest.raises(UserError, match=match) as caught:
        scores(VlmJudge(settings(endpoint)), 30)
    assert "\n" not in str(caught.value)
    assert len(endpoint.requests) <= 30
    assert endpoint.paths == {"/v1/chat/completions"}


def test_an_error_ends_the_others_patience() -> None:
    with serving(lambda index, attempt, request: "status 500" if index else "status 404") as endpoint:
        judge = VlmJudge(settings(endpoint, backoff=20.0, concurrency=3))
        start = time.monotonic()
        with pytest.raises(UserError, match="404"):
            scores(judge, 9)
        assert time.monotonic() - start < 5
    assert len(endpoint.requests) <= 3


def test_one_picture_that_is_never_taken_is_nan() -> None:
    with serving(lambda index, attempt, request: "status 400 odd" if index == 1 else "good") as endpoint:
        assert str(scores(VlmJudge(settings(endpoint)), 3)) == "[0.0, nan, 2.0]"
    assert endpoint.asked[1] == 1


def test_from_within_a_loop() -> None:
    async def notebook(judge: VlmJudge) -> list[float]:
        return scores(judge, 2)

    with serving(always("good")) as endpoint:
        assert asyncio.run(notebook(VlmJudge(settings(endpoint)))) == [0, 1]


@pytest.mark.parametrize("action", ["echo", "status 500", "status 401", "status 404", "status 400", "status 403"])
def test_the_key_is_nowhere(action: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The endpoint sends the key back in replies and errors; everything is logged."""
    caplog.set_level(logging.DEBUG)
    error = ""
    with serving(always(action)) as endpoint:
        chosen = settings(endpoint, tmp_path)
        judge = VlmJudge(chosen)
        try:
            scores(judge, 2)
        except UserError as caught:
            error = str(caught)
    files = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert bool(error) == action.startswith("status 40") and bool(files) == (action == "echo")
    for text in (error, caplog.text, *files, chosen.model_dump_json(), repr(vars(judge)), repr(judge)):
        assert KEY not in text
    if action == "echo":
        assert all("Bearer ***" in text for text in files)


def test_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_VLM_KEY")
    with pytest.raises(UserError, match="TEST_VLM_KEY is not set"):
        VlmJudge(settings("http://127.0.0.1:9/v1"))
    monkeypatch.setenv("TEST_VLM_KEY", f"{KEY}\nmore")
    with pytest.raises(UserError, match="odd characters") as caught:
        VlmJudge(settings("http://127.0.0.1:9/v1"))
    assert KEY not in str(caught.value)
    with serving(always("good")) as endpoint:
        assert scores(VlmJudge(settings(endpoint, key_variable="")), 2) == [0, 1]


@pytest.mark.parametrize(
    "given",
    [
        {"key_variable": KEY},
        {"base_url": f"https://{KEY}@host/v1"},
        {"base_url": f"https://host/v1?key={KEY}"},
        {"base_url": f"host/{KEY}"},
        {"api_key": KEY},
        {"budget": 3.0},
    ],
)
def test_misplaced_settings(given: dict[str, Any]) -> None:
    table = {"rewards": {"prompt": {"type": "vlm", "task": "prompt", "model": "m", **given}}}
    with pytest.raises(UserError, match=next(iter(given))) as caught:
        parse_config(table, "here")
    assert KEY not in str(caught.value) and "\n" not in str(caught.value)


def test_from_a_recipe(tmp_path: Path) -> None:
    with serving(always("good")) as endpoint:
        asked = ["type=vlm", "task=prompt", "model=m", f"base_url={endpoint.url}", "key_variable=", "cache="]
        cfg = load_config(settings=[f"rewards.prompt.{part}" for part in asked])
        judge = make_reward("prompt", cfg.rewards["prompt"])
        assert judge(pictures(3), tasks(3)).dtype == torch.float32
        assert (judge.unit, judge.axis) == ("0 to 4 by our rubric", "prompt")
    assert json.loads(cfg.model_dump_json())["rewards"]["prompt"]["model"] == "m"


LEVELS = [
    ("3:0.6 4:0.4", 3.4),
    ("2:1.0", 2.0),
    ('"1":0.3 1:0.2 0:0.5', 0.5),  # one level in two spellings
    ("4:0.5 3:0.25 five:0.25", (4 * 0.5 + 3 * 0.25) / 0.75),  # what is no level does not count
]


@pytest.mark.parametrize(("levels", "score"), LEVELS)
def test_logits_give_the_mean_of_all_levels(levels: str, score: float, tmp_path: Path) -> None:
    with serving(always(f"logits {levels}")) as endpoint:
        judge = VlmJudge(settings(endpoint, tmp_path, scoring="logits"))
        assert scores(judge, 2) == pytest.approx([score] * 2, abs=1e-6)
        assert scores(judge, 2) == pytest.approx([score] * 2, abs=1e-6) and len(endpoint.requests) == 2  # kept
        assert scores(VlmJudge(settings(endpoint, tmp_path)), 1)[0] in range(5)  # by text: asked anew
    assert all(one["logprobs"] is True and one["top_logprobs"] == 20 for one in endpoint.requests[:2])
    assert "logprobs" not in endpoint.requests[2]
    replies = [json.loads(file.read_text())["reply"] for file in tmp_path.rglob("*.json")]
    assert len(replies) == 3 and all("no score of 1" in reply for reply in replies)


@pytest.mark.parametrize("levels", ["3:0.2 nothing:0.8", "7:1.0"])
def test_logits_without_a_clear_level_are_asked_again(levels: str) -> None:
    with serving(lambda index, attempt, request: f"logits {'1:0.5 3:0.5' if attempt else levels}") as endpoint:
        assert scores(VlmJudge(settings(endpoint, scoring="logits")), 1) == pytest.approx([2.0])
    assert endpoint.asked == {0: 2}


@pytest.mark.parametrize(
    ("action", "says"),
    [("good", "the endpoint gives no logprobs"), ("status 400 unknown parameter top_logprobs", "top_logprobs")],
)
def test_an_endpoint_without_logits_is_one_line(action: str, says: str) -> None:
    with serving(always(action)) as endpoint, pytest.raises(UserError, match=rf'{says}.*set scoring = "text"'):
        scores(VlmJudge(settings(endpoint, scoring="logits")), 2)
