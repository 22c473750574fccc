"""One schema of scores, of a run and of a benchmark."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest

from cgrpo.errors import UserError
from cgrpo.evaluation.statistics.cells import gather, short_summary
from cgrpo.scores import ScoreRow, open_part, protocol_of, read_scores, write_scores


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
