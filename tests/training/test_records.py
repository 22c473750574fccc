"""What a run keeps, when it was spoilt: metrics, checkpoints, scores that say nothing; and the run of a tracker."""

import json
import math
import sys

import pytest
import torch
from accelerate import tracking
from accelerate.utils import LoggerType
from support.runs import distance

from cgrpo.app.run import train
from cgrpo.config import load_config
from cgrpo.errors import UserError
from cgrpo.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from cgrpo.training.record import RunRecord
from cgrpo.training.runtime import Runtime
from cgrpo.training.scoring import BrokenRewards
from cgrpo.training.speed import speed

NAN = math.nan
LINES = [f'{{"iteration": {n}, "seconds/total": 1.0}}' for n in range(5)]


@pytest.mark.parametrize(
    ("spoil", "left"),
    [
        (lambda lines: lines, [0, 1, 2, 3, 4]),
        (lambda lines: [], []),
        (lambda lines: ["5"], []),
        (lambda lines: ["[]", "null", '"x"', "{}", '{"iteration": null}', '{"iteration": "3"}'], []),
        (lambda lines: [*lines[:2], lines[2][:9], *lines[3:]], [0, 1, 3, 4]),  # cut within
        (lambda lines: [*lines[:4], lines[4][:9]], [0, 1, 2, 3]),  # cut by a kill
        (lambda lines: [*lines[:1], *lines[2:]], [0, 2, 3, 4]),
        (lambda lines: ["", *lines, "", ""], [0, 1, 2, 3, 4]),
        (lambda lines: [*lines[:2], "\0" * 40, *lines[2:]], [0, 1, 2, 3, 4]),  # as a power cut leaves it
        (lambda lines: [*lines[:2], "\udcff", *lines[2:]], [0, 1, 2, 3, 4]),
        (lambda lines: [*lines[:2], lines[2] + lines[3], lines[4]], [0, 1, 4]),  # a line break lost
    ],
)
def test_lines_that_cannot_be_read_are_left_out_and_counted(tmp_path, spoil, left):
    record = RunRecord(tmp_path)
    text = "".join(f"{line}\n" for line in spoil(LINES))
    for file in (record.metrics_file, record.guard_file):
        file.write_bytes(text.encode(errors="surrogateescape"))
    assert [row["iteration"] for row in record.rows()] == [row["iteration"] for row in record.checks()] == left
    kept = [number for number in left if number < 4]
    assert record.rewind(4) == 4 - len(kept)
    assert [row["iteration"] for row in record.rows()] == kept


def test_a_run_with_lost_lines_resumes_and_keeps_its_length(small, tmp_path, capsys):
    run = train(small(), tmp_path / "run")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text(f"{lines[0]}\n{lines[2]}\n")
    (run / "checkpoints" / "step-3").rename(run / "checkpoints" / "step-3.bak")
    train(small("training.iterations=4"), resume=run)
    assert "metrics.jsonl: 1 of the first 2 iterations have no readable line" in capsys.readouterr().err
    assert json.loads((run / "summary.json").read_text())["iterations"] == 4
    assert json.loads((run / "speed.json").read_text())["iterations"] == 2  # of three readable rows
    assert "4 iterations" in (run / "report.html").read_text()
    assert distance(run, train(small("training.iterations=4"), tmp_path / "whole")) == 0


@pytest.mark.parametrize(
    "name", ["step-4.bak", "step-4 (copy)", "step-", "step-x", "step--1", "step-4.5", "step-9.zip"]
)
def test_a_copy_of_a_checkpoint_is_no_checkpoint(tmp_path, name):
    for folder in ("step-2", "step-10", ".step-11.partial", name):
        (tmp_path / folder).mkdir()
    (tmp_path / "step-12").write_text("a file")
    assert [path.name for path in checkpoints(tmp_path)] == ["step-2", "step-10"]


@pytest.mark.parametrize(
    "index",
    [
        *("", "\0", "[]", "5", "null", "{}", '{"iteration": 1}', None),
        '{"iteration": [], "settings": {}, "sha256": ""}',
        '{"iteration": 1, "settings": 3, "sha256": ""}',
        '{"iteration": 1, "settings": {}, "sha256": ""}',
    ],
)
def test_a_spoilt_checkpoint_is_one_line(tmp_path, index):
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    state = dict(layer.named_parameters()), optimizer
    save_checkpoint(tmp_path, 1, *state, {}, {"a": 1}, keep=1)
    assert load_checkpoint(tmp_path, *state, {}, {"a": 1}) == 1
    file = tmp_path / "step-1" / "index.json"
    file.unlink() if index is None else file.write_text(index)
    with pytest.raises(UserError, match="step-1"):
        load_checkpoint(tmp_path, *state, {}, {"a": 1})


@pytest.mark.parametrize(
    ("scores", "how"),
    [
        ([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]], "no group two different scores"),
        ([[0.5, NAN, 0.5], [NAN, NAN, 0.1]], "no group two different scores"),  # a constant, and NaN for some
        ([[0.5, NAN, NAN], [0.7, NAN, NAN]], "no group two different scores"),  # one of each group
        ([[0.0, -0.0, NAN], [0.1, 0.1, NAN]], "no group two different scores"),
        ([[NAN, NAN, NAN], [0.1, 0.2, 0.3]], "NaN for whole groups"),
        ([[NAN, NAN, NAN], [NAN, NAN, NAN]], "NaN for whole groups"),
        ([[0.5, 0.5, 0.5], [0.1, NAN, 0.2]], ""),
        ([[0.5, 0.6, NAN], [0.1, NAN, NAN]], ""),
    ],
)
def test_a_group_without_two_different_scores_is_dead(scores, how):
    broken = BrokenRewards(["identity", "prompt"], limit=3)
    good_PG = torch.tensor([[0.1, 0.2, 0.3]] * 2)
    scores_PGR = torch.stack([good_PG, torch.tensor(scores)], -1)
    for _ in range(2):
        broken.watch(scores_PGR)
    if how:
        with pytest.raises(UserError, match=f"'prompt'.*{how}"):
            broken.watch(scores_PGR)
    broken.watch(torch.stack([good_PG, good_PG], -1))  # one good iteration, and the count begins anew
    broken.watch(scores_PGR)


WANDB = """
calls = []
class config:
    @staticmethod
    def update(values, **more): calls.append(("config", values))
class Run:
    def log(self, values, step=None, **more): calls.append(("log", step))
    def finish(self): calls.append(("finish",))
def init(**settings):
    calls.append(("init", settings))
    return Run()
"""


def test_a_tracker_has_one_named_run_with_its_settings_over_a_resume(tmp_path, monkeypatch):
    (tmp_path / "lib" / "wandb").mkdir(parents=True)
    (tmp_path / "lib" / "wandb" / "__init__.py").write_text(WANDB)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [LoggerType.WANDB])
    cfg, records = load_config(settings=["training.seed=7"]), []
    for name in ("naive-1", "naive-1", "naive-2"):  # begun, resumed, another
        folder = tmp_path / name
        record = RunRecord(folder) if folder.exists() else RunRecord.create(folder, cfg)
        runtime = Runtime("wandb", folder)
        runtime.start_tracking(folder, record.id, cfg.model_dump(mode="json"))
        runtime.log({"kl": 0.1}, 3)
        runtime.close()
        records.append(record)
    calls = sys.modules["wandb"].calls
    begun, resumed, other = [more[0] for what, *more in calls if what == "init"]
    assert begun == resumed and begun["project"] == other["project"] == "cgrpo"
    assert (begun["name"], other["name"]) == ("naive-1", "naive-2")
    assert begun["resume"] == "allow" and begun["id"] != other["id"]
    settings = next(more[0] for what, *more in calls if what == "config")
    assert settings["training.seed"] == 7 and settings["rewards.identity.type"] == cfg.rewards["identity"].type
    assert all(isinstance(value, int | float | str) for value in settings.values())
    assert calls[-2:] == [("log", 3), ("finish",)]
    monkeypatch.delitem(sys.modules, "wandb")


def test_speed_is_told_in_medians_with_rewards_and_without(small):
    """24 rows of 2 x 4 samples on 2 GPUs; the first, slow one is left out. 4 s: 8 samples per 2 * 4 s."""
    row = {"seconds/total": 4.0, "seconds/sample": 1.0, "seconds/reward": 2.0, "seconds/update": 1.0}
    rows = [row | {"seconds/total": 900.0}, *[row] * 21, row | {"seconds/total": 50.0}, row | {"memory/peak_gib": 30.5}]
    told = speed(small(), rows, {"device": "H100", "began": "today"}, 2)
    assert told is not None and told["comparable"] and told["iterations"] == 23
    assert told["seconds"] == {"median": 4.0, "quartiles": [4.0, 4.0]}
    assert told["seconds_by_phase"] == {"sample": 1.0, "reward": 2.0, "update": 1.0}
    assert told["samples_per_gpu_hour"] == 3600 and told["samples_per_gpu_hour_without_rewards"] == 7200
    assert told["peak_gib"] == 30.5 and told["environment"] == {"device": "H100"}
    few = speed(small(), rows[:20], {}, 1)
    assert few is not None and not few["comparable"] and speed(small(), rows[:1], {}, 1) is None
