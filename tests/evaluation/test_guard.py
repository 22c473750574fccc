"""The guard's measures against pictures worked out by hand, and its conclusions against rows made by hand."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cgrpo.evaluation.guard import (
    best_check,
    best_in_words,
    exhausted,
    gains,
    is_best,
    new_warnings,
    rank,
    stopped_in_words,
    untouched,
    warnings,
)
from cgrpo.evaluation.pages.report.guard import distinct_warnings, guard_section
from cgrpo.evaluation.statistics.paired import clusters_of
from cgrpo.rewards.measures import brightness, measures
from cgrpo.types import Batch

NAN = math.nan


def batch(*references: tuple[Image.Image, ...]) -> Batch:
    count = len(references)
    return Batch(tuple(map(str, range(count))), ("a toy",) * count, references, ("toy",) * count)


def measured(name: str, image_HWC: torch.Tensor, *references: Image.Image) -> float:
    return measures()[name](image_HWC[None], batch(references)).item()


def flat(*colour: int, height: int = 8, width: int = 8) -> torch.Tensor:
    return torch.tensor(colour, dtype=torch.uint8).expand(height, width, 3).clone()


# -- measures --------------------------------------------------------------------------------------


WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (255, 0, 0)
RED_PHOTO, GREY_PHOTO = Image.new("RGB", (40, 20), RED), Image.new("RGB", (9, 9), (128, 128, 128))


def painted(paint, where, height=8, width=8):
    """Black, and ``paint`` at the places ``where``."""
    picture = flat(*BLACK, height=height, width=width)
    picture[where] = paint
    return picture


@pytest.mark.parametrize(
    ("name", "picture", "references", "expected"),
    [
        ("brightness", flat(*WHITE), (), 1),
        ("brightness", flat(*RED), (), 0.299),  # mean luma
        ("brightness", painted(255, slice(4)), (), 0.5),
        ("saturation", flat(*BLACK), (), 0),  # HSV's
        ("saturation", flat(90, 90, 90), (), 0),
        ("saturation", flat(200, 100, 50), (), 150 / 200),
        # One straight edge across is 1 at any size, and edges count by length and contrast.
        *(("edge_density", painted(255, (slice(None), slice(n // 2, n)), n, n), (), 1) for n in (8, 32, 128)),
        ("edge_density", flat(9, 9, 9, height=32, width=32), (), 0),
        # 0.4 of the way to white, along 32 of sqrt(8 * 32) = 16 pixels
        ("edge_density", painted(102, slice(4, 8), 8, 32), (), 0.4 * 2),
        # one pixel with a step to the right and one below: sqrt(2) / 64 pixels * 8
        ("edge_density", painted(255, (0, 0)), (), math.sqrt(2) / 8),
        ("edge_density", painted(255, (slice(None), torch.arange(32) // 8 % 2 == 1), 32, 32), (), 3),  # edges across
        ("edge_density", painted(255, (slice(None), torch.arange(32) // 2 % 2 == 1), 32, 32), (), 15),
        # 1 for a copy at any size; of several references the nearest counts.
        ("copy_paste", flat(*RED, height=64, width=48), (RED_PHOTO,), 1),
        ("copy_paste", flat(*BLACK), (RED_PHOTO,), 2 / 3),
        ("copy_paste", flat(*BLACK), (RED_PHOTO, GREY_PHOTO), 2 / 3),  # 1/3 off, not 1/2
        ("copy_paste", flat(127, 127, 127), (RED_PHOTO, GREY_PHOTO), 1 - 1 / 255),
        ("copy_paste", flat(*BLACK), (), NAN),
    ],
)
def test_measures_by_hand(name, picture, references, expected):
    assert measured(name, picture, *references) == pytest.approx(expected, nan_ok=True)


def test_brightness_is_a_reward_too():
    pictures = [Image.fromarray(image.numpy()) for image in (painted(255, slice(4)), flat(*RED))]
    assert brightness(pictures, batch((), ())) == pytest.approx([0.5, 0.299])


def test_copies_are_counted_above_the_threshold():
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    counted = measures(0.9)["copies"]
    pictures = torch.stack([flat(255, 0, 0), flat(255, 60, 0), flat(255, 90, 0), flat(0, 0, 0)])
    assert counted(pictures, batch((red,), (red,), (red,), (red,))).tolist() == [1, 1, 0, 0]  # 1, .92, .88, .67 near
    assert math.isnan(counted(pictures[:1], batch(())).item())
    assert "copies" not in measures()


# -- tasks -----------------------------------------------------------------------------------------


def test_tasks_with_the_same_references_are_one_cluster():
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    rows = batch((red,), (blue,), (red.copy(),), (red, blue), (blue, red))
    found = clusters_of(rows)
    assert found.number_N.tolist() == [0, 1, 0, 2, 2] and found.unit == "subjects"
    named = replace(rows, subject_ids=("a", "b", "c", "", ""))  # what the data set says goes before what is seen
    assert clusters_of(named).number_N.tolist() == [0, 1, 2, 3, 3]


def test_of_one_subject_the_prompts_are_the_sample():
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    rows = replace(batch((red,), (blue,), (red,)), subject_ids=("mine",) * 3, prompts=("at night", "wet", "at night"))
    found = clusters_of(rows)
    assert (found.number_N.tolist(), found.unit, found.count) == ([0, 1, 0], "prompts", 2)
    assert clusters_of(rows.select([0, 2])).unit == "subjects"  # one prompt alone is no sample either


def test_random_states_are_left_alone():
    def draw() -> tuple:
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    def start() -> None:
        random.seed(1), np.random.seed(1), torch.manual_seed(1)

    start()
    expected = draw()
    start()
    with untouched(torch.device("cpu")):
        torch.manual_seed(7)
        draw()
    assert draw() == expected


# -- conclusions -----------------------------------------------------------------------------------


def metric(role, axis, difference, half=0.01, spread=0.2, base=0.5):
    bounds = {"low": difference - half, "high": difference + half}
    return {"role": role, "axis": axis, "base": base, "trained": base + difference, "difference": difference} | {
        **bounds,
        "spread": spread,
        "failed": 0,
    }


def judged(identity: float, prompt: float) -> dict:
    """Judges' metrics with these gains (in spreads)."""
    return {
        "i": metric("judge", "identity", 0.2 * identity),
        "p": metric("judge", "prompt", 0.2 * prompt),
        "reward": metric("reward", "identity", 9.0),
    }


def checks(*points: tuple[float, float]) -> list[dict]:
    """Rows of checks with these gains, every 10 iterations, concluded on as in a run."""
    rows: list[dict] = []
    for number, point in enumerate(points):
        metrics = judged(*point)
        row = {"iteration": 10 * (number + 1), "unit": "subjects", "metrics": metrics, "best": is_best(metrics, rows)}
        rows.append(row | {"warnings": [warn.text for warn in warnings(metrics)]})
    return rows


def test_gains_are_the_judges_shifts_in_spreads_of_the_base_averaged_over_an_axis():
    metrics = judged(0.5, -0.25) | {"other": metric("judge", "identity", 0.3, spread=0.1)}
    assert gains(metrics) == pytest.approx({"identity": (0.5 + 3) / 2, "prompt": -0.25})
    assert gains({name: m for name, m in metrics.items() if m["axis"] == "prompt"}) == pytest.approx({"prompt": -0.25})


def test_without_any_judge_the_rewards_stand_in():
    metrics = {"r": metric("reward", "prompt", 0.1), "copy_paste": metric("guard", "identity", 0.4)}
    assert gains(metrics) == pytest.approx({"prompt": 0.5})
    assert gains({"copy_paste": metrics["copy_paste"]}) == {}
    assert not is_best({"copy_paste": metrics["copy_paste"]}, [])


def test_best_is_the_check_with_the_greatest_lesser_gain():
    rows = checks((0.2, 0.1), (0.9, 0.05), (0.15, 0.3), (0.1, 0.14))
    assert [row["best"] for row in rows] == [True, False, True, False]
    assert best_check(rows)["iteration"] == 30
    assert best_in_words(rows) == "best checkpoint: iteration 30 (identity +0.15 SD, prompt +0.30 SD)"


def test_a_tie_of_the_lesser_gain_goes_to_the_larger_sum_and_a_whole_tie_to_the_first():
    rows = checks((0.1, 0.2), (0.1, 0.3), (0.3, 0.1), (0.1, 0.25))
    assert [row["best"] for row in rows] == [True, True, False, False]


def test_the_base_wins_where_no_check_beats_it_on_both_axes():
    rows = checks((0.5, -0.01), (0.0, 0.8), (-0.2, -0.1))
    assert best_check(rows) is None
    assert best_in_words(rows) == "no check was better than the base on all axes, so no best adapter is kept"


def test_the_best_is_on_the_pareto_front():
    rng = torch.Generator().manual_seed(0)
    for _ in range(50):
        points = [tuple(point) for point in torch.randint(1, 5, (8, 2), generator=rng).tolist()]
        rows = checks(*points)
        best = points[rows.index(best_check(rows))]
        assert not any(p != best and p[0] >= best[0] and p[1] >= best[1] for p in points)


def test_missing_scores_and_a_base_without_spread_are_never_taken_for_good():
    assert rank(judged(NAN, 0.5)) == (-math.inf, -math.inf)
    missing = judged(0.5, 0.5) | {"p": metric("judge", "prompt", 0.1) | {"difference": None}}
    assert not is_best(missing, [])
    still = {"i": metric("judge", "identity", 0.1, spread=0.0), "p": metric("judge", "prompt", 0.0, spread=0.0)}
    assert gains(still) == {"identity": math.inf, "prompt": 0.0} and not is_best(still, [])
    assert is_best(still | {"p": metric("judge", "prompt", 0.1)}, [])


def test_patience_counts_checks_since_the_best():
    better, worse = (0.3, 0.3), (0.1, 0.1)
    assert not exhausted([], 1)
    assert exhausted(checks((-1.0, 0.0)), 1)
    assert not exhausted(checks(better, worse), 2)
    rows = checks(better, worse, worse)
    assert exhausted(rows, 2) and not exhausted(rows, 3) and not exhausted(rows, 0)
    assert not exhausted([*rows, *checks((0.4, 0.4))], 2)
    assert stopped_in_words(rows, 2, 30) == (
        "stopped early at iteration 30: 2 checks in a row brought none better than that of iteration 10"
    )
    assert stopped_in_words(checks(worse[::-1])[:0], 2, 20).endswith("none better than the base")


def test_a_reward_that_rises_while_its_judge_falls_is_being_hacked():
    metrics = {
        "identity": metric("reward", "identity", 0.04),
        "prompt": metric("reward", "prompt", 0.04),
        "seen": metric("judge", "identity", -0.031),
        "read": metric("judge", "prompt", 0.02),
    }
    (found,) = warnings(metrics)
    assert found.text == "identity reward rose by +0.04 while seen fell by 0.031: the reward is being hacked"
    metrics["identity"] = metric("reward", "identity", 0.005)  # within its interval: no rise
    (found,) = warnings(metrics)
    assert found.text == "seen fell by 0.031 against the base (95 % interval -0.041 to -0.021)"
    assert warnings(metrics | {"seen": metric("judge", "identity", -0.009)}) == []


def test_guards_are_silent_up_to_half_a_spread():
    def said_of(**metrics):
        return [warn.text for warn in warnings(metrics)]

    assert said_of(brightness=metric("guard", "picture", 0.099, spread=0.2)) == []
    assert said_of(brightness=metric("guard", "picture", -0.11, half=0.2, spread=0.2)) == []  # may be nothing
    assert said_of(brightness=metric("guard", "picture", -0.11, spread=0.2)) == [
        "brightness fell from 0.5 to 0.39, by more than half the base's standard deviation over tasks (0.2)"
    ]
    assert said_of(copy_paste=metric("guard", "identity", -0.3, spread=0.2)) == []  # less of a copy is no harm
    (text,) = said_of(copy_paste=metric("guard", "identity", 0.3, spread=0.2))
    assert text.endswith("pictures come closer to copies of their references")


def test_the_most_serious_comes_first_and_silence_is_said_too():
    metrics = {
        "other": metric("judge", "prompt", -0.05),
        "identity": metric("reward", "identity", 0.04),
        "seen": metric("judge", "identity", -0.05),
        "gone": metric("judge", "prompt", NAN),
    }
    assert [warn.kind for warn in warnings(metrics)] == [("hacked", "seen"), ("fell", "other"), ("silent", "gone")]


def test_only_new_warnings_are_printed():
    rows = checks((0.1, -0.5), (0.1, -0.6), (-0.5, -0.7), (0.1, 0.1), (0.1, -0.5))
    printed = [len(new_warnings(row, rows[:number])) for number, row in enumerate(rows)]
    assert printed == [1, 0, 1, 0, 1]
    shown_once = [(at, text.split()[0]) for at, text in distinct_warnings(rows)]
    assert shown_once == [("10, 20, 30, 50", "p"), ("30", "reward")]


# -- the report's section --------------------------------------------------------------------------


def shown(rows):
    return "\n".join(block.__html__() for block in guard_section(rows).blocks)


def test_the_section_shows_lines_path_and_best():
    rows = checks((0.2, 0.1), (0.3, 0.2), (0.5, -0.1))
    for row in rows:
        row["metrics"]["brightness"] = metric("guard", "picture", 0.15)
    page = shown(rows)
    assert page.count("<svg") == 4 and "iteration 20: +0.30, +0.20" in page
    assert "Best (20)" in page and "Last (30)" in page
    assert "Best checkpoint: iteration 20 (identity +0.30 SD, prompt +0.20 SD)." in page


def test_the_section_bears_missing_numbers():
    nothing = dict.fromkeys(("base", "trained", "difference", "low", "high", "spread"))
    metrics = {"i": {"role": "judge", "axis": "identity", "failed": 4} | nothing}
    row = {"iteration": 10, "unit": "subjects", "metrics": metrics, "best": False, "warnings": []}
    assert "<svg" not in shown([row]) and "\N{EN DASH} to \N{EN DASH}" in shown([row])
