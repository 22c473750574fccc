"""Which held-out tasks a report shows."""

from __future__ import annotations

import torch

from cgrpo.evaluation.heldout import HeldOut, Tasks, tasks_by_gain
from cgrpo.evaluation.statistics import Clusters
from cgrpo.types import Batch


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
