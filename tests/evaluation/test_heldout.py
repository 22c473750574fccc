"""Held-out tasks: which a report shows, and best of n, by hand and in a run of no iterations."""

from __future__ import annotations

import json
import math

import pytest
import torch

from cgrpo.app.needs import make_final_tasks
from cgrpo.app.run import train
from cgrpo.build import make_policy
from cgrpo.config import load_config
from cgrpo.evaluation.heldout import HeldOut, Tasks, sample_arms, tasks_by_gain
from cgrpo.evaluation.sampling import ALONE, best_of
from cgrpo.evaluation.statistics.paired import Clusters
from cgrpo.reproduce import jobs_of, load_table
from cgrpo.scores import read_scores
from cgrpo.types import Batch

NAN = math.nan
TINY = ("evaluation.subjects=2", "evaluation.prompts_per_subject=2", "sampling.steps=3", "logging.tracker=none")


def made_result(gains: dict[str, list[float]]) -> tuple[HeldOut, dict[str, dict[str, str]]]:
    """Scores whose base is 0 or 1 by turns, spread alike in each metric."""
    count = len(next(iter(gains.values())))
    base = torch.arange(count) % 2.0
    scores = {name: {"base": base, "trained": base + torch.tensor(gain)} for name, gain in gains.items()}
    blank = torch.zeros(count, 2, 2, 3, dtype=torch.uint8)
    batch = Batch(("",) * count, ("",) * count, ((),) * count, ("",) * count)
    roles = {name: {"role": "judge" if "judge" in name else "reward"} for name in gains}
    tasks = Tasks(batch, [], Clusters(torch.arange(count), "subjects"), "", "", {})
    return HeldOut(tasks, blank, blank, scores), roles


def test_examples_are_the_largest_median_and_smallest_gains_of_the_judges() -> None:
    nan = float("nan")
    gains = {
        "judge 1": [0.3, -0.4, 0.0, 0.1, 0.2, nan, -0.1, 0.5],
        "judge 2": [0.3, -0.4, 0.0, 0.1, 0.2, 9.0, -0.1, 0.5],
    }
    result, roles = made_result(gains | {"reward": [-9.0, 9.0] * 4})
    chosen = tasks_by_gain(result, roles, each=2)
    assert chosen == {"largest gain": [7, 0], "median gain": [4, 3], "smallest gain": [6, 1]}  # of 7 0 4 3 2 6 1
    assert tasks_by_gain(result, roles, each=9)["smallest gain"] == [6, 1]  # none twice
    result, roles = made_result({"reward": [0.0, 1.0, 2.0]})
    assert tasks_by_gain(result, roles) == {"largest gain": [2], "median gain": [1], "smallest gain": [0]}
    result, roles = made_result({"judge": [nan] * 4})
    assert tasks_by_gain(result, roles) == {"largest gain": [], "median gain": [], "smallest gain": []}


def test_rewards_count_in_units_of_their_spread_within_tasks():
    # Task 0: identity 0 and 2, prompt 30 and 10. Task 1: identity 5 and 1, prompt 0 and 10. Means over tasks of the
    # variances: identity (2 + 8) / 2 = 5, prompt (200 + 50) / 2 = 125; std 2.236 and 11.18. Task 0: picture 1 gains
    # 0.894 and loses 1.789. Task 1: picture 1 loses 1.789 and gains 0.894. Added plainly, both would go by the prompt.
    scores_KNR = torch.tensor([[[0.0, 30.0], [5.0, 0.0]], [[2.0, 10.0], [1.0, 10.0]]])
    assert best_of(scores_KNR).tolist() == [0, 0]
    assert best_of(scores_KNR.flip(0)).tolist() == [1, 1]
    assert scores_KNR.sum(-1).argmax(0).tolist() == [0, 1]


def test_neither_scale_nor_shift_of_a_reward_matters():
    scores_KNR = torch.randn(5, 40, 3, generator=torch.Generator().manual_seed(0))
    other_KNR = scores_KNR * torch.tensor([100.0, 0.01, 1.0]) + torch.tensor([3.0, -2.0, 0.0])
    assert torch.equal(best_of(scores_KNR), best_of(other_KNR))
    assert len(set(best_of(scores_KNR).tolist())) == 5


def test_a_picture_that_could_not_be_scored_is_not_chosen():
    scores_KNR = torch.tensor([[[9.0, NAN], [1.0, 1.0], [NAN, NAN]], [[0.0, 0.0], [2.0, 2.0], [NAN, NAN]]])
    assert best_of(scores_KNR).tolist() == [1, 1, 0]


def test_equal_pictures_give_the_first():
    assert best_of(torch.full((3, 2, 2), 0.5)).tolist() == [0, 0]
    assert best_of(torch.ones(1, 4, 2)).tolist() == [0] * 4
    with pytest.raises(ValueError, match="K, N, R"):
        best_of(torch.ones(3, 2))


def test_the_first_is_the_bases_picture_and_seeds_draw_others():
    made = {}
    for seed in (0, 1):
        cfg = load_config("toybox", [*TINY, "evaluation.best_of=3", f"training.seed={seed}"])
        made[seed] = sample_arms(cfg, make_final_tasks(cfg), make_policy(cfg), ALONE)
    pictures = [made[0]["base"], *made[0]["trained"], *made[1]["trained"][1:]]
    assert torch.equal(made[0]["base"], made[0]["trained"][0]) and torch.equal(made[0]["base"], made[1]["trained"][0])
    assert len({picture.numpy().tobytes() for picture in pictures}) == 5
    one = load_config("toybox", TINY)
    assert sample_arms(one, make_final_tasks(one), make_policy(one), ALONE)["trained"].shape == made[0]["base"].shape


def test_a_run_of_no_iterations_keeps_the_best(tmp_path):
    run = train(load_config("toybox", [*TINY, "training.iterations=0", "evaluation.best_of=4"]), tmp_path / "run")
    metrics = json.loads((run / "summary.json").read_text())["metrics"]
    assert metrics["identity"]["difference"] + metrics["prompt"]["difference"] > 0
    assert {row.method for row in read_scores(run)} == {"base", "trained"}
    assert "the best of 4 pictures per task" in (run / "report.html").read_text()


def test_a_tables_row_is_a_training_of_no_iterations():
    jobs = jobs_of(load_table("rivals"), "toybox", "hard", [0, 1])
    assert [job.config.evaluation.best_of for job in jobs["best of 4"]] == [4, 4]
    assert {job.config.training.iterations for job in jobs["best of 4"]} == {0}
    assert len({job.key for name in ("best of 2", "best of 4", "best of 12") for job in jobs[name]}) == 6
    assert not {"best of 2", "base"} & jobs_of(load_table("rivals"), "full", "", [0]).keys()
