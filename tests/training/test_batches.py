"""Batch sizes by measurement: the fastest that fits, kept so that a resumed run has the same."""

import math

import pytest
from support.runs import distance, interrupted

from cgrpo.app.run import train
from cgrpo.config import load_config
from cgrpo.plan import plan
from cgrpo.training import batches
from cgrpo.training.batches import doubled, fastest_size
from cgrpo.training.record import RunRecord

AUTO = ("training.micro_batch=auto", "sampling.batch=auto")


@pytest.mark.parametrize(
    ("first", "most", "sizes"), [(1, 1, [1]), (1, 8, [1, 2, 4, 8]), (12, 72, [12, 24, 48, 72]), (4, 2, [4])]
)
def test_sizes_are_doubled_up_to_the_most(first, most, sizes):
    assert doubled(first, most) == sizes


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({1: 1.0, 2: 1.5, 4: 2.8, 8: 5.59}, 4),  # 8 is hardly faster per row
        ({1: 1.0, 2: 2.0, 4: 0.1}, 1),  # no gain is the end of the search
        ({1: 1.0, 2: 1.1, 4: math.inf}, 2),  # 4 does not fit
        ({1: math.inf, 2: 1.0}, 1),  # nothing fits: training says so
    ],
)
def test_the_fastest_size_that_fits(seconds, best):
    assert fastest_size(list(seconds), seconds.__getitem__) == best


def test_measured_sizes_are_recorded_and_a_resumed_run_repeats_them(small, tmp_path, monkeypatch, capfd):
    interrupted(monkeypatch, 3, lambda: train(small(*AUTO), tmp_path / "run"))
    _, kept = RunRecord.open(tmp_path / "run")
    sizes = (f"training.micro_batch={kept.training.micro_batch}", f"sampling.batch={kept.sampling.batch}")
    assert f"measured: {sizes[0].replace('=', ' = ')}, {sizes[1].replace('=', ' = ')}" in capfd.readouterr().err

    monkeypatch.setattr(batches, "fastest_size", lambda *arguments: pytest.fail("measured again"))
    resumed = train(small(*AUTO), resume=tmp_path / "run")
    assert distance(resumed, train(small(*sizes), tmp_path / "whole")) == 0


def test_a_plan_of_sizes_to_be_measured_is_that_of_the_smallest():
    auto, smallest = (load_config("toybox", s) for s in (AUTO, ("training.micro_batch=1", "sampling.batch=1")))
    assert plan(auto).work == plan(smallest).work
