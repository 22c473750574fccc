"""A remote reward gives the scores of the same reward in this process, bit for bit; references travel once."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from support.reward_server import connect
from support.tasks import tasks as tasks_of

from cgrpo.config import parse_config
from cgrpo.data import ToyboxSource
from cgrpo.errors import UserError
from cgrpo.rewards import FunctionReward, make_reward, scored
from cgrpo.rewards.dino import DinoSegSettings
from cgrpo.rewards.remote import RemoteSettings
from cgrpo.rewards.remote.client import RemoteReward
from cgrpo.types import Batch


@pytest.fixture(scope="module")
def local():
    """The toybox's rewards, each a second time so that no memory is shared with the server's."""
    cfg = parse_config({}, "test")
    return [{name: make_reward(name, settings) for name, settings in cfg.rewards.items()} for _ in range(2)]


@pytest.fixture(scope="module")
def tasks() -> tuple[torch.Tensor, Batch]:
    """Six pictures; two of the tasks have several references, one has none, some have masks."""
    source = ToyboxSource(0, "validation", 0.0, 1)
    batch = source.batch(range(6))
    disc = Image.fromarray((np.hypot(*np.mgrid[-16:16, -16:16]) < 9).astype(np.uint8) * 255)
    r = [pictures[0] for pictures in batch.references]
    references = ((r[0],), (r[1], r[2]), (), (r[3], r[4], r[0]), (r[4],), (r[5],))
    masks = ((disc,), (None, disc.convert("1")), (), (disc, None, None), (None,), (disc,))
    return source.oracle(range(6)), replace(batch, references=references, reference_masks=masks)


def bodies(remote: RemoteReward, monkeypatch) -> list[dict]:
    """Every message that is sent from now on."""
    sent, request = [], remote._transport.request

    def watch(method, path, kind, body=b""):
        sent.append(json.loads(body))
        return request(method, path, kind, body)

    monkeypatch.setattr(remote._transport, "request", watch)
    return sent


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (
        a.dtype == b.dtype == torch.float32
        and torch.equal(a.isnan(), b.isnan())
        and torch.equal(a.nan_to_num(-9), b.nan_to_num(-9))
    )


@pytest.mark.parametrize(("name", "unscored"), [("identity", 1), ("prompt", 0)])
def test_bit_for_bit(serving, local, tasks, name, unscored):
    images, batch = tasks
    here, there = local
    settings = RemoteSettings(url=serving(there).url, reward=name, axis=here[name].axis)
    remote = make_reward(name, settings)
    assert isinstance(remote, RemoteReward) and remote.unit == here[name].unit
    expected = scored(name, here[name], images, batch)
    assert int(expected.isnan().sum()) == unscored and expected[0] != 0
    assert equal(scored(name, remote, images, batch), expected)
    assert remote.report() == here[name].report()
    assert remote.report() == {}

    shuffled = [3, 0, 5, 1, 4, 2]
    again = scored(name, remote, images[shuffled], batch.select(shuffled).repeat(1))
    assert equal(again, scored(name, here[name], images[shuffled], batch.select(shuffled)))


def test_noise_pictures_of_any_shape_and_text_arrive_as_they_are(serving):
    images = torch.randint(0, 256, (3, 5, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen = []

    def keep(pictures, batch):
        seen.append((pictures, batch))
        return [0.1, None, float("inf")]

    picture = Image.fromarray(images[0].numpy())
    batch = Batch(("a", "b", "ü"), ("", "ein Hüt\n", "\U0001f431"), ((picture,), (), ()), ("", "x", ""), spec=(1, 2, 3))
    remote = connect(serving({"x": FunctionReward(keep, "prompt")}).url)
    scores = remote(images, batch)
    assert scores[0] == torch.tensor(0.1) and scores[1:].isnan().all()
    pictures, arrived = seen[0]
    assert all(np.array_equal(np.asarray(p), image.numpy()) for p, image in zip(pictures, images, strict=True))
    assert (arrived.ids, arrived.prompts, arrived.subjects) == (batch.ids, batch.prompts, batch.subjects)
    assert np.array_equal(np.asarray(arrived.references[0][0]), np.asarray(picture))
    assert arrived.reference_masks is None and arrived.spec is None


def test_references_travel_once_and_again_when_forgotten(serving, local, tasks, monkeypatch):
    images, batch = tasks
    expected = scored("identity", local[0]["identity"], images, batch)
    running = serving(local[1])
    remote = connect(running.url, "identity", "identity")
    sent = bodies(remote, monkeypatch)
    for _ in range(2):
        assert equal(remote(images, batch), expected)
    assert [len(message["sent"]) for message in sent] == [7, 0]  # six references, one mask
    running.stop()
    serving(local[1], running.port)  # restarted: it knows none
    assert equal(remote(images, batch), expected)
    assert [len(message["sent"]) for message in sent] == [7, 0, 0, 7]

    tiny = connect(serving(local[1], remembered=5000).url, "identity", "identity")
    sent = bodies(tiny, monkeypatch)
    for _ in range(2):
        assert equal(tiny(images, batch), expected)
    counts = [len(message["sent"]) for message in sent]
    assert counts[:2] == [7, 0] and counts[2] in (5, 6)  # it had room for one reference, or for that and the mask


def test_requests_queue_and_are_scored_one_at_a_time(serving):
    inside, most = [], []

    def slow(pictures, batch):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return [float(np.asarray(picture).mean()) for picture in pictures]

    url = serving({"slow": FunctionReward(slow, "prompt")}).url
    results: dict[int, list[float]] = {}

    def client(value: int) -> None:
        remote = connect(url, "slow")
        images = torch.full((2, 4, 4, 3), value, dtype=torch.uint8)
        results[value] = remote(images, tasks_of(prompts=["", ""])).tolist()

    threads = [threading.Thread(target=client, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {value: [value, value] for value in range(4)}
    assert most == [1, 1, 1, 1]


def test_who_gave_up_in_the_queue_is_not_scored(serving):
    begun, go_on, scored_prompts = threading.Event(), threading.Event(), []

    def wait(pictures, batch):
        begun.set()
        go_on.wait(10)
        scored_prompts.extend(batch.prompts)
        return [1.0]

    url = serving({"wait": FunctionReward(wait, "prompt")}).url
    images = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    first = connect(url, "wait")
    hasty = connect(url, "wait", timeout=0.3, patience=0)
    thread = threading.Thread(target=first, args=(images, tasks_of(prompts=["first"])))
    thread.start()
    begun.wait(10)
    with pytest.raises(UserError, match="no answer for 0 s .ReadTimeout"):
        hasty(images, tasks_of(prompts=["hasty"]))
    go_on.set()
    thread.join()
    first(images, tasks_of(prompts=["last"]))
    assert scored_prompts == ["first", "last"]


def test_several_calls_are_reported_by_their_pictures(serving):
    class Counted(FunctionReward):
        def report(self):
            return {"share": self.function.share}

    def ones(pictures, batch):
        ones.share = float(len(pictures) == 3)
        return [1.0] * len(pictures)

    remote = connect(serving({"x": Counted(ones, "prompt")}).url)
    for count in (1, 3):
        rows = ("",) * count
        remote(torch.zeros(count, 4, 4, 3, dtype=torch.uint8), Batch(rows, rows, ((),) * count, rows))
    assert remote.report() == {"share": 0.75}


def test_the_identity_settings_are_told_apart_by_the_checkpoint(serving, local):
    running = serving(local[0])
    remote = connect(running.url, "identity", "identity")
    same = connect(running.url, "identity", "identity", checkpoint=remote.checkpoint)
    assert same.checkpoint == remote.checkpoint and len(remote.checkpoint) == 64
    other = serving({"identity": make_reward("identity", DinoSegSettings(masks="reference"))})
    with pytest.raises(UserError, match="is checkpoint .* there, not"):
        connect(other.url, "identity", "identity", checkpoint=remote.checkpoint)
