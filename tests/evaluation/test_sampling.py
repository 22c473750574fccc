"""Held-out pictures: who makes which, by how many forwards, from which noise, and what is written down of it."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from support.warm import Started

import cgrpo
from cgrpo.app.main import main
from cgrpo.errors import UserError
from cgrpo.evaluation.sampling import (
    ALONE,
    Work,
    check_pictures,
    gather_parts,
    in_turns,
    picture_settings,
    sample_tasks,
    seed_noise,
    task_noise,
    turns,
)
from cgrpo.types import Batch


class Process(type(ALONE)):
    """One of ``world``, without the others."""

    def __init__(self, rank, world, sharded=False):
        self.rank, self.world, self.sharded = rank, world, sharded


@pytest.fixture(scope="module")
def policy():
    return cgrpo.load_policy()


@pytest.fixture(scope="module")
def sigmas(policy):
    return policy.sigmas(2, 1.5)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize(("count", "world"), [(0, 3), (1, 2), (5, 2), (6, 3), (7, 3), (4, 1)])
def test_each_piece_is_one_processes_and_a_sharded_base_has_equally_many_turns(count, world, sharded):
    found = [list(turns(count, Process(rank, world, sharded))) for rank in range(world)]
    assert sorted(number for turn in found for number, mine in turn if mine) == list(range(count))
    lengths = {len(turn) for turn in found}
    assert lengths == {-(-count // world)} if sharded else max(lengths) - min(lengths) <= 1
    assert all(0 <= number < count for turn in found for number, _ in turn)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_what_the_processes_found_comes_back_in_the_tasks_order(world):
    parts = [[3, 0], [5], [1, 4, 2], [6]]
    rows = torch.arange(14.0).view(7, 2)
    own = [torch.cat([torch.zeros(0, 2), *(rows[part] for part in parts[rank::world])]) for rank in range(world)]
    sent = []

    class Listening(Process):
        def gather(self, values):
            sent.append(values)
            return values.repeat(world, 1)

    for rank in range(world):
        gather_parts(own[rank], parts, Listening(rank, world))

    class Told(Process):
        def gather(self, values):
            return torch.cat(sent)

    assert torch.equal(gather_parts(own[0], parts, Told(0, world)), rows)


def test_two_kinds_of_noise(policy):
    tasks = task_noise(policy, ["a", "b"])
    assert torch.equal(tasks[1:], task_noise(policy, ["b"])) and not torch.equal(tasks[0], tasks[1])
    assert not torch.equal(tasks, task_noise(policy, ["a", "b"], seed=1))
    assert torch.equal(seed_noise(policy, (3, 4))[1:], policy.noise(4))


def test_tasks_of_several_sizes_come_in_order(policy, sigmas):
    pictures = [Image.effect_noise(size, 60 + 20 * n).convert("RGB") for n, size in enumerate([(32, 32), (32, 16)])]
    shown = tuple((pictures[n % 2],) for n in range(3))
    batch = Batch(("a", "b", "c"), ("a toy at night",) * 3, shown, ("toy",) * 3)
    whole = sample_tasks(policy, sigmas, batch, 4, ALONE)
    assert whole.shape == (3, 32, 32, 3) and whole.dtype == torch.uint8
    alone = [sample_tasks(policy, sigmas, batch.select([n]), 4, ALONE)[0] for n in range(3)]
    # Batched sums round otherwise: a level or two.
    assert max((one.int() - other.int()).abs().max() for one, other in zip(whole, alone, strict=True)) <= 2
    assert not torch.equal(whole[0], whole[2])


def test_every_process_makes_as_many_forwards_come_what_may(policy, sigmas, monkeypatch):
    """A reference that can't be read, or is too narrow, on one process; more processes than work on another."""
    task = Batch(("a",), ("a toy at night",), ((),), ("toy",))
    narrow = Batch(("b",), ("a toy at night",), ((Image.new("RGB", (200, 2)),),), ("toy",))

    def unreadable():
        raise UserError("can't be read")

    works = [
        lambda: Work(task, task_noise(policy, ["a"])),
        unreadable,
        lambda: Work(narrow, task_noise(policy, ["b"])),
    ]
    forwards, velocity = [], type(policy).velocity
    monkeypatch.setattr(
        type(policy), "velocity", lambda *given, **named: forwards.append(1) or velocity(*given, **named)
    )

    def ran(rank, world, sharded):
        forwards.clear()
        found = list(in_turns(policy, sigmas, works, Process(rank, world, sharded)))
        return [number for number, made in found if isinstance(made, UserError)], len(found), len(forwards)

    assert [ran(rank, 2, True) for rank in (0, 1)] == [([2], 2, 4), ([1], 1, 4)]
    assert [ran(rank, 2, False) for rank in (0, 1)] == [([2], 2, 2), ([1], 1, 0)]


CHANGES = {
    "height": {"height": 24},
    "reference_size": {"reference_size": 24},
    "several_size": {"several_size": 16},
    "reference_rule": {"reference_rule": "kontext"},
    "reference_latents": {"reference_latents": "sample"},
    "position_ids": {"position_ids": "w"},
    "guidance": {"guidance": 4.0},
}


def test_pictures_made_otherwise_do_not_mix(policy, sigmas, tmp_path):
    for write in (True, False):
        check_pictures(tmp_path, picture_settings(policy, sigmas), write)
    for key, settings in CHANGES.items():
        with pytest.raises(UserError, match=rf"made with another .*{key}.*; give another --method or --out"):
            check_pictures(tmp_path, picture_settings(cgrpo.load_policy(**settings), sigmas), write=True)
    with pytest.raises(UserError, match="another sigmas"):
        check_pictures(tmp_path, picture_settings(policy, sigmas[:-1]), write=True)
    with pytest.raises(UserError, match="another (transformer, )?references;"):
        check_pictures(tmp_path, picture_settings(policy, sigmas, alone=True), write=True)


def test_pictures_that_do_not_say_how_they_were_made_are_refused(policy, sigmas, tmp_path):
    settings = picture_settings(policy, sigmas)
    before = {key: value for key, value in settings.items() if key != "several_size"}
    (tmp_path / "generation.json").write_text(json.dumps(before))
    with pytest.raises(UserError, match="another several_size"):
        check_pictures(tmp_path, settings, write=True)
    (tmp_path / "generation.json").write_text("{")
    with pytest.raises(UserError, match="generation.json: can't be read"):
        check_pictures(tmp_path, settings, write=True)


def test_a_sharded_base_makes_the_same_pictures(tmp_path):
    """Two processes, of which one meets a picture that can't be read, and rows that are there already."""
    rows = [{"prompt": f"a toy {place}", "subject": "toy", "references": [f"{n}.png"]} for n, place in enumerate(
        ["at night", "in the snow", "on the beach", "on the left"])]  # fmt: skip
    for number in (0, 2, 3):
        Image.effect_noise((32, 32), 60 + 20 * number).convert("RGB").save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    (tmp_path / "m.json").write_text(json.dumps(rows))
    ask = ["evaluate", "manifest", str(tmp_path / "m.json"), "--seeds", "2", "--metric", "copy_paste"]
    ask += ["--set", "sampling.steps=2"]
    one = Started(main, [*ask, "--out", str(tmp_path / "one")], threads=1).wait()  # as many as each of the two has
    assert one.returncode == 1  # rows without a score: the broken picture's
    for file in (tmp_path / "one").glob("pictures/base/*/00_3407.png"):
        if file.parent.name == "toy-3":
            copy = tmp_path / "two" / file.relative_to(tmp_path / "one")
            copy.parent.mkdir(parents=True)
            copy.write_bytes(file.read_bytes())
    done = Started(main, [*ask, "--set", "training.parallel=fsdp2", "--out", str(tmp_path / "two")], 2).wait()
    assert "prompts without a picture" in done.stderr and "1.png" in done.stderr
    made = [
        {str(file.relative_to(tmp_path / out)): file.read_bytes() for file in (tmp_path / out).rglob("*.png")}
        for out in ("one", "two")
    ]
    assert len(made[0]) == 3 * 2 + 4 * 2 and made[0] == made[1]
    scores = [{row.key: row.score for row in cgrpo.read_scores(tmp_path / out)} for out in ("one", "two")]
    assert len(scores[0]) == 20 and scores[0] == scores[1]
