"""What the paper says and what results say of it: verdicts, headlines, and what is not trained yet."""

import json
from pathlib import Path

import pytest
from support.made_up import fake

from cgrpo.evaluation.statistics.paired import TwoLevel
from cgrpo.reproduce import (
    Results,
    Scoreboard,
    board_tables,
    every_claim,
    headlines,
    jobs_of,
    load_table,
    scoreboard,
    tables,
)
from cgrpo.reproduce.cells import judge, verdict_of
from cgrpo.reproduce.definition import HEADLINES


def told(name: str, gains: dict[str, float], folder: Path, seeds: int = 3) -> Scoreboard:
    """A board from made-up gains of some rows: alike in seeds and nearly all subjects, so intervals are narrow."""
    table, results = load_table(name), Results(folder)
    jobs = jobs_of(table, "toybox", table.worlds[0], range(seeds))
    for row, gain in gains.items():
        for job in jobs[row]:
            (folder / f"{job.key}.json").write_text(json.dumps(fake(job, gain)))
    return scoreboard(table, table.worlds[0], jobs, results)


def test_verdicts_follow_the_interval(tmp_path: Path) -> None:
    board = told("table3", {"max": 0.3, "tanh": 0.1, "harmonic mean": 0.1, "min": 0.0}, tmp_path)
    judged = {one.claim.says: one for one in board.claims}
    assert judged["max gains more identity than tanh"].verdict == "holds"
    loses = judged["max loses prompt following against tanh"]
    assert loses.verdict == "does not hold" and loses.difference.mean == pytest.approx(0.2)  # max less tanh: it gains
    fewer = judged["min gains less identity than tanh"]
    assert fewer.verdict == "holds" and fewer.difference.mean == pytest.approx(-0.1)
    assert judged["tanh keeps identity better than the harmonic mean"].verdict == "level"  # equal


@pytest.mark.parametrize(
    ("change", "p", "lies", "verdict"),
    [
        ((-0.001, -0.008, 0.006), 1.0, "level", "holds"),
        ((-0.012, -0.017, -0.008), 0.0, "level", "unclear"),
        ((-0.02, -0.03, -0.011), 0.0, "level", "does not hold"),
        ((0.02, 0.011, 0.03), 0.0, "level", "does not hold"),
        ((0.02, 0.011, 0.03), 0.01, "above", "holds"),
        ((0.02, 0.011, 0.03), 0.01, "below", "does not hold"),
        ((-0.02, -0.03, -0.011), 0.01, "below", "holds"),
        ((-0.02, -0.03, 0.011), 0.4, "below", "unclear"),
        ((0.02, 0.001, 0.03), 0.2, "above", "unclear"),  # its own interval leaves out 0, but it is one claim of many
        ((0.002, -0.004, 0.008), 0.7, "above", "level"),
        ((0.004, 0.001, 0.007), 0.01, "above", "holds"),
    ],
)
def test_a_verdict_needs_an_adjusted_p_value_or_an_interval_within_the_level(
    change: tuple[float, float, float], p: float, lies: str, verdict: str
) -> None:
    claim = load_table("table2").claims[0].model_copy(update={"lies": lies})
    mean, low, high = change
    assert verdict_of(claim, TwoLevel(low, high, mean, seeds=3, subjects=3), p) == verdict
    assert verdict_of(claim, TwoLevel(low, high, mean, seeds=2, subjects=3), p) == "too few seeds"


def test_p_values_are_adjusted_for_the_claims_of_a_table_that_have_enough_seeds() -> None:
    claim = load_table("table2").claims[0].model_copy(update={"lies": "above"})
    gaps = [TwoLevel(0.01, 0.1, 0.05, seeds, 9, p) for seeds, p in ((3, 0.02), (5, 0.03), (2, 0.0))]
    alone, among = judge([(claim, gaps[0])]), judge([*((claim, gap) for gap in gaps), (claim, None)])
    assert alone[0].p == 0.02 and alone[0].verdict == "holds"
    assert [judged.p for judged in among[:2]] == [0.04, 0.04]
    assert [judged.verdict for judged in among] == ["holds", "holds", "too few seeds", "not run"]
    assert judge([(claim, gap) for gap in (*gaps, gaps[1])])[0].verdict == "unclear"  # of three: 0.06


def test_a_headline_says_in_a_word_what_its_claims_come_to(tmp_path: Path) -> None:
    gains = {"naive GRPO 1:1": 0.05, "Customized-GRPO": 0.05, "w/o synergy": -0.05, "RPO": -0.02, "SFT": -0.002}
    rows = {row[0]: str(row[1]) for row in headlines([told("table2", gains, tmp_path)]).rows}
    cell = {key: rows[says] for key, says in HEADLINES.items() if says in rows}
    assert cell["sars"].startswith("holds: identity +0.100 [") and cell["sars"].endswith("(3 seeds)")
    assert cell["degradation"].startswith("does not hold: ")  # it gains identity, and does not lose prompt following
    assert cell["full"].startswith("in part: of 3 claims 2 as told, 1 level")
    assert cell["rpo"].startswith("does not hold: ")  # prompt following down as told, identity not up
    assert cell["tdw"] == "not trained yet" and "inverted" not in cell


def test_what_is_not_trained_is_told_in_a_line(tmp_path: Path) -> None:
    board = told("table3", {"tanh": 0.1, "max": 0.0}, tmp_path)
    claims, rows = board_tables(board)
    assert "Not trained yet: linear 1:1.5, min, harmonic mean." in rows.note
    assert [str(row[0]) for row in rows.rows] == ["base", "max", "tanh"]
    assert [str(row[4]) for row in claims.rows].count("not trained yet") == 3
    every = every_claim([board, told("table4", {}, tmp_path)])
    assert len(every.rows) == 2 and "Bounds of the dynamic weights, w_max : w_min (4 claims)" in every.note


def test_every_headline_has_its_claims() -> None:
    assert {claim.headline for name in tables() for claim in load_table(name).claims} - {""} == HEADLINES.keys()
