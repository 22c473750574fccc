"""One schema of scores: a run's, a benchmark's, and what runs wrote before."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest

from cgrpo.errors import UserError
from cgrpo.evaluation.pages.comparison import write_comparison
from cgrpo.evaluation.scores import ScoreRow, protocol_of, read_scores, write_scores
from cgrpo.evaluation.scores.cells import gather
from cgrpo.evaluation.scores.files import open_part
from cgrpo.evaluation.statistics import compare_methods, short_summary

EARLIER = (("identity", "reward", "identity"), ("prompt", "reward", "prompt"), ("copy_paste", "guard", "identity"))


def earlier_run(folder):
    """Base at 0.5 and trained a tenth above on 3 subjects x 2 prompts, as runs wrote it; one score is missing."""
    lines = [
        {"task": f"test-{subject}-{prompt}", "arm": arm, "metric": metric, "score": score}
        for metric, _, _ in EARLIER
        for arm, score in (("base", 0.5), ("trained", 0.6))
        for subject in range(3)
        for prompt in range(2)
    ]
    lines[-1]["score"] = None
    (folder / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {"metrics": {name: {"role": role, "axis": axis} for name, role, axis in EARLIER}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_an_earlier_runs_scores_are_rows_like_any_others(tmp_path):
    rows = read_scores(earlier_run(tmp_path))
    assert len(rows) == 36 and len({row.key for row in rows}) == 36
    assert rows[0] == ScoreRow("base", "toy00", 0, None, 0, "identity", "one", 0.5, "", None)
    assert rows[-1] == ScoreRow(
        "trained", "toy02", 1, None, 0, "copy_paste", "picture", None, "", "copy_paste could not score it"
    )
    found = {(d.column, d.group): d for d in compare_methods(rows).differences}
    assert found["identity (one)", "all"].difference == pytest.approx(0.1)
    assert (found["copy_paste", "all"].subjects, found["copy_paste", "all"].pairs) == (3, 5)
    page = write_comparison(tmp_path, None, tmp_path / "out").read_text(encoding="utf-8")
    assert "trained against base" in page and 'href="#pictures"' not in page and "<script" not in page


def test_an_earlier_run_without_its_summary_is_told_what_is_missing(tmp_path):
    (earlier_run(tmp_path) / "summary.json").unlink()
    with pytest.raises(UserError, match=r"line 1: no summary.json beside it says what 'identity' is"):
        read_scores(tmp_path)


def test_rows_survive_writing(tmp_path):
    rows = [
        ScoreRow("uno", "cat+dog", 7, "a cat and a dog", 3407, "dino", "one", 0.5, "a.png", None, "live", "context", 1),
        ScoreRow("uno", "cat", None, None, None, "dino", "all", None, "b.png", "lost"),
    ]
    write_scores(tmp_path, rows)
    assert read_scores(tmp_path) == rows


def test_scores_against_single_references_are_columns_of_their_own():
    def row(reference, score):
        return ScoreRow("uno", "cat+dog", 0, "", 1, "dino", "one", score, "a.png", None, "live", "context", reference)

    rows = [row(None, 0.5), row(0, 0.8), row(1, 0.2)]
    assert len({one.key for one in rows}) == 3
    labels = ["dino (one)", "dino (one, reference 1)", "dino (one, reference 2)"]
    assert [column.label for column in gather(rows)] == labels
    assert [(one["mean"], one.get("reference")) for one in short_summary(rows)] == [(0.5, None), (0.8, 0), (0.2, 1)]


def test_what_a_metric_is_compared_with_follows_from_its_part():
    assert protocol_of("judge", "identity", "all") == "all"
    assert protocol_of("guard", "identity", "all") == "picture"  # of no use as a verdict on identity
    assert protocol_of("reward", "prompt", "all") == "prompt"
    assert protocol_of("judge", "picture") == "picture"


def test_a_last_row_without_a_line_break_counts(tmp_path, capsys):
    """Other programs end files so. One that was cut off is left out, and said."""
    rows = [ScoreRow("m", "cat", n, "x", 0, "clip", "prompt", 0.5, f"{n}.png", None) for n in range(3)]
    write_scores(tmp_path, rows)
    whole = (tmp_path / "scores.jsonl").read_text()
    (tmp_path / "scores.jsonl").write_text(whole.rstrip("\n"))
    assert read_scores(tmp_path) == rows and capsys.readouterr().err == ""
    (tmp_path / "scores.jsonl").write_text(whole[:-9])
    assert read_scores(tmp_path) == rows[:2]
    assert "its last line was cut off and is left out" in capsys.readouterr().err
    for text, kept in ((whole.rstrip("\n"), 3), (whole[:-9], 2)):
        (tmp_path / "scores.part0.jsonl").write_text(text)
        open_part(tmp_path, 0).close()
        assert (tmp_path / "scores.part0.jsonl").read_text().splitlines() == whole.splitlines()[:kept]


def test_rows_as_other_programs_write_them(tmp_path, capsys):
    """NaN for what failed, a kill within a letter; what is no number is no score."""
    told = asdict(ScoreRow("uno", "x", 7, "a cat", 3407, "dino", "one", 0.5, "a.png", None))
    lines = [json.dumps(told | {"subject": "é"}, ensure_ascii=False), json.dumps(told | {"score": math.nan})]
    whole, torn = "\n".join(lines).encode(), lines[0].encode()
    (tmp_path / "scores.jsonl").write_bytes(whole + b"\n" + torn[: torn.index("é".encode()) + 1])
    assert [(found.subject, found.score) for found in read_scores(tmp_path)] == [("é", 0.5), ("x", None)]
    assert "its last line was cut off" in capsys.readouterr().err
    for wrong in ("true", '"0.5"', "1e400", "[1]"):
        (tmp_path / "scores.jsonl").write_text(lines[1].replace("NaN", wrong) + "\n")
        with pytest.raises(UserError, match="line 1: no row of scores .*is no number"):
            read_scores(tmp_path)
    (tmp_path / "scores.jsonl").write_bytes(b"\xff{}\n{}\n")
    with pytest.raises(UserError, match="is no UTF-8"):
        read_scores(tmp_path)


def test_numbers_and_texts_of_a_row(tmp_path):
    """Programs write whole numbers of a column with gaps as 3.0; a text in their place would be another thing."""
    told = asdict(ScoreRow("uno", "x", 7, "a cat", 3407, "dino", "one", 0.5, "a.png", None))
    whole = told | {"prompt_index": 7.0, "seed": 3407.0, "reference": math.nan}
    (tmp_path / "scores.jsonl").write_text(json.dumps(told) + "\n" + json.dumps(whole | {"score": 0.25}) + "\n")
    (row,) = read_scores(tmp_path)
    assert row == ScoreRow("uno", "x", 7, "a cat", 3407, "dino", "one", 0.25, "a.png", None)
    for wrong in ({"seed": "3407"}, {"prompt_index": 7.5}, {"method": None}, {"subject": 3}, {"protocol": "One"}):
        (tmp_path / "scores.jsonl").write_text(json.dumps(told | wrong) + "\n")
        with pytest.raises(UserError, match="line 1: no row of scores"):
            read_scores(tmp_path)


def test_a_picture_that_was_converted_is_one_thing(tmp_path):
    """Both rows were averaged, also where one of the pictures was gone."""
    row = ScoreRow("uno", "x", 7, "a cat", 3407, "dino", "one", None, "x/7.png", "no such picture")
    later = replace(row, score=0.5, picture="x/7.JPG", error=None)
    write_scores(tmp_path, [row, replace(row, seed=3408, picture="x/7.5"), later])
    assert [(found.picture, found.score) for found in read_scores(tmp_path)] == [("x/7.JPG", 0.5), ("x/7.5", None)]
