"""Pictures of a benchmark's rows by the toybox's policy, and the command from pictures to scores."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from support.dreambench import draw_photographs

import cgrpo
from cgrpo.app.evaluate import evaluate_dreambench
from cgrpo.app.requests import EvaluationRequest
from cgrpo.data.archives import open_picture
from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark import generate
from cgrpo.evaluation.benchmark.dreambench import dreambench_suite, official_list
from cgrpo.evaluation.benchmark.generate import Sampled
from cgrpo.evaluation.sampling import ALONE, follow
from cgrpo.rewards.base import to_pictures
from cgrpo.types import Batch


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def policy():
    return cgrpo.load_policy()


@pytest.fixture(scope="module")
def sigmas(policy):
    return policy.sigmas(2, 1.5)


ROWS = 7


@pytest.fixture(scope="module")
def whole(data, policy, sigmas, tmp_path_factory):
    """Of the dog two seeds of 7 prompts, by one process."""
    out = tmp_path_factory.mktemp("whole")
    made = make(policy, sigmas, data, out)
    assert (made.made, made.kept, made.failed) == (2 * ROWS, 0, {})
    return out


def make(policy, sigmas, data, out, processes=ALONE, **more):
    suite = dreambench_suite(data, "single", ["dog"])
    assert len(suite.rows) == 25
    suite = dataclasses.replace(suite, rows=suite.rows[:ROWS])
    return Sampled(policy, sigmas, suite, **({"seeds": 2} | more))(out / "pictures" / "base", processes)


def pictures(out):
    folder = out / "pictures" / "base"
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.png"))}


def test_every_row_and_seed_has_its_picture(whole, policy, sigmas, data):
    found = pictures(whole)
    assert sorted(found) == [f"dog/{n:02d}_{seed}.png" for n in range(ROWS) for seed in (3407, 3408)]
    row = official_list("single", ["dog"])[3]
    task = Batch(("",), (row.prompt,), ((open_picture(data / "dog" / "02.jpg"),),), ("",)).repeat(2)
    noise_NLC = torch.cat([policy.noise(3407), policy.noise(3408)])
    for seed, picture in zip((3407, 3408), to_pictures(follow(policy, task, noise_NLC, sigmas)), strict=True):
        assert (np.asarray(picture) == np.asarray(Image.open(whole / f"pictures/base/dog/03_{seed}.png"))).all()
    assert found["dog/03_3407.png"] != found["dog/03_3408.png"] != found["dog/04_3408.png"]


def test_one_process_is_two(whole, policy, sigmas, data, tmp_path):
    """One after the other; the second goes by what the main process found lacking when both began."""
    said = []

    class Process(type(ALONE)):
        world = 2

        def __init__(self, rank):
            self.rank = rank

        def share(self, text):
            said.append(text)
            return said[0]

    made = [make(policy, sigmas, data, tmp_path, Process(rank)).made for rank in (0, 1)]
    assert made == [8, 6] and said[0] != said[1] and pictures(tmp_path) == pictures(whole)


def test_what_is_there_is_kept(whole, policy, sigmas, data, tmp_path):
    make(policy, sigmas, data, tmp_path, seeds=1)
    kept = tmp_path / "pictures/base/dog/00_3407.png"
    kept.write_bytes(b"kept as it is")
    (tmp_path / "pictures/base/dog/01_3407.png").unlink()
    made = make(policy, sigmas, data, tmp_path, seeds=2)
    assert (made.made, made.kept) == (8, 6) and kept.read_bytes() == b"kept as it is"
    assert pictures(tmp_path).keys() == pictures(whole).keys()
    with pytest.raises(UserError, match="another sigmas; give another --method"):
        make(policy, sigmas[:-1], data, tmp_path)
    with pytest.raises(UserError, match="another .*references; give"):
        make(policy, sigmas, data, tmp_path, alone=True)


def test_killed_between_two_pictures_of_a_row_and_continued(whole, policy, sigmas, data, tmp_path, monkeypatch):
    """What is missing of a row is sampled in the batch of the whole row: not a byte differs."""
    save, left = generate.save_picture, iter(range(5))

    def killed(picture, file):
        if next(left, None) is None:
            raise KeyboardInterrupt
        save(picture, file)

    monkeypatch.setattr(generate, "save_picture", killed)
    with pytest.raises(KeyboardInterrupt):
        make(policy, sigmas, data, tmp_path)
    monkeypatch.undo()
    assert len(pictures(tmp_path)) == 5
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.png")}
    made = make(policy, sigmas, data, tmp_path)
    assert (made.made, made.kept) == (9, 5) and pictures(tmp_path) == pictures(whole)
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())


def test_prompt_only_is_the_base_whatever_was_trained(policy, sigmas, data, tmp_path):
    """So two runs of one base can be scored into one folder."""
    suite = dreambench_suite(data, "single", ["dog"])
    suite = dataclasses.replace(suite, rows=suite.rows[:2])
    trained = cgrpo.load_policy(rank=4)
    with torch.no_grad():
        for name, parameter in trained.transformer.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1)
    made = [Sampled(p, sigmas, suite, seeds=2, alone=True)(tmp_path / "a").made for p in (policy, trained)]
    assert made == [4, 0]
    Sampled(trained, sigmas, suite, seeds=2, alone=True)(tmp_path / "b")
    Sampled(trained, sigmas, suite, seeds=2)(tmp_path / "c")
    found = [[f.read_bytes() for f in sorted((tmp_path / name).rglob("*.png"))] for name in "abc"]
    assert found[0] == found[1] != found[2]


def test_an_unreadable_reference_costs_its_rows(policy, sigmas, tmp_path):
    data = draw_photographs(tmp_path / "data")
    (data / "dog" / "02.jpg").write_bytes(b"no picture")
    suite = dreambench_suite(data, "multi", ("cat", "dog"))
    made = Sampled(policy, sigmas, suite, seeds=1)(tmp_path / "made")
    assert made.made == 0 and len(made.failed) == 25 and "can't be read" in made.failed["cat+dog 0"]


def test_transparency_is_read_as_in_training(policy, sigmas, tmp_path):
    data = draw_photographs(tmp_path / "data")
    shown = Image.open(data / "dog" / "02.jpg").convert("RGB")
    shown.putalpha(Image.linear_gradient("L").resize(shown.size))
    shown.save(data / "dog" / "02.png")
    suite = dreambench_suite(data, "single", ["dog"])
    suite = dataclasses.replace(suite, rows=[dataclasses.replace(suite.rows[0], references=("dog/02.png",))])
    for alpha in ("white", "drop"):
        Sampled(policy, sigmas, suite, seeds=1, alpha=alpha)(tmp_path / alpha)
    white, drop = ((tmp_path / alpha / "dog/00_3407.png").read_bytes() for alpha in ("white", "drop"))
    assert white != drop
    with pytest.raises(UserError, match="another reference_alpha;"):
        Sampled(policy, sigmas, suite, seeds=1, alpha="drop")(tmp_path / "white")


def test_from_the_policy_to_a_table(data, tmp_path):
    """The toybox's own rewards; the same call again makes nothing new, and other pictures come beside."""
    ask = EvaluationRequest(
        out=tmp_path / "out", seeds=1, settings=("sampling.steps=2",), metrics=("clip-i=toybox", "clip=toybox")
    )

    def run(**more):
        return evaluate_dreambench(dataclasses.replace(ask, **more), data=data, subjects=("dog",))

    first = run()
    table = [(row["method"], row["metric"], row["protocol"], row["pictures"]) for row in first.summary]
    assert table == [
        ("base", "clip-i", "one", 25),
        ("base", "clip", "prompt", 25),
        ("prompt-only", "clip-i", "one", 25),
        ("prompt-only", "clip", "prompt", 25),
        ("real-vs-real", "clip-i", "one", 2),
        ("copy-paste", "clip-i", "one", 25),
        ("copy-paste", "clip", "prompt", 25),
    ]
    assert first.failed == 0
    told = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert told["summary"] == first.summary and told["facts"]["photographs"]["kind"] == "unknown"
    assert next(r["mean"] for r in first.summary if r["method"] == "copy-paste") == pytest.approx(1.0, abs=1e-4)
    before = first.scores.read_bytes()
    assert run().summary == first.summary and first.scores.read_bytes() == before

    theirs = tmp_path / "out" / "pictures" / "prompt-only"
    (theirs / "dog" / "24_3407.png").write_bytes(b"no picture")
    second = run(images=theirs, method="theirs")
    assert second.failed == 2
    assert [row["failed"] for row in second.summary if row["method"] == "theirs"] == [1, 1]


def test_mistakes_are_one_line(data, tmp_path):
    ask = EvaluationRequest(out=tmp_path / "out", seeds=1, metrics=("clip-i=toybox",))
    for more, match in (
        ({"method": "copy-paste"}, "always there"),
        ({"method": "a/b"}, "name of a folder"),
        ({"images": tmp_path}, "holds none of the pictures"),
        ({"images": tmp_path, "layout": "{subject}"}, "--layout"),
        ({"seeds": 0}, "--seeds 0"),
        ({"images": tmp_path, "run": tmp_path}, "scored as they are"),
    ):
        with pytest.raises(UserError, match=match):
            evaluate_dreambench(dataclasses.replace(ask, **more), data=data, subjects=("dog",))
    for metrics, match in ((("clip=toybox", "clip=other"), "asked for twice"), (("nothing",), "neither in the recipe")):
        Image.new("RGB", (8, 8)).save(tmp_path / "250_0.png")
        asked = dataclasses.replace(ask, metrics=metrics)
        with pytest.raises(UserError, match=match):
            evaluate_dreambench(asked, data=data, subjects=("dog",))
    assert not (tmp_path / "out").exists()  # told before anything is sampled
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "benchmark.json").write_text('{"conditions": {"benchmark": "toybox"}}')
    with pytest.raises(UserError, match=r"another benchmark \(toybox, now dreambench single\)"):
        evaluate_dreambench(ask, data=data, subjects=("dog",))
    assert not (tmp_path / "out" / "pictures").exists()
