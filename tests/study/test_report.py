"""Simulated raters, and what the report says of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.studies import evaluated, gold_answers, small_study

from cgrpo.app.main import main
from cgrpo.study.manifest import LEFT, RIGHT, TIE, Study
from cgrpo.study.report.write import read_findings, verdicts
from cgrpo.study.store import Store


def answer(study: Study, folder: Path, careless: tuple[int, ...] = (), better: float = 1.0) -> None:
    """Later methods are better by ``better`` of a rater's noise; careless raters choose at random."""
    store, items, rng = Store(folder), study.by_id(), np.random.default_rng(0)
    for rater, shown in enumerate(study.lists, 1):
        for item_id, first_on_left in shown:
            item = items[item_id]
            answers = gold_answers(study, item, first_on_left)
            for question in study.questions:
                if rater in careless:
                    answers[question.id] = str(rng.choice(study.choices))
                elif question.id not in item.gold:
                    lean = rng.normal(better if item.kind == "item" else 0)
                    side = RIGHT if (lean > 0) == first_on_left else LEFT
                    answers[question.id] = TIE if abs(lean) < 0.4 else side
            store.save(rater, item_id, answers, first_on_left, 0)
    store.close()


def test_it_finds_the_preference_and_the_careless(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = evaluated(tmp_path / "scores", subjects=6, prompts=8)
    study, _ = small_study(scores, tmp_path / "study", items=48, raters=6, per_item=3, checks=5)
    answer(study, tmp_path / "study", careless=(6,))
    out = tmp_path / "out"
    assert main(["study", "report", str(tmp_path / "study"), "--out", str(out)]) == 0
    table = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert capsys.readouterr().out.splitlines() == [*table["verdicts"], f"page: {out / 'report.html'}"]
    assert "secret-method against hidden-base: identity" in table["verdicts"][0]
    assert [one["excluded"] for one in table["raters"]] == [False] * 5 + [True]
    for one, everyone in zip(table["shares"], table["all_shares"], strict=True):
        assert one["votes"] == 120 and everyone["votes"] == 144
        assert one["win_rate_subjects"]["low"] > 0.6 and one["win_rate_subjects"]["p"] == 2 / 2**6
        # P(noise + 1 > 0.4) = 0.726, P(noise + 1 < -0.4) = 0.081
        assert one["share"]["win"] == pytest.approx(0.726, abs=0.1) and one["share"]["loss"] < 0.18
        assert everyone["win_rate"] < one["win_rate"]
    page, text = ((out / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    assert "secret-method against hidden-base: identity" in text and "the paper, Figure 5" in text
    assert "| link 6 |" in text and "excluded" in text
    assert "<svg" in page and "http" not in page and (out / "figure5.png").stat().st_size > 10_000
    assert "pages are answered" not in page


def test_three_methods_are_put_on_one_scale(tmp_path: Path) -> None:
    scores = evaluated(tmp_path / "scores", methods=("a", "b", "c"), subjects=6, prompts=8)
    study, _ = small_study(scores, tmp_path / "study", items=60, raters=4, per_item=2, checks=5)
    answer(study, tmp_path / "study")
    found = read_findings(tmp_path / "study")
    assert len(found.shares) == 6 and {one.items for one in found.shares} == {20}
    strengths = found.scale[0].strengths
    assert strengths["a"] < strengths["b"] < strengths["c"]


def test_answers_that_do_not_count_are_no_silence(scores: Path, tmp_path: Path) -> None:
    study, _ = small_study(scores, tmp_path / "study")
    answer(study, tmp_path / "study", careless=(1, 2, 3, 4))
    findings = read_findings(tmp_path / "study")
    assert [one.text for one in verdicts(findings)] == ["No answer counts: of 4 raters 4 are excluded."]


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ({"raters": 1, "per_item": 1}, "preferred by this rater: win rate"),
        ({"raters": 6, "per_item": 3}, "preferred: win rate"),
        ({"items": 4, "subjects": 2}, "not sure: 2 of the 6 subjects"),
    ],
)
def test_a_verdict_says_whom_it_speaks_of(size: dict[str, int], words: str, tmp_path: Path) -> None:
    """Everybody always prefers the second method."""
    scores = evaluated(tmp_path / "scores", subjects=size.pop("subjects", 7), prompts=2)
    study, _ = small_study(scores, tmp_path / "study", **{"items": 14} | size)
    answer(study, tmp_path / "study", better=9.0)
    (verdict,) = verdicts(read_findings(tmp_path / "study"))
    assert verdict.text.count(words) == 2 and (verdict.kind == "rose") == ("sure" not in words)


def test_an_unanswered_study_and_an_unfinished_one(
    scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, _ = small_study(scores, tmp_path / "study")
    words = ["study", "report", str(tmp_path / "study"), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "no answers yet" in capsys.readouterr().err
    store = Store(tmp_path / "study")
    item = study.lists[0][0].item
    store.save(1, item, {"identity": "tie", "prompt": "tie"}, True, 0)
    store.close()
    assert main(words) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "1 of 32 pages are answered" in page
    json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
