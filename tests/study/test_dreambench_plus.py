"""DreamBench++'s ratings in their published layout: agreement by its own scripts' arithmetic, written out here."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
from scipy import stats
from support.datasets import put

from cgrpo.app.main import main
from cgrpo.scores import ScoreRow, open_part, write_row
from cgrpo.study.dreambench_plus import PUBLISHED, agreement, read_ratings
from cgrpo.study.statistics import alignment

METHODS = ("blip_diffusion", "ip_adapter_vit_g_sdxl")
KEYS = [f"live_subject_animal_{n:02d}_odd-toy_{n}-{prompt}" for n in range(5) for prompt in range(9)]
Scores = dict[tuple[str, str, str], list[int]]  # by method, question ("cp" or "pf"), and who gave them


@pytest.fixture(scope="module")
def scores() -> Scores:
    """Of two groups and three rounds of GPT-4o, each some steps off a common quality."""
    draw, drawn = np.random.default_rng(0), {}
    for method in METHODS:
        for short in ("cp", "pf"):
            quality = draw.integers(0, 5, len(KEYS))
            for who in ("group1", "group2", "full", "full2", "full3"):
                drawn[method, short, who] = (quality + draw.integers(-1, 2, len(KEYS))).clip(0, 4).tolist()
    return drawn


def ratings(folder: Path, scores: Scores, merged: bool) -> Path:
    """Raw, as they are published, in two files for each group; or merged, as the benchmark's own scripts leave them."""
    files: dict[str, bytes | str] = {}
    for method in METHODS:
        for group in ("group1", "group2"):
            both = zip(scores[method, "cp", group], scores[method, "pf", group], strict=True)
            raw = dict(zip(KEYS, both, strict=True))
            place = f"data_human_rating/{'merged_data' if merged else 'raw_data'}/{group}"
            for n, short in enumerate(("cp", "pf")):
                if merged:
                    files[f"{place}/{method}-{short}.json"] = json.dumps({key: pair[n] for key, pair in raw.items()})
                else:
                    part = {key: raw[key] for key in KEYS[n::2]}
                    files[f"{place}/part-{n}-{method}.json"] = json.dumps(part)
        for name, short in (("concept_preservation", "cp"), ("prompt_following", "pf")):
            for number in ("full", "full2", "full3"):
                given = dict(zip(KEYS, scores[method, short, number], strict=True))
                place = f"data_gpt_rating/{name}_{number}/{method}"
                if merged:
                    files[f"{place}.json"] = json.dumps(given)
                    continue
                for key, score in given.items():
                    subject, _, prompt = key.rpartition("-")
                    table = {"collection_id": subject, "prompt_index": int(prompt), "score": score, "reply": "..."}
                    files[f"{place}/{key}.json"] = json.dumps(table)
    return put(folder, files)


def alpha(one: list[int], other: list[int]) -> float:
    """Krippendorff's of intervals where two raters rate everything: squared differences within and overall."""
    all_N = np.array([*one, *other], dtype=float)
    within = ((np.array(one) - np.array(other)) ** 2).mean()
    overall = ((all_N[:, None] - all_N[None]) ** 2).sum() / len(all_N) / (len(all_N) - 1)
    return round(1 - within / overall, 3)


@pytest.mark.parametrize("merged", [False, True])
def test_agreement_is_that_of_the_published_scripts(tmp_path: Path, scores: Scores, merged: bool) -> None:
    found = {(one.question, one.method): agreement(one) for one in read_ratings(ratings(tmp_path, scores, merged))}
    assert len(found) == 4
    for (question, method), one in found.items():
        given = {who: values for (m, short, who), values in scores.items()
                 if (m, short) == (method, "cp" if question == "identity" else "pf")}  # fmt: skip
        groups = [given["group1"], given["group2"]]
        by_round = [
            round(fmean(alpha(group, given[name]) for group in groups), 3) for name in ("full", "full2", "full3")
        ]
        with_gpt = [stats.pearsonr(group, given["full"]).statistic for group in groups]
        assert one.pictures == len(KEYS) and one.alpha_people == alpha(*groups)
        assert (one.alpha_gpt, one.alpha_gpt_spread) == (round(fmean(by_round), 3), round(stdev(by_round), 3))
        assert one.pearson_people == pytest.approx(stats.pearsonr(*groups).statistic, abs=1e-4)
        assert one.pearson_gpt == pytest.approx(fmean(with_gpt), abs=1e-4)
        assert one.pearson_gpt_spread == pytest.approx(abs(with_gpt[0] - with_gpt[1]) / 2, abs=1e-4)


def test_the_command_sets_them_beside_what_was_published(
    tmp_path: Path, scores: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A metric of one's own that knows group 1's ratings of concept preservation comes first."""
    monkeypatch.setattr(alignment, "DRAWS", 20)
    (tmp_path / "scored").mkdir()
    with open_part(tmp_path / "scored", 0) as part:
        for key, score in zip(KEYS, scores[METHODS[0], "cp", "group1"], strict=True):
            subject, _, prompt = key.rpartition("-")
            write_row(part, ScoreRow(METHODS[0], subject, int(prompt), "", 42, "mine", "one", score / 4, "", None))
    command = ["analyze", "alignment", str(ratings(tmp_path, scores, False)), "--scores", str(tmp_path / "scored")]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    table = json.loads((tmp_path / "out" / "alignment.json").read_text())
    identity, prompt = table["questions"]
    assert [one["metric"] for one in identity["alignments"]] == ["mine (one)", "gpt-4o (one)"]
    assert [one["pictures"] for one in identity["alignments"]] == [len(KEYS), 2 * len(KEYS)]
    assert [one["metric"] for one in prompt["alignments"]] == ["gpt-4o"]
    assert len(table["agreement"]) == 4
    page = (tmp_path / "out" / "alignment.md").read_text()
    people, gpt, spread = PUBLISHED["ip_adapter_vit_g_sdxl"]
    assert "DreamBench++: agreement on identity" in page and f"{people:.3f} | {gpt:.3f} ± {spread:.3f}" in page


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("data_human_rating/raw_data/group1/part-0-emu2.json", "[1]", "part-0-emu2.json: must be an object"),
        ("data_human_rating/raw_data/group1/part-0-emu2.json", "{", "part-0-emu2.json"),
        ("data_human_rating/raw_data/group1/part-0-emu2.json", '{"a-0": [1]}', "a-0 has no score"),
        ("data_human_rating/raw_data/group1/part-0-emu2.json", '{"a-0": "good"}', "a-0 has no score"),
        (
            "data_gpt_rating/concept_preservation_full/blip_diffusion/x.json",
            '{"score": 1}',
            "x.json: has no collection",
        ),
    ],
)
def test_a_wrong_file_is_one_line(
    tmp_path: Path, scores: Scores, capsys: pytest.CaptureFixture[str], file: str, content: str, says: str
) -> None:
    put(ratings(tmp_path, scores, False), {file: content})
    assert main(["analyze", "alignment", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line


def test_a_folder_without_ratings_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data_human_rating").mkdir()
    assert main(["analyze", "alignment", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "data_human_rating: holds no ratings" in capsys.readouterr().err
