"""A study's folder: frozen, anonymous, and refused in one line where it can't be made."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.studies import METHODS, evaluated, picture, small_study

from cgrpo.app.main import main
from cgrpo.errors import UserError
from cgrpo.scores import read_scores, write_scores
from cgrpo.study.database import DATABASE
from cgrpo.study.manifest import Study, changed_pictures, read_study

Made = tuple[Study, Path, list[str]]
DEAD = (  # a link that is this and /r/TOKEN/ leads nowhere
    *(
        "http://x.org/?a=1",
        "http://x.org#top",
        "https://x.org/study",
        "x.org:80",
        "ftp://x.org",
        "http://a b",
        "http://",
    ),
    *("http://x.org:0", "http://x.org:70000", "http://me:secret@x.org", "//x.org", ""),
)


def test_what_is_written_is_read_again(made: Made) -> None:
    study, folder, _ = made
    assert read_study(folder) == study
    assert not list(changed_pictures(folder, study))
    assert len(study.of_kind("item")) == 12 and len(study.of_kind("check")) == 2 and len(study.of_kind("tutorial")) == 4


def test_a_seed_gives_the_same_design_under_other_ids(scores: Path, tmp_path: Path, made: Made) -> None:
    study, _, tokens = made
    again, others = small_study(scores, tmp_path / "again")

    def design(one: Study) -> list[Any]:
        items = one.by_id()
        return [[(items[i].subject, items[i].arms, left) for i, left in shown] for shown in one.lists]

    assert design(study) == design(again)
    assert not {item.id for item in study.items} & {item.id for item in again.items}
    assert not study.hashes.keys() & again.hashes.keys() and not set(tokens) & set(others)
    other, _ = small_study(scores, tmp_path / "other", seed=1)
    assert design(other) != design(study)


def test_pictures_tell_nothing_but_their_pixels(made: Made) -> None:
    """No name, no date, no metadata; the two of a pair of one size and of one length in bytes."""
    study, folder, _ = made
    files = list((folder / "pictures").iterdir())
    assert {file.stem for file in files} == study.hashes.keys()
    assert {file.stat().st_mtime for file in files} == {0}
    for item in study.items:
        pair = [folder / "pictures" / f"{name}.png" for name in item.pictures]
        assert len({file.stat().st_size for file in pair}) == 1
        assert {Image.open(file).size for file in pair} == {(24, 24)}
        assert all(Image.open(file).info == {} for file in pair)
    item = study.of_kind("item")[0]
    shown = [np.asarray(Image.open(folder / "pictures" / f"{name}.png")) for name in item.pictures]
    for pixels_HWC, arm in zip(shown, item.arms, strict=True):
        assert np.array_equal(pixels_HWC, np.asarray(Image.open(arm.source)))


def test_links_and_tokens(made: Made) -> None:
    _, folder, tokens = made
    assert len(set(tokens)) == 5 and all(len(token) == 48 for token in tokens)
    assert os.stat(folder / "links.txt").st_mode & 0o077 == 0
    kept = (folder / DATABASE).read_bytes() + (folder / "study.json").read_bytes()
    assert not any(token.encode() in kept for token in tokens)


def test_pictures_of_other_sizes_are_brought_to_one(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "scores")
    for file in sorted((folder / "pictures" / METHODS[1]).rglob("*.png"))[:3]:
        picture(file, 5, (60, 30))
    study, _ = small_study(folder, tmp_path / "study", items=24)
    sizes = {Image.open(tmp_path / "study" / "pictures" / f"{n}.png").size for i in study.items for n in i.pictures}
    assert sizes == {(24, 24)}


def test_a_tutorial_of_ones_own(scores: Path, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    entry = {"references": ["a.png"], "pictures": ["a.png", "a.png"], "prompt": "x", "gold": {"identity": "tie"}}
    file = tmp_path / "tutorial.json"
    file.write_text(json.dumps([entry | {"explanation": "because"}]), encoding="utf-8")
    study, _ = small_study(scores, tmp_path / "study", tutorial=file)
    (lesson,) = study.of_kind("tutorial")
    assert lesson.explanation == "because" and lesson.is_right("identity", "tie", True)
    for wrong, told in (
        ({"gold": {"identity": "left"}}, "none of first, tie, second"),
        ({"pictures": ["a.png"]}, "1 pict"),
    ):
        file.write_text(json.dumps([entry | {"explanation": "because"} | wrong]), encoding="utf-8")
        with pytest.raises(UserError, match=f"item 1: .*{told}"):
            small_study(scores, tmp_path / "other", tutorial=file)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--method", METHODS[0], "--method", "nobody"], "no method 'nobody'"),
        (["--method", METHODS[0]], "two methods"),
        (["--items", "999"], "24 subjects with prompts"),
        (["--raters", "2", "--raters-per-item", "3"], "--raters-per-item 3: give 1 to 2"),
        (["--consent", "nowhere.txt"], "nowhere.txt"),
        *((["--url", url], f"--url {url}:") for url in DEAD),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], told: str, scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "create", str(scores), *words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_missing_pictures_and_full_folders_are_refused(scores: Path, tmp_path: Path, made: Made) -> None:
    with pytest.raises(UserError, match="is there already"):
        small_study(scores, made[1])
    with pytest.raises(UserError, match="run cgrpo evaluate"):
        small_study(tmp_path, tmp_path / "out")
    folder = evaluated(tmp_path / "scores", subjects=1, prompts=1)
    (folder / "pictures" / METHODS[0] / "toy0" / "00_0.png").unlink()
    with pytest.raises(UserError, match="has a picture; 1 pictures are gone, such as .*00_0.png"):
        small_study(folder, tmp_path / "out")


@pytest.mark.parametrize(
    "part", [{"data": None}, {"references": {"toy0": [1]}}, {"methods": {METHODS[0]: 1}}, {"data": 0}]
)
def test_a_description_by_hand_is_refused_in_one_line(
    part: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = evaluated(tmp_path / "scores", subjects=2, prompts=1)
    file = folder / "benchmark.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    for changed in (about | part, {name: value for name, value in about.items() if name not in part}):
        file.write_text(json.dumps(changed), encoding="utf-8")
        assert main(["study", "create", str(folder), "--items", "2", "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert "benchmark.json" in error and error.count("\n") == 1


def test_what_one_method_lacks_is_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture that is gone, one that was never scored, and a subject whose reference is gone: 1 + 1 + 6 of 24."""
    folder = evaluated(tmp_path / "scores")
    (folder / "pictures" / METHODS[0] / "toy0" / "00_0.png").unlink()
    (folder / "data" / "toy3" / "00.png").unlink()
    rows = [row for row in read_scores(folder) if (row.method, row.picture) != (METHODS[1], "toy1/02_0.png")]
    write_scores(folder, rows)
    words = ["study", "create", str(folder), "--raters", "4", "--raters-per-item", "2", "--out", str(tmp_path / "out")]
    assert main([*words, "--items", "17"]) == 2
    assert "16 subjects with prompts" in capsys.readouterr().err
    assert main([*words, "--items", "16"]) == 0
    assert "left out: 8 subjects with prompts" in capsys.readouterr().out
    shown = {(item.subject, item.prompt_index) for item in read_study(tmp_path / "out").of_kind("item")}
    assert shown == {(f"toy{s}", p) for s in range(3) for p in range(6)} - {("toy0", 0), ("toy1", 2)}


def test_the_lines_after_create(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--items", "20", "--raters", "4", "--raters-per-item", "1", "--out"]
    few, scores = evaluated(tmp_path / "few", subjects=5), evaluated(tmp_path / "scores", subjects=6)
    assert main(["study", "create", str(few), *words, str(tmp_path / "a")]) == 0
    assert "no verdict is possible: pictures of 5 of the 6 subjects" in capsys.readouterr().out
    assert main(["study", "create", str(scores), *words, str(tmp_path / "b")]) == 0
    printed = capsys.readouterr().out
    assert "20 items of hidden-base, secret-method; 10 pages a rater" in printed
    assert "more than 1 failed exclude one (answers at random pass with probability 0.045)" in printed
    assert "55 : 45 takes 783 items at 1, 418 items at 3" in printed
