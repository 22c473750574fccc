"""What a result keeps of a run whose evaluation counts copies: judges on the other tasks, and the checks' curves."""

import json
import math
from pathlib import Path

import pytest

from cgrpo.config import load_config
from cgrpo.reproduce import jobs_of, load_table
from cgrpo.reproduce.results import result_of
from cgrpo.reproduce.runs import content_key
from cgrpo.scores import ScoreRow, write_scores

SCORES = {  # metric: arm: a task's score; tasks 0 and 1 are one subject's, 2 another's
    "identity_readback": {"base": [0.5, 0.7, 0.4], "trained": [0.6, 0.9, 0.5]},
    "copies": {"base": [0.0, 0.0, 1.0], "trained": [0.0, 1.0, 0.0]},
}
ROLES = {"identity_readback": "judge", "copies": "guard"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = [
        ScoreRow(arm, f"toy-{task // 2}", task % 2, "a toy", 0, metric, "one", score, "", None)
        for metric, arms in SCORES.items()
        for arm, scores in arms.items()
        for task, score in enumerate(scores)
    ]
    write_scores(tmp_path, rows)
    metrics = {name: {"role": role, "axis": "identity"} for name, role in ROLES.items()}
    summary = {"iterations": 40, "seconds": {"training": 1.0}, "metrics": metrics}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "environment.json").write_text('{"device": "cpu"}')
    checks = [
        {"iteration": it, "metrics": {"copies": {"base": 0.2, "trained": copies}}}
        for it, copies in ((20, 0.1), (40, 0))
    ]
    (tmp_path / "guard.jsonl").write_text("".join(json.dumps(check) + "\n" for check in checks))
    return tmp_path


def test_judges_are_kept_on_tasks_that_neither_arm_copies(run: Path) -> None:
    (job,) = jobs_of(load_table("copy"), "toybox", "copy", [0])["forward naive"]
    metrics = result_of(job, run)["metrics"]
    assert metrics["copies"]["trained"] == [0.5, 0.0]
    assert metrics["identity_readback"]["trained"] == [0.75, 0.5]
    others = metrics["identity_readback, no copies"]
    assert others["role"] == "guard"  # no claim is judged by it
    assert others["base"][0] == 0.5 and others["trained"][0] == 0.6 and math.isnan(others["base"][1])


def test_checks_are_kept_from_the_base_on(run: Path) -> None:
    (job,) = jobs_of(load_table("copy"), "toybox", "copy", [0])["forward naive"]
    assert "guard.every=20" in job.settings
    kept = result_of(job, run)["checks"]
    assert kept == {"iterations": [0, 20, 40], "metrics": {"copies": [0.2, 0.1, 0.0]}}
    (run / "guard.jsonl").unlink()
    assert "checks" not in result_of(job, run)


def test_a_row_of_another_table_has_no_checks() -> None:
    jobs = jobs_of(load_table("table2"), "toybox", "mild", [0])
    assert all("guard.every=0" in job.settings for row in jobs.values() for job in row)


def test_the_recipes_are_the_worlds() -> None:
    """`cgrpo train copy` and `copy-forward` are rows of the table."""
    jobs = jobs_of(load_table("copy"), "toybox", "copy", [0])
    assert content_key(load_config("copy")) == jobs["GRPO full"][0].key
    unused = "weights.prompt=0.55"  # of recipe forward's constant weights; a schedule has no use for it
    assert content_key(load_config("copy-forward", [unused])) == jobs["forward full"][0].key
