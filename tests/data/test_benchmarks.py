"""Benchmarks with several references in the layouts in which they are published: counts, references, wrong rows."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.datasets import encoded, png, put, scene
from support.tasks import tasks

from cgrpo.app.main import main
from cgrpo.data import check_manifest, read_tasks
from cgrpo.data.benchmarks import FOLDERS, ROWS
from cgrpo.data.readers import scan
from cgrpo.data.tasks import Fault
from cgrpo.evaluation.benchmark.candidates import copy_candidates, picture_name
from cgrpo.evaluation.benchmark.suite import manifest_suite
from cgrpo.hub import asset
from cgrpo.rewards import load_reward
from cgrpo.rewards.base import to_tensor
from cgrpo.scores import read_scores

Row = dict[str, Any]
KINDS = {"human": "live", "animal": "live", "object": "object", "style": "style"}


def dreambench_plus(folder: Path, pictures: int = 150) -> Path:
    """images/ and captions/ of category folders: a subject and nine prompts for each picture."""
    files: dict[str, bytes | str] = {}
    for number in range(pictures):
        category = list(KINDS)[number % 4]
        place = f"live_subject/{category}" if KINDS[category] == "live" else category
        files[f"images/{place}/{number:02d}.jpg"] = png((number, 0, 0))
        files[f"captions/{place}/{number:02d}.txt"] = "\n".join(
            [f"Odd Toy {number}", *(f"prompt {n}" for n in range(9))]
        )
    return put(folder, files)


def xversebench_row(index: int, count: int) -> Row:
    pictures = [
        {"image_path": f"assets/XVerseBench/human/{(index + n) % 20:02d}_man.jpg", "caption": f"a man {n}"}
        for n in range(count)
    ]
    modulation = [{"type": "adapter", "src_inputs": pictures, "use_words": [[0, "man", "man"]]}]
    return {
        "index": index,
        "input_images": [],
        "position_delta": [0, -32],
        "prompt": f"A man {index}.",
        "modulation": modulation,
    }


def xversebench(folder: Path) -> Path:
    single, multi = ([xversebench_row(n, count) for n in range(rows)] for rows, count in ((90, 1), (210, 3)))
    lists = dict(zip(FOLDERS["XVerseBench"], (single, multi), strict=True))
    pictures: dict[str, bytes | str] = {f"assets/XVerseBench/human/{n:02d}_man.jpg": png() for n in range(20)}
    return put(folder, pictures | {name: json.dumps(rows) for name, rows in lists.items()})


def psrbench(folder: Path, field: str = "input_paths") -> Path:
    files: dict[str, bytes | str] = {f"subjects/{n}.png": encoded(scene(n)) for n in range(4)}
    for name in FOLDERS["PSRBench"]:
        count = {"Three.json": 3, "Four.json": 4}.get(name, 2)
        words = {f"category{n + 1}": f"toy {n}" for n in range(count)}
        row = {field: [f"subjects/{n}.png" for n in range(count)], **words}
        files[name] = json.dumps([row | {"instruction": f"two toys {name} {n}"} for n in range(50)])
    return put(folder, files)


def omnirefbench(folder: Path) -> Path:
    rows = []
    for index in range(395):
        files = ["transfer_subjects/a wild rabbit.png", "style/reference.png", "transfer_subjects/a child.png"]
        row = {"prompt": "A rabbit in image 1", "edit_image": [f"s/{index}/{file}" for file in files], "index": index}
        rows.append(row | {"category": "subject_style"} | ({"image": f"s/{index}/{index}.png"} if index < 9 else {}))
    return put(folder, {"benchmark.json": json.dumps(rows)}) / "benchmark.json"


def omnicontext(folder: Path) -> Path:
    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [
        {"key": f"k{n}", "task_type": f"multi_{n // 50}", "instruction": "The man meets the dog", "input_images": [
            {"bytes": png(side=4 + n % 3), "path": None}, {"bytes": png("blue"), "path": None}]}
        for n in range(100)
    ]  # fmt: skip
    (folder / "data").mkdir()
    fields = {
        "key": pa.string(),
        "task_type": pa.string(),
        "instruction": pa.string(),
        "input_images": pa.list_(picture),
    }
    table = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    pq.write_table(table, folder / "data" / "train-00000-of-00001.parquet")
    return folder


def multibanana(folder: Path) -> Path:
    """A fiftieth of its tasks: whole, it is the longest of these tests by far."""
    files: dict[str, bytes | str] = {}
    for number in range(3769 // 50):
        place = f"{3 + number % 6}_back/{number:04d}"
        files |= {f"{place}_0.jpg": b"", f"{place}_1.jpg": b"", f"{place}_prompt.txt": "the man of image 1"}
    return put(folder, files)


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "DreamBench++": dreambench_plus,
    "XVerseBench": xversebench,
    "PSRBench": psrbench,
    "OmniRef-Bench": omnirefbench,
    "OmniContext": omnicontext,
    "MultiBanana": multibanana,
}


@pytest.mark.parametrize("name", ROWS)
def test_a_benchmark_has_as_many_rows_as_its_paper_says(tmp_path: Path, name: str) -> None:
    suite = manifest_suite(LAYOUTS[name](tmp_path))
    assert suite.name == suite.conditions["benchmark"] == name
    assert suite.facts.get("published rows") == ROWS[name]
    assert len(suite.rows) == {"MultiBanana": 3769 // 50, "OmniContext": 100}.get(name, ROWS[name])
    names = [picture_name(row, 1) for row in suite.rows]
    assert len(set(names)) == len(names) and max(map(len, names)) < 200
    for row in suite.rows:
        assert set(row.references) >= {suite.photos[subject][0] for subject in row.subjects}


def test_dreambench_plus_names_pictures_as_its_ratings_do(tmp_path: Path) -> None:
    read = read_tasks(dreambench_plus(tmp_path, 8))
    assert [read[0].id, read[17].id] == ["live_subject_animal_01_odd_toy_1-0", "live_subject_animal_05_odd_toy_5-8"]
    suite = manifest_suite(tmp_path)
    row = suite.rows[-1]
    assert (row.subject, row.words, row.prompt, row.subject_kind) == (
        "style_07_odd_toy_7",
        ("Odd Toy 7",),
        "prompt 8",
        "style",
    )
    assert picture_name(row, 42, "{subject}/{index}_{image}", 42) == "style_07_odd_toy_7/8_0"  # as its scripts write
    assert check_manifest(tmp_path, quick=True).problems == ()


@pytest.mark.parametrize("field", ["input_paths", "input_path"])
def test_psrbench_names_each_reference(tmp_path: Path, field: str) -> None:
    suite = manifest_suite(psrbench(tmp_path, field))
    first, last = suite.rows[0], suite.rows[-1]
    assert (first.words, first.prompt_kind) == (("toy 0", "toy 1"), "attribute")
    assert (last.words, last.prompt_kind) == (("toy 0", "toy 1", "toy 2", "toy 3"), "four")
    assert {suite.photos[name][0] for name in last.subjects} == {str(tmp_path / f"subjects/{n}.png") for n in range(4)}


def test_a_style_is_shown_and_not_compared_with(tmp_path: Path) -> None:
    suite = manifest_suite(omnirefbench(tmp_path))
    row = suite.rows[0]
    assert (row.subjects, row.words) == (("a_wild_rabbit", "a_child"), ("a wild rabbit", "a child"))
    assert len(row.references) == 3 and suite.photos["a_child"] == (row.references[2],)
    assert row.target and not suite.rows[-1].target and row.prompt_kind == "subject_style"
    assert len(copy_candidates(suite)[0].files) == 2


def test_xversebench_and_omnicontext_keep_their_kinds(tmp_path: Path) -> None:
    rows = manifest_suite(xversebench(tmp_path / "x")).rows
    assert [row.prompt_kind for row in rows] == ["single"] * 90 + ["multi"] * 210
    assert rows[-1].words == ("a man 0", "a man 1", "a man 2")
    (tmp_path / "o").mkdir()
    read = read_tasks(omnicontext(tmp_path / "o"))
    assert (read[99].id, read[99].meta["prompt_kind"]) == ("k99", "multi_1")
    alone = read_tasks(tmp_path / "x" / FOLDERS["XVerseBench"][0])  # a list by itself
    assert len(alone) == 90 and alone[0].references[0].is_file()


def changed(name: str, **change: Any) -> Callable[[Path], None]:
    """Row 7 of a list with other fields; None takes one away."""

    def change_row(folder: Path) -> None:
        rows = json.loads((folder / name).read_text())
        rows[7] = {key: value for key, value in (rows[7] | change).items() if value is not None}
        (folder / name).write_text(json.dumps(rows))

    return change_row


SINGLE = FOLDERS["XVerseBench"][0]


@pytest.mark.parametrize(
    ("name", "spoil", "says"),
    [
        ("XVerseBench", changed(SINGLE, modulation=[]), "XVerseBench_single.json, row 8: no row of XVerseBench"),
        ("XVerseBench", changed(SINGLE, modulation=[{"src_inputs": [{"image_path": "a.jpg"}]}]), "row 8: .*caption"),
        ("XVerseBench", changed(SINGLE, modulation=[{"src_inputs": []}]), "row 8: references"),
        ("XVerseBench", changed(SINGLE, prompt=""), "row 8: prompt"),
        ("PSRBench", changed("Three.json", category3=None), "Three.json, row 8: .*category3"),
        ("PSRBench", changed("Four.json", input_paths=None), "Four.json, row 8: .*input_path"),
        ("PSRBench", changed("Four.json", input_paths=[3]), "Four.json, row 8: references"),
        ("OmniRef-Bench", changed("benchmark.json", edit_image=[4]), "benchmark.json, row 8: .*OmniRef-Bench"),
        ("OmniRef-Bench", changed("benchmark.json", edit_image=[]), "benchmark.json, row 8: references"),
        ("OmniRef-Bench", changed("benchmark.json", prompt=None), "benchmark.json, row 8: prompt"),
        ("MultiBanana", lambda folder: (folder / "4_back/0007_prompt.txt").write_text(" "), "0007_prompt.txt: prompt"),
        ("DreamBench++", lambda folder: (folder / "captions/style/07.txt").write_text("a toy"), "07.txt: must hold"),
        ("DreamBench++", lambda folder: (folder / "captions/style/07.txt").write_text(""), "07.txt: must hold"),
        ("DreamBench++", lambda folder: (folder / "captions/style/07.txt").write_bytes(b"\xff\xfe\x00"), "07.txt"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_one_line(tmp_path: Path, name: str, spoil: Callable[[Path], object], says: str) -> None:
    place = LAYOUTS[name](tmp_path)
    spoil(tmp_path)
    faults = [row.message for row in scan(place) if isinstance(row, Fault)]
    assert len(faults) == 1 and "\n" not in faults[0] and re.search(says, faults[0]), faults


def test_the_check_compares_with_the_published_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = psrbench(tmp_path)
    (place / "Four.json").unlink()
    assert main(["data", "check", str(place), "--quick"]) == 0
    assert "PSRBench: 300 rows; as published it has 350" in capsys.readouterr().out


def test_the_command_scores_each_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pictures that are one of two references: a copy of it, and as far from the other as the two are apart."""
    bench = tmp_path / "bench"
    words = {"category1": "red toy", "category2": "blue toy"}
    row = {"instruction": "both", "input_paths": ["subjects/red.png", "subjects/blue.png"], **words}
    put(bench, {"Action.json": json.dumps([row]), "subjects/red.png": png(), "subjects/blue.png": png("blue")})
    put(tmp_path / "made", {"red_toy+blue_toy/00_1.png": png()})
    options = ["--images", str(tmp_path / "made"), "--method", "theirs", "--metric", "clip-i=" + str(asset("clip"))]
    options += ["--seeds", "1", "--first-seed", "1", "--out", str(tmp_path / "scores")]
    assert main(["evaluate", "manifest", str(bench), *options]) == 0
    assert "PSRBench: 1 rows of 350 published" in capsys.readouterr().out
    (theirs,) = (one for one in read_scores(tmp_path / "scores") if one.method == "theirs")
    alone = [similarity(png(), picture) for picture in (png(), png("blue"))]
    assert theirs.score == pytest.approx(sum(alone) / 2, abs=1e-4) and alone[0] == pytest.approx(1, abs=1e-4)


def similarity(made: bytes, reference: bytes) -> float:
    picture, other = (Image.open(io.BytesIO(content)).convert("RGB") for content in (made, reference))
    return load_reward("clip-i", asset("clip"))(to_tensor([picture]), tasks([[other]])).item()
