"""Pictures of DreamBench's rows by the toybox's policy, and the command from pictures to scores."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from dreambench_pictures import draw_photographs
from PIL import Image

import cgrpo
from cgrpo.algorithm import shifted_sigmas
from cgrpo.commands.dreambench import Ask, evaluate_dreambench
from cgrpo.errors import UserError
from cgrpo.evaluation.dreambench import generate_dreambench, official_list
from cgrpo.evaluation.generate import follow, seeded_noise
from cgrpo.policies import read_picture
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
    return shifted_sigmas(2, 1.5, policy.latent_shape[0])


@pytest.fixture(scope="module")
def whole(data, policy, sigmas, tmp_path_factory):
    """Of the dog two seeds of 25 prompts, by one process."""
    out = tmp_path_factory.mktemp("whole")
    made = make(policy, sigmas, data, out)
    assert (made.made, made.kept, made.failed) == (50, 0, {})
    return out


def make(policy, sigmas, data, out, **more):
    return generate_dreambench(policy, sigmas, data, out, method="base", subjects=("dog",), **({"seeds": 2} | more))


def pictures(out):
    folder = out / "pictures" / "base"
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.png"))}


def test_every_row_and_seed_has_its_picture(whole, policy, sigmas, data):
    found = pictures(whole)
    assert sorted(found) == [f"dog/{n:02d}_{seed}.png" for n in range(25) for seed in (3407, 3408)]
    row = official_list("single", ["dog"])[3]
    task = Batch(("",), (row.prompt,), ((read_picture(data / "dog" / "02.jpg"),),), ("",)).repeat(2)
    noise_NLC = torch.cat([seeded_noise(policy, 3407), seeded_noise(policy, 3408)])
    for seed, picture in zip((3407, 3408), to_pictures(follow(policy, task, noise_NLC, sigmas)), strict=True):
        assert (np.asarray(picture) == np.asarray(Image.open(whole / f"pictures/base/dog/03_{seed}.png"))).all()
    assert found["dog/03_3407.png"] != found["dog/03_3408.png"] != found["dog/04_3408.png"]


def test_one_process_is_two(whole, policy, sigmas, data, tmp_path):
    made = [make(policy, sigmas, data, tmp_path, rank=rank, world=2).made for rank in (1, 0)]
    assert made == [24, 26] and pictures(tmp_path) == pictures(whole)


def test_what_is_there_is_kept(whole, policy, sigmas, data, tmp_path):
    make(policy, sigmas, data, tmp_path, seeds=1)
    kept = tmp_path / "pictures/base/dog/00_3407.png"
    kept.write_bytes(b"kept as it is")
    (tmp_path / "pictures/base/dog/01_3407.png").unlink()
    made = make(policy, sigmas, data, tmp_path, seeds=2)
    assert (made.made, made.kept) == (26, 24) and kept.read_bytes() == b"kept as it is"
    assert pictures(tmp_path).keys() == pictures(whole).keys()
    with pytest.raises(UserError, match="another sigmas; give another --method"):
        make(policy, sigmas[:-1], data, tmp_path)
    with pytest.raises(UserError, match="another references"):
        make(policy, sigmas, data, tmp_path, references=False)


def test_an_unreadable_reference_costs_its_rows(policy, sigmas, tmp_path):
    data = draw_photographs(tmp_path / "data")
    (data / "dog" / "02.jpg").write_bytes(b"no picture")
    made = generate_dreambench(
        policy, sigmas, data, tmp_path, method="base", which="multi", subjects=("cat", "dog"), seeds=1
    )
    assert made.made == 0 and len(made.failed) == 25 and "can't be read" in made.failed["cat+dog 0"]


def test_from_the_policy_to_a_table(data, tmp_path):
    """The toybox's own rewards; the same call again makes nothing new, and other pictures come beside."""
    ask = Ask(subjects=("dog",), seeds=1)
    settings = ("sampling.steps=2",)

    def run(**more):
        return evaluate_dreambench(
            data, tmp_path / "out", ask=ask, settings=settings, metrics=("clip-i=toybox", "clip=toybox"), **more
        )

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
    told = json.loads((tmp_path / "out" / "dreambench.json").read_text())
    assert told["summary"] == first.summary and told["photographs"]["kind"] == "unknown"
    assert next(r["mean"] for r in first.summary if r["method"] == "copy-paste") == pytest.approx(1.0, abs=1e-4)
    before = first.scores.read_bytes()
    assert run().summary == first.summary and first.scores.read_bytes() == before

    theirs = tmp_path / "out" / "pictures" / "prompt-only"
    (theirs / "dog" / "24_3407.png").write_bytes(b"no picture")
    second = run(images=theirs, method="theirs")
    assert second.failed == 2
    assert [row["failed"] for row in second.summary if row["method"] == "theirs"] == [1, 1]


def test_mistakes_are_one_line(data, tmp_path):
    ask = Ask(subjects=("dog",), seeds=1)
    for more, match in (
        ({"method": "copy-paste"}, "always there"),
        ({"method": "a/b"}, "name of a folder"),
        ({"images": tmp_path, "metrics": ("clip-i=toybox",)}, "holds none of the pictures"),
        ({"ask": Ask(subjects=("dog",), seeds=0)}, "--seeds 0"),
    ):
        with pytest.raises(UserError, match=match):
            evaluate_dreambench(data, tmp_path / "out", **({"ask": ask, "metrics": ("clip-i=toybox",)} | more))
