"""Every figure, and the table of seconds, from made-up results and untrained runs; and what a missing run is told."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from support.made_up import fake

from cgrpo.app.main import main
from cgrpo.app.reproduction import Reproduced, reproduce
from cgrpo.build import make_policy
from cgrpo.reproduce import Results, jobs_of, load_table
from cgrpo.reproduce.exhibits import EXHIBITS, TableRuns, rows_of

TINY = [
    "training.iterations=2",
    "training.prompts_per_iteration=1",
    "training.group_size=4",
    "sampling.steps=3",
    "evaluation.subjects=2",
    "evaluation.prompts_per_subject=1",
    "supervised.batch=2",
]
EXACT = ["rewards.identity.type=support.exact_rewards:brightness", "rewards.prompt.type=support.exact_rewards:redness"]
DRAWN = [name for name in EXHIBITS if name != "table8"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reproduced]:
    """All of them at once, from what their trainings would have left: two seeds, but run directories of one alone."""
    out, adapter = tmp_path_factory.mktemp("exhibits"), tmp_path_factory.mktemp("adapter")
    (out / "results").mkdir()
    settings = [*TINY, *EXACT]
    parts = [rows_of(*part) for name in DRAWN for part in EXHIBITS[name].rows.items()]
    jobs = [job for part in parts for row in jobs_of(part, "toybox", "mild", [0, 1], settings).values() for job in row]
    make_policy(jobs[0].config).save(adapter)
    for place, job in enumerate({job.key: job for job in jobs}.values()):
        (out / "results" / f"{job.key}.json").write_text(json.dumps(fake(job, 0.01 * place)))
        if job.seed == 0:
            continue
        run = out / "runs" / job.key
        shutil.copytree(adapter, run / "adapter")
        rows = [{"iteration": n, "reward/identity/mean": 0.1 * n, "reward/prompt/mean": None} for n in range(3)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return out, reproduce(DRAWN, out, seeds=2, settings=settings, worlds=["mild"], count=4)


def test_pictures_that_were_stored_are_drawn_again_without_a_run(made: tuple[Path, Reproduced], tmp_path: Path) -> None:
    out, done = made
    (first,) = done.shown["copy-pictures-mild"].pictures
    settings = [*(s for s in TINY if not s.startswith("supervised")), *EXACT]
    again = reproduce(
        ["copy-pictures"], tmp_path, seeds=2, settings=settings, worlds=["mild"], results=[out / "results"], count=4
    )
    (second,) = again.shown["copy-pictures-mild"].pictures
    assert not again.failed and not (tmp_path / "runs").exists()
    assert Image.open(first).tobytes() == Image.open(second).tobytes()


@pytest.mark.parametrize("name", DRAWN)
def test_every_exhibit_is_drawn(name: str, made: tuple[Path, Reproduced]) -> None:
    out, done = made
    assert not done.failed
    (file,) = done.shown[f"{name}-mild"].pictures
    with Image.open(file) as picture:
        assert picture.width > 300 and len(picture.convert("RGB").resize((60, 40)).getcolors(2400)) > 10
    assert f"figures/{name}-mild.png" in (out / "reproduce.md").read_text()
    assert f'alt="{name}-mild"' in (out / "reproduce.html").read_text()


def test_a_lost_run_is_told(made: tuple[Path, Reproduced], tmp_path: Path) -> None:
    """With results alone, what rests on them is drawn; what needs a run's weights says how to make it."""
    results = made[0] / "results"
    done = reproduce(
        ["figure1", "figure4"], tmp_path, seeds=1, settings=[*TINY, *EXACT], worlds=["mild"], results=[results]
    )
    assert list(done.shown) == ["figure1-mild"] and not (tmp_path / "runs").exists()
    assert "cgrpo train toybox --set" in done.failed["figure4-mild"]
    assert "cgrpo train toybox --set" in (tmp_path / "reproduce.md").read_text()


def test_table8_takes_turns(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    words = ["reproduce", "table8", "--world", "mild", "--count", "1", "--out", str(tmp_path)]
    assert main(words + [word for setting in (*TINY, *EXACT) for word in ("--set", setting)]) == 0
    shown = capsys.readouterr().out
    assert all(row in shown for row in ("SFT", "naive GRPO 1:1", "Customized-GRPO", "forward process"))
    assert "filling, ms" in (tmp_path / "reproduce.md").read_text() and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", EXHIBITS)
def test_exhibits_need_rows_that_there_are(name: str) -> None:
    for table, rows in EXHIBITS[name].rows.items():
        assert set(rows) <= {row.name for row in load_table(table).rows}


def test_what_is_compared_has_the_same_seeds(tmp_path: Path) -> None:
    """Of two rows with seeds 0 and 1 and one with seed 1 alone, and none of a fourth."""
    names = ["naive GRPO 1:1", "naive GRPO 1:1.5", "Customized-GRPO", "w/o TDW"]
    jobs = jobs_of(rows_of("table2", names), "toybox", "mild", [0, 1])
    there = [*jobs[names[0]], *jobs[names[1]], jobs[names[2]][1]]
    for job in there:
        (tmp_path / f"{job.key}.json").write_text(json.dumps(fake(job, 0.0)))
    runs = TableRuns("mild", (0, 1), (), Results(tmp_path), tmp_path)
    assert runs.shared_seeds({"table2": names}) == (1,)
    assert runs.shared_seeds({"table2": names[:2]}) == runs.shared_seeds({"table2": names[3:]}) == (0, 1)
    assert [line.lacking for line in runs.board("table2", names[:3], (1,)).lines] == ["", "", ""]
