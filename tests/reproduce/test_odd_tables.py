"""Tables, results and settings that are wrong: one line before anything is trained, and no training done twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from support.made_up import fake

from cgrpo.app.main import main
from cgrpo.reproduce import Job, Results, jobs_of, load_table, scoreboard
from cgrpo.reproduce.results import _by_subject
from cgrpo.scores import ScoreRow, write_scores

TABLE = """
title = "Two rows"
source = "Table 0"
columns = ["A"]
recipe = { toybox = "toybox" }

[[rows]]
name = "base"
train = false
paper = [1.0]

[[rows]]
name = "naive"
set = ["shaping.type=none"]
paper = [0.5]

[[claims]]
says = "naive gains"
row = "naive"
lies = "above"
against = "base"
axis = "prompt"
"""
Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """The line about ``reproduce`` and its words, of which nothing may be trained."""

    def never(*cluster: object, **settings: object) -> Callable[[object], NoReturn]:
        def start(training: object) -> NoReturn:
            raise AssertionError("trained")

        return start

    monkeypatch.setattr("cgrpo.app.reproduction.Cluster", never)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.toml").write_text(TABLE)

    def say(*words: str) -> str:
        assert main(["reproduce", *words, "--seeds", "2", "--out", "out"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    return say


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[1.0]", f"[{'9' * 5000}]", "limit"),
        ("[1.0]", "[" * 3000, "recursion"),
        ('toybox = "toybox"', 'full = "uno-24gb"', "recipe.toybox is not said"),
        ("columns", "worlds = []\ncolumns", "worlds"),
        ('against = "base"', 'against = "naive"', "'naive' against itself"),
        ('["shaping.type=none"]', '["training.seed =7"]', "training.seed"),
        ('name = "base"', 'name = " "', "name is blank"),
        (
            "[[claims]]",
            '[[rows]]\nname = "few"\nset = ["evaluation.subjects=2"]\n[[claims]]',
            "naive and few are evaluated on other tasks",
        ),
    ],
)
def test_a_table_that_can_not_be(old: str, new: str, said: str, refused: Refused) -> None:
    Path("t.toml").write_text(TABLE.replace(old, new, 1))
    assert said in refused("t.toml")


@pytest.mark.parametrize("how", ["utf-8-sig", "utf-16"])
def test_a_table_as_other_programs_save_it(how: str, tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(TABLE, encoding=how)
    assert load_table(str(tmp_path / "t.toml")).rows[1].name == "naive"


@pytest.mark.parametrize("setting", ["training.iteration=2", "nonsense", "", "guard=", "=1"])
def test_a_setting_that_no_training_has(setting: str, refused: Refused) -> None:
    """It was left out in silence, and all trained for hours without it."""
    assert f"--set {setting}" in refused("t.toml", "--set", setting)
    assert f"--set {setting}" in refused("figure2", "--set", setting)


def test_two_tables_of_one_name(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "t.toml").write_text(TABLE.replace("naive", "other"))
    assert "two tables are called 't'" in refused("t.toml", "b/t.toml")


def test_a_folder_without_results(refused: Refused, tmp_path: Path) -> None:
    """Else all of them would be trained again."""
    (tmp_path / "earlier" / "results").mkdir(parents=True)
    (tmp_path / "earlier" / "reproduce.json").write_text("[]")
    assert "give earlier/results" in refused("t.toml", "--results", "earlier")
    assert "no finished training is there" in refused("t.toml", "--results", "nowhere")


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda result: {key: value for key, value in result.items() if key != name}


def metric(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda result: result | {"metrics": {"m": result["metrics"]["prompt"] | changes}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda result: "", "Expecting value"),
        (lambda result: json.dumps(result)[:200], "Unterminated"),
        (lambda result: "[" * 100_000, "too deep"),
        (lambda result: [], "valid dictionary"),
        (lambda result: None, "valid dictionary"),
        *(
            (without(name), name)
            for name in ("metrics", "config", "seed", "seconds", "device", "version", "iterations")
        ),
        (lambda result: result | {"seconds": "fast"}, "seconds"),
        (lambda result: result | {"metrics": {}}, "metrics"),
        (lambda result: result | {"config": {"method": "?"}}, "no method"),
        (metric(trained=[0.1]), "3 subjects of the base and 1 of the trained"),
        (metric(base=[0.1, "x", 0.2]), "metrics.m.base.1"),
    ],
)
def test_a_result_that_is_none(change: Callable[[dict[str, Any]], Any], said: str, refused: Refused) -> None:
    job = jobs_of(load_table("t.toml"), "toybox", "mild", [0])["naive"][0]
    file = Path("out/results") / f"{job.key}.json"
    file.parent.mkdir(parents=True)
    content = change(fake(job, 0.1))
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    line = refused("t.toml")
    assert said in line and (str(file) in line)


@pytest.fixture
def naive(tmp_path: Path) -> list[Job]:
    (tmp_path / "t.toml").write_text(TABLE)
    return jobs_of(load_table(str(tmp_path / "t.toml")), "toybox", "mild", [0, 1])["naive"]


def test_other_files_beside_results_are_passed_over(naive: list[Job], tmp_path: Path) -> None:
    for name, content in (("reproduce", "[]"), ("notes", '{"config": null}'), ("cut", '{"conf'), ("x", "{}")):
        (tmp_path / f"{name}.json").write_text(content)
    (tmp_path / "renamed.json").write_text(json.dumps(fake(naive[0], 0.1)))
    known = Results(tmp_path / "none", tmp_path)
    known.check()
    assert (known.find(naive[0].key) or {})["seed"] == 0 and known.find(naive[1].key) is None


@pytest.mark.parametrize(("second", "seeds"), [([0.5, None, 0.4], 2), ([0.5, 0.4], 1)])
def test_a_subject_without_a_score_in_one_seed(
    second: list[float | None], seeds: int, naive: list[Job], tmp_path: Path
) -> None:
    """It counts in no seed; of an earlier version's result, which leaves it out, the seed counts for nothing."""
    for job in naive:
        result = fake(job, 0.1)
        if job.seed == 1:
            result["metrics"]["prompt"] |= {"base": second, "trained": [score and score + 0.3 for score in second]}
        (tmp_path / f"{job.key}.json").write_text(json.dumps(result))
    table = load_table(str(tmp_path / "t.toml"))
    board = scoreboard(table, "mild", {"naive": naive}, Results(tmp_path))
    change, (claim,) = board.lines[1].change["prompt"], board.claims
    assert change.seeds == seeds and claim.difference == change
    assert (change.subjects, round(change.mean, 4)) == ((2, 0.2002) if seeds == 2 else (3, 0.1003))
    assert (board.lines[1].lacking == "1/2") == (seeds == 1)


def test_a_result_keeps_a_place_for_every_subject(tmp_path: Path) -> None:
    rows = [
        ScoreRow(arm, subject, 0, "", 0, "m", "prompt", score, "x.png", None)
        for arm in ("base", "trained")
        for subject, score in (("a", 0.5), ("b", None if arm == "trained" else 0.25))
    ]
    write_scores(tmp_path, rows)
    found = _by_subject(tmp_path, {"m": {"role": "judge", "axis": "prompt"}})["m"]
    assert found["base"] == [0.5, 0.25] and found["trained"][0] == 0.5 and found["trained"][1] != found["trained"][1]
