"""Tables as data, trainings shared by content, killed and failed ones, and what the scoreboard says."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.made_up import fake
from support.warm import Started

from cgrpo import __version__
from cgrpo.app.main import main
from cgrpo.app.reproduction import full_scale, reproduce, write_boards
from cgrpo.errors import UserError
from cgrpo.launch import Training
from cgrpo.reproduce import Results, jobs_of, load_table, scoreboard, tables, worlds
from cgrpo.rewards import make_rewards

TINY = [
    "training.iterations=1",
    "training.prompts_per_iteration=1",
    "training.group_size=2",
    "sampling.steps=3",
    "evaluation.subjects=2",
    "evaluation.prompts_per_subject=1",
]
TWO_ROWS = """
title = "Two rows"
source = "Table 0"
columns = ["A", "B"]
recipe = { toybox = "toybox", full = "uno-dinoseg-hpsv3" }

[[rows]]
name = "base"
train = false
paper = [1.0, 2.0]

[[rows]]
name = "naive"
set = ["shaping.type=none", "weights.type=constant"]
paper = [0.5, 3.0]

[[claims]]
says = "naive gains prompt following"
row = "naive"
lies = "above"
against = "base"
axis = "prompt"
"""


class Forked(Started):
    """A training's process, warm; what it says is in its log when it has ended."""

    def __init__(self, training: Training, threads: int):
        words = training.command()
        super().__init__(main, words[words.index("cgrpo") + 1 :], threads=threads)
        self._log, self.returncode = training.run / "log.txt", None

    def poll(self) -> int | None:
        if self.returncode is None and super().poll() is not None:
            ended = self.wait()
            with self._log.open("a") as log:
                log.write(ended.stdout + ended.stderr)
            self.returncode = ended.returncode
        return self.returncode

    def stop(self) -> None:
        self.kill()


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings are forked from here, not submitted: the libraries are loaded."""

    def cluster(kind: str, folder: Path, settings: Sequence[str], threads: int) -> Callable[[Training], Forked]:
        return lambda training: Forked(training, threads)

    monkeypatch.setattr("cgrpo.app.reproduction.Cluster", cluster)


@pytest.fixture
def two_rows(tmp_path: Path) -> str:
    (tmp_path / "two.toml").write_text(TWO_ROWS)
    return str(tmp_path / "two.toml")


@pytest.mark.parametrize("name", tables())
def test_every_table_parses_and_asks_for_different_trainings(name: str) -> None:
    table = load_table(name)
    for world in worlds():
        if (name, world) == ("table7", "copy"):
            continue  # the table's rows differ in their masks, and that world has none
        jobs = jobs_of(table, "toybox", world, [0, 1])
        keys = [job.key for row in jobs.values() for job in row]
        assert len(set(keys)) == len(keys) == 2 * sum(row.train or bool(row.best_of) for row in table.rows)
    rows = full_scale([name], 1, "a100-80gb", 8, ["data.cache=encoded"])
    assert [row["row"] for row in rows] == [row.name for row in table.rows if row.train and row.only in (None, "full")]
    assert all(row["command"].startswith("torchrun") and row["hours"] > 0 for row in rows)


def test_tables_share_trainings() -> None:
    """Table 3's tanh, Table 4's 0.7 : 0.3 and Table 5's alpha 0.5 are Table 2's full method; likewise the others."""
    rows = {
        name: jobs_of(load_table(name), "toybox", "conflict", [0]) for name in ("table2", "table3", "table4", "table5")
    }
    key = {name: {row: jobs[0].key for row, jobs in table.items()} for name, table in rows.items()}
    full = key["table2"]["Customized-GRPO"]
    assert key["table3"]["tanh"] == key["table4"]["0.7 : 0.3"] == key["table5"]["alpha 0.5, standard"] == full
    assert key["table3"]["linear 1:1.5"] == key["table2"]["naive GRPO 1:1.5"]
    assert key["table5"]["alpha 0.0, standard"] == key["table2"]["w/o synergy"]


def test_two_rewards_of_the_three_are_table_2s_and_the_third_is_trained_on() -> None:
    rows = {name: jobs_of(load_table(name), "toybox", "mild", [0]) for name in ("table2", "three-rewards")}
    three = rows["three-rewards"]
    assert three["two rewards, sum"][0].key == rows["table2"]["naive GRPO 1:1"][0].key
    assert three["two rewards, SARS"][0].key == rows["table2"]["w/o TDW"][0].key
    for name in ("three, sum", "three, raw sum", "three, SARS", "three, SARS + TDW"):
        config = three[name][0].config
        assert list(make_rewards(config.rewards)) == ["identity", "prompt", "light"] and config.weights.others == {
            "light": 0.5
        }


def test_rivals_differ_from_the_naive_run_by_their_own_setting_alone() -> None:
    for name in ("rivals", "rivals-forward"):
        rows = jobs_of(load_table(name), "toybox", "mild", [0])
        naive = rows["naive (sum of advantages)"][0].config.model_dump()
        changed = {}
        for row, (job,) in rows.items():
            told = job.config.model_dump()
            changed[row] = {
                f"{table}.{key}"
                for table in ("shaping", "weights", "training", "sampling", "objective")
                for key, value in told[table].items()
                if value != naive[table].get(key)
            }
        assert changed["raw sum"] == changed["GDPO"] == changed["after APEX"] == changed["SARS"] == {"shaping.type"}
        assert changed["TempFlow's weights"] == {"weights.by_noise"}
        assert changed["DyRef's focal weight"] == {"shaping.focal"}


def test_a_table_is_trained_once_and_says_what_holds(
    two_rows: str, forked: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    words = ["reproduce", two_rows, "--seeds", "2", "--jobs", "2", "--out", str(out)]
    words += [word for setting in TINY for word in ("--set", setting)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "2 of 2 trainings done" in shown and "naive gains prompt following" in shown
    assert "naive gains prompt following" in (out / "reproduce.html").read_text()
    (board,) = json.loads((out / "reproduce.json").read_text())
    assert [row["name"] for row in board["rows"]] == ["base", "naive"]
    assert board["rows"][1]["change"]["prompt_readback"]["seeds"] == 2 and not board["rows"][1]["older_version"]
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    again, more = tmp_path / "again", tmp_path / "more"
    settings = [word for setting in TINY for word in ("--set", setting)]
    words = ["reproduce", two_rows, "--results", str(out / "results"), *settings]
    assert main([*words, "--seeds", "2", "--out", str(again)]) == 0
    assert not (again / "runs").exists() and before == {
        path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")
    }
    capsys.readouterr()
    assert main([*words, "--seeds", "3", "--finished", "--out", str(more)]) == 0  # the third seed is not trained
    assert not (more / "runs").exists() and "naive gains prompt following" in capsys.readouterr().out
    assert (again / "reproduce.md").read_text() == (out / "reproduce.md").read_text()


def test_a_failed_training_is_a_marked_cell(two_rows: str, forked: None, tmp_path: Path) -> None:
    done = reproduce([two_rows], tmp_path / "out", seeds=1, settings=[*TINY, "policy.path=nowhere"])
    (reason,) = done.failed.values()
    assert "nowhere" in reason and done.boards[0].lines[1].lacking == reason
    assert done.boards[0].claims[0].verdict == "not run"
    assert reason[:20] in (tmp_path / "out" / "reproduce.md").read_text()


def test_killed_in_the_middle_it_goes_on(two_rows: str, tmp_path: Path) -> None:
    """SIGKILL of the whole command while it trains: its trainings end with it, and the next call resumes them."""
    settings = [*(s for s in TINY if "iterations=1" not in s), "training.iterations=12", "training.checkpoint_every=1"]
    words = ["reproduce", two_rows, "--seeds", "1", "--out", str(tmp_path / "out")]
    words += ["--jobs", "2"]  # one thread each, as the other tests have
    words += [word for setting in settings for word in ("--set", setting)]
    process = Started(main, words)
    (job,) = jobs_of(load_table(two_rows), "toybox", "mild", [0], settings)["naive"]
    run = tmp_path / "out" / "runs" / job.key
    deadline = time.monotonic() + 900
    while not list(run.glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()
    rows, before = (run / "metrics.jsonl").read_text().count("\n"), -1
    while rows != before:  # the iteration under way may end
        time.sleep(3)
        rows, before = (run / "metrics.jsonl").read_text().count("\n"), rows
    assert 0 < rows < 12  # nobody goes on unseen
    assert main(words) == 0
    assert Results(tmp_path / "out" / "results").find(job.key)["iterations"] == 12
    assert "resume" not in (run / "log.txt").read_text().splitlines()[-1]


def test_a_result_from_before_a_setting_was_known_is_found(tmp_path: Path) -> None:
    """Its file had another name then; its configuration is found."""
    (job,) = jobs_of(load_table("table3"), "toybox", "hard", [0])["min"]
    result = fake(job, 0.1)
    del result["config"]["training"]["warmup"], result["config"]["shaping"]["recentre"]
    (tmp_path / "0123456789abcdef.json").write_text(json.dumps(result))
    whole = result | {"config": job.config.model_dump(mode="json")}
    assert Results(tmp_path / "none", tmp_path).find(job.key) == whole
    result["config"]["training"]["warmup"] = 7
    (tmp_path / "0123456789abcdef.json").write_text(json.dumps(result))
    assert Results(tmp_path).find(job.key) is None


@pytest.mark.parametrize("name", tables())
def test_every_table_is_shown(name: str, tmp_path: Path) -> None:
    """From made-up results of every row: the page, the tables, and older code marked."""
    table, results = load_table(name), Results(tmp_path / "results")
    jobs = jobs_of(table, "toybox", table.worlds[0], [0, 1, 2])
    results.folder.mkdir()
    for place, row in enumerate(jobs.values()):
        for job in row:
            (results.folder / f"{job.key}.json").write_text(
                json.dumps(fake(job, 0.01 * place, "0.0" if place == 0 else __version__))
            )
    board = scoreboard(table, table.worlds[0], jobs, results)
    write_boards([board], tmp_path)
    text = (tmp_path / "reproduce.md").read_text()
    assert (
        all(row.name in text for row in table.rows if row.paper or row.train or row.best_of)
        and "* made by another version" in text
    )
    decided = {judged.verdict for judged in board.claims}
    assert decided <= {"holds", "does not hold", "level", "unclear"}
    assert "<svg" in (tmp_path / "reproduce.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "no table 'nothing'"),
        (["table2", "--world", "wild"], "no world 'wild'"),
        ([], "name a table or figure"),
        (["table2", "--set", "shaping.alpha=-1"], "shaping.alpha"),
        (["table2", "--scale", "full", "--world", "mild"], "--world"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert main(["reproduce", *words, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("paper = [1.0, 2.0]", "paper = [1.0]"), "1 numbers for 2 columns"),
        (('row = "naive"', 'row = "nobody"'), "no row 'nobody'"),
        (('name = "naive"', 'name = "base"'), "two rows"),
        (('lies = "above"', 'lies = "beside"'), "lies"),
        (('axis = "prompt"', 'axis = "prompt"\nheadline = "best"'), "no headline 'best'"),
        (('title = "Two rows"', 'titel = "Two rows"'), "titel"),
    ],
)
def test_a_wrong_table_is_told(change: tuple[str, str], said: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text(TWO_ROWS.replace(*change))
    with pytest.raises(UserError, match=said):
        load_table(str(tmp_path / "wrong.toml"))


def test_a_row_with_another_reward_takes_none_of_the_worlds_settings_for_it() -> None:
    rows = jobs_of(load_table("table7"), "toybox", "conflict", [0])
    assert rows["CLIP-I, CLIP-T"][0].config.rewards["identity"].type == "clip-i"
    assert rows["DINO-Seg, HPS-v3"][0].config.rewards["identity"].masks == "reference"
    full = jobs_of(load_table("table7"), "full", "", [0])["DINO, CLIP-T"][0].config.rewards
    assert (full["identity"].type, full["prompt"].type) == ("dino", "clip")
