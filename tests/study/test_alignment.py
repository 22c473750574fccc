"""Rewards of known correlation with the ratings, found again."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.studies import METHODS, evaluated, small_study

from cgrpo.app.main import main
from cgrpo.scores import ScoreRow
from cgrpo.study.manifest import Arm, Item
from cgrpo.study.statistics import alignment
from cgrpo.study.statistics.alignment import align, kendall, pearson, spearman
from cgrpo.study.statistics.raters import RatedPicture
from cgrpo.study.store import Store


def item(n: int, task: int) -> Item:
    return Item(str(n), "item", "", (), ("p",), (Arm("m", n, ""),), f"s{task}", 0)


def row(n: int, task: int, metric: str, score: float | None) -> ScoreRow:
    return ScoreRow("m", f"s{task}", 0, "", n, metric, "one", score, "", None)


def test_correlations_are_scipys() -> None:
    x_N, y_N = np.random.default_rng(0).normal(size=(2, 30)).round(1)
    assert pearson(x_N, y_N) == pytest.approx(stats.pearsonr(x_N, y_N).statistic)
    assert spearman(x_N, y_N) == pytest.approx(stats.spearmanr(x_N, y_N).statistic)
    assert kendall(x_N, y_N) == pytest.approx(stats.kendalltau(x_N, y_N).statistic)
    assert math.isnan(pearson(x_N, np.ones(30))) and math.isnan(kendall(x_N[:2], y_N[:2]))


def test_the_reward_that_sees_more_is_found_and_the_ceiling_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "fine" sees quality within and between prompts, "coarse" only which prompt is easy."""
    monkeypatch.setattr(alignment, "DRAWS", 300)
    rng, rated, rows = np.random.default_rng(0), [], []
    for task in range(60):
        ease = rng.normal()
        for n in (2 * task, 2 * task + 1):
            quality = ease + rng.normal()
            rated.append(RatedPicture(item(n, task), tuple(quality + rng.normal(0, 1, 3))))
            rows += [
                row(n, task, "fine", quality + rng.normal(0, 0.7)),
                row(n, task, "coarse", ease + rng.normal(0, 0.3)),
            ]
    rows.append(row(0, 0, "gaps", None))
    found = align(rated, rows, "identity", "identity")
    fine, coarse = found.alignments
    assert (fine.metric, coarse.metric) == ("fine (one)", "coarse (one)")
    assert found.reliability == pytest.approx(2 / (2 + 1 / 3), abs=0.06)  # variance 2 against 1/3 of a mean of three
    assert fine.spearman < found.ceiling == pytest.approx(found.reliability**0.5)
    # variance of the rating's mean 2.33, of the score 2.49, covariance 2
    assert fine.pearson == pytest.approx(2 / (2.33 * 2.49) ** 0.5, abs=0.06)
    assert fine.within > 0.5 and abs(coarse.within) < 0.25 and fine.pairs == 120
    assert fine.intervals["spearman"].low < fine.spearman < fine.intervals["spearman"].high
    (difference,) = found.differences
    assert difference.interval.low > 0 and (difference.better, difference.worse) == ("fine (one)", "coarse (one)")


def test_missing_scores_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "DRAWS", 20)
    rated = [RatedPicture(item(n, n), (float(n % 5), 1.0)) for n in range(10)]
    rows = [row(n, n, "half", float(n) if n < 6 else None) for n in range(10)]
    (one,) = align(rated, rows, "identity", "identity").alignments
    assert (one.pictures, one.unscored, one.pairs) == (6, 4, 0) and math.isnan(one.within)
    assert align(rated, rows, "prompt", "prompt").alignments == []


def test_the_command(
    scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(alignment, "DRAWS", 20)
    study, _ = small_study(scores, tmp_path / "study", mode="rating", items=30)
    store, items = Store(tmp_path / "study"), study.by_id()
    for rater, shown in enumerate(study.lists, 1):
        for item_id, _ in shown:
            one = items[item_id]
            seen = "4" if one.arms[0].method == METHODS[1] else "2"  # "dino" is higher for the second method
            seen = seen if one.kind == "item" else str(one.gold["identity"][0])
            store.save(rater, item_id, {"identity": seen, "prompt": str((one.prompt_index or 0) // 2)}, True, 0)
    store.close()
    out = tmp_path / "out"
    assert main(["analyze", "alignment", str(tmp_path / "study"), "--out", str(out)]) == 0
    table = json.loads((out / "alignment.json").read_text(encoding="utf-8"))
    identity, prompt = table["questions"]
    assert identity["alignments"][0]["metric"] == "dino (one)" and identity["alignments"][0]["pearson"] > 0.9
    assert prompt["alignments"][0]["metric"] == "clip" and prompt["alignments"][0]["spearman"] > 0.9
    assert identity["ceiling"] == pytest.approx(1.0)
    text = (out / "alignment.md").read_text(encoding="utf-8")
    assert "DINO-Seg | 0.60 | 0.75" in text and "<svg" in (out / "alignment.html").read_text(encoding="utf-8")
    assert main(["study", "report", str(tmp_path / "study"), "--out", str(tmp_path / "report")]) == 0
    assert "Mean ratings, 0 to 5" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")


def test_studies_without_ratings_are_refused(scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_study(scores, tmp_path / "pairs")
    small_study(scores, tmp_path / "ratings", mode="rating")
    for folder, told in (("pairs", "--mode rating"), ("ratings", "no rating counts")):
        assert main(["analyze", "alignment", str(tmp_path / folder), "--out", str(tmp_path / "out")]) == 2
        assert told in capsys.readouterr().err
    empty = evaluated(tmp_path / "none", subjects=2)
    (empty / "scores.jsonl").write_text("", encoding="utf-8")
    words = ["analyze", "alignment", str(tmp_path / "ratings"), "--scores", str(empty), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "no scores" in capsys.readouterr().err
