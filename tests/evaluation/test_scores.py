"""One schema of scores, of a run and of a benchmark."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cgrpo.app.requests import AnalysisRequest, EvaluationRequest
from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.dreambench import official_list
from cgrpo.evaluation.pages.comparison import write_comparison
from cgrpo.evaluation.statistics.cells import gather, short_summary
from cgrpo.scores import ScoreRow, open_part, protocol_of, read_scores, write_scores

WHOLE = asdict(ScoreRow("uno", "x", 7, "a cat", 3407, "dino", "one", 0.5, "a.png", None))


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
    lines = [json.dumps(WHOLE | {"subject": "é"}, ensure_ascii=False), json.dumps(WHOLE | {"score": math.nan})]
    whole, torn = "\n".join(lines).encode(), lines[0].encode()
    (tmp_path / "scores.jsonl").write_bytes(whole + b"\n" + torn[: torn.index("é".encode()) + 1])
    assert [(found.subject, found.score) for found in read_scores(tmp_path)] == [("é", 0.5), ("x", None)]
    assert "its last line was cut off" in capsys.readouterr().err
    for wrong in ("true", '"0.5"', "1e400", "1e308", "-1e101", "1" + "0" * 200, "[1]"):
        (tmp_path / "scores.jsonl").write_text(lines[1].replace("NaN", wrong) + "\n")
        with pytest.raises(UserError, match="line 1: no row of scores .*is no number"):
            read_scores(tmp_path)
    (tmp_path / "scores.jsonl").write_bytes(b"\xff{}\n{}\n")
    with pytest.raises(UserError, match="is no UTF-8"):
        read_scores(tmp_path)


def test_numbers_and_texts_of_a_row(tmp_path):
    """Programs write whole numbers of a column with gaps as 3.0; a text in their place would be another thing."""
    whole = WHOLE | {"prompt_index": 7.0, "seed": 3407.0, "reference": math.nan}
    (tmp_path / "scores.jsonl").write_text(json.dumps(WHOLE) + "\n" + json.dumps(whole | {"score": 0.25}) + "\n")
    (row,) = read_scores(tmp_path)
    assert row == ScoreRow("uno", "x", 7, "a cat", 3407, "dino", "one", 0.25, "a.png", None)
    for wrong in ({"seed": "3407"}, {"prompt_index": 7.5}, {"method": None}, {"subject": 3}, {"protocol": "One"}):
        (tmp_path / "scores.jsonl").write_text(json.dumps(WHOLE | wrong) + "\n")
        with pytest.raises(UserError, match="line 1: no row of scores"):
            read_scores(tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[]", "no JSON object"),
        ("5", "no JSON object"),
        ('{"method": "uno"}', "no subject, prompt_index, prompt, seed"),
        (json.dumps(WHOLE | {"note": ""}), "unknown field note"),
        (json.dumps(WHOLE | {"prompt": 5}), "prompt 5 is no text"),
        (json.dumps(WHOLE | {"subject": None}), "subject None is no text"),
    ],
)
def test_what_is_no_row_says_why(tmp_path, line, words):
    (tmp_path / "scores.jsonl").write_text(json.dumps(WHOLE) + "\n" + line + "\n")
    with pytest.raises(UserError, match=f"line 2: no row of scores .{words}"):
        read_scores(tmp_path)


def test_text_where_a_path_is_meant(tmp_path):
    row = ScoreRow(**WHOLE)
    write_scores(tmp_path, [row])
    assert read_scores(str(tmp_path)) == [row]
    assert write_comparison(str(tmp_path), None, str(tmp_path / "page")) == tmp_path / "page" / "index.html"
    request = EvaluationRequest("run", out="x", metrics="clip", protocols="all", settings="a=1")
    assert (request.run, request.out, request.images) == (Path("run"), Path("x"), None)
    assert (request.metrics, request.protocols, request.settings) == (("clip",), ("all",), ("a=1",))
    assert EvaluationRequest(out="x", images="theirs").name == "theirs"
    analysis = AnalysisRequest("run", out="y", settings="a=1")
    assert (analysis.run, analysis.out, analysis.settings) == (Path("run"), Path("y"), ("a=1",))
    assert [row.subject for row in official_list(subjects="dog")] == ["dog"] * 25


def test_a_picture_that_was_converted_is_one_thing(tmp_path):
    """Both rows were averaged, also where one of the pictures was gone."""
    row = ScoreRow("uno", "x", 7, "a cat", 3407, "dino", "one", None, "x/7.png", "no such picture")
    later = replace(row, score=0.5, picture="x/7.JPG", error=None)
    write_scores(tmp_path, [row, replace(row, seed=3408, picture="x/7.5"), later])
    assert [(found.picture, found.score) for found in read_scores(tmp_path)] == [("x/7.JPG", 0.5), ("x/7.5", None)]
