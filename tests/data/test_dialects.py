"""Rows of published sets in fields of their own: what stays of a row, and what the usual filter leaves out."""

import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.datasets import encoded, pack, scene, write_rows

from cgrpo.app.main import main
from cgrpo.data import ManifestSource, check_manifest, read_tasks
from cgrpo.data.archives import is_file, read_bytes, within
from cgrpo.data.readers import scan
from cgrpo.data.tasks import Fault, LeftOut
from cgrpo.errors import UserError
from cgrpo.types import Task

MINI = Path(__file__).parent / "syncd_mini"
GOOD = {"compositeStructure": 5, "objectConsistency": 5, "imageQuality": 5}


def composite(seed: int, size: tuple[int, int] = (1056, 528), kind: str = "PNG") -> bytes:
    """One scene on the left and another on the right, in a white frame."""
    whole = Image.new("RGB", size, "white")
    for n, left in enumerate((8, 528)):
        whole.paste(scene(2 * seed + n, 512), (left, 8))
    return encoded(whole, kind)


def row(seed: int, **change: Any) -> dict[str, Any]:
    description = {"item": f"toy {seed}", "description_0": "on a table", "description_1": f"toy {seed} in snow"}
    image = {"bytes": composite(seed), "path": None}
    return {"image": image, "description": description, "quality_assessment": GOOD, "collection": "two"} | change


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_halves_are_reference_and_target(tmp_path: Path) -> None:
    file = write(tmp_path / "x.parquet", [row(0), row(1)])
    task = read_tasks(file)[1]
    assert (task.id, task.prompt, task.subject) == ("1", "toy 1 in snow", "toy 1")
    assert task.meta["ref_prompt"] == "on a table" and task.meta["collection"] == "two"
    batch, targets = ManifestSource(file).pairs([1])
    with Image.open(BytesIO(composite(1))) as whole:
        assert np.array_equal(batch.references[0][0], whole.crop((8, 8, 520, 520)))
        assert np.array_equal(targets[0], whole.crop((528, 8, 1040, 520)))
    assert check_manifest(file).problems == ()


def test_the_filter_leaves_out_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        row(0),
        row(1, quality_assessment=GOOD | {"imageQuality": 4}),
        row(2, quality_assessment=None),
        row(3, quality_assessment=GOOD | {"objectConsistency": None}),
        row(4, description=row(4)["description"] | {"description_valid": False}),
        row(5),
    ]
    file = write(tmp_path / "x.parquet", rows)
    assert [task.id for task in read_tasks(file)] == ["0", "5"]
    assert [type(one) for one in scan(file)] == [Task, LeftOut, LeftOut, LeftOut, LeftOut, Task]
    report = check_manifest(file)
    assert (report.rows, report.left_out, report.pictures, report.problems) == (6, 4, 4, ())
    assert main(["data", "check", str(file)]) == 0
    assert "leaves out 4 of 6 rows" in capsys.readouterr().out
    unscored = [{key: value for key, value in row.items() if key != "quality_assessment"} for row in rows]
    assert len(read_tasks(write(tmp_path / "y.parquet", unscored))) == 5
    with pytest.raises(UserError, match="leaves out all 3 rows"):
        read_tasks(write(tmp_path / "z.parquet", rows[1:4]))


def test_composites_at_fault(tmp_path: Path) -> None:
    rows = [
        row(0, image={"bytes": composite(0, (1024, 512)), "path": None}),
        row(1, image=None),
        row(2, description=row(2)["description"] | {"description_1": None}),
        row(3, image={"bytes": b"?", "path": None}),
        row(4, image={"bytes": composite(4)[:2000], "path": None}),
        row(5, image={"bytes": composite(5, kind="JPEG"), "path": None}),
    ]
    file = write(tmp_path / "x.parquet", rows)
    problems = check_manifest(file).problems
    assert [(problem.id, problem.kind) for problem in problems] == [
        ("0", "broken"), ("0", "broken"), ("1", "row"), ("2", "row"),
        ("3", "broken"), ("3", "broken"), ("4", "broken"), ("4", "broken"),
    ]  # fmt: skip
    assert "0/image/left: a composite of 1024 x 512 pixels; only 1056 x 528" in problems[0].message
    assert "row 3: prompt" in problems[3].message
    assert all("\n" not in problem.message for problem in problems)
    with pytest.raises(UserError, match="3/image/left: can't be read as a picture"):
        read_bytes(Path(f"{file}!/3/image/left"))


def label(name: str, score: Any = 4.0, **change: Any) -> dict[str, Any]:
    pair = {f"img_path{n}": f"split1/{name}_{n}.png" for n in (1, 2)}
    caption = {"img_path1": "a cup", "img_path2": f"{name} in snow", "subject": ["cup"], "judgment": "same"}
    return {**pair, "caption": caption, "vlm_filter_cot": {"score_part": {}, "score_final": score}} | change


@pytest.mark.parametrize("place", ["labels/split1.json", "all.json"])
def test_unos_labels(tmp_path: Path, place: str) -> None:
    """Pictures lie in images/ next to labels/; a score that can't be is no good score."""
    (tmp_path / "images/split1").mkdir(parents=True)
    (tmp_path / "labels").mkdir()
    rows = [label("a"), label("b", 3.0), label("c", 1e5), label("d", None), label("e", 3.5)]
    rows += [label("f", caption="a cup"), label("g", caption={"subject": []}), label("h", vlm_filter_cot=None)]
    first, *others = scan(write_rows(tmp_path / place, *rows))
    assert [type(one) for one in others] == [LeftOut, LeftOut, LeftOut, Task, Fault, Fault, Task]
    assert isinstance(first, Task) and (first.prompt, first.subject) == ("a in snow", "cup")
    assert first.references[0].resolve() == tmp_path / "images/split1/a_1.png"
    assert first.target and first.target.resolve() == tmp_path / "images/split1/a_2.png"


def test_syncds_release_and_generator_layout() -> None:
    tasks = read_tasks(MINI / "release")
    assert [task.id for task in tasks] == ["0", "1", "2", "50145"]
    fox = tasks[3]
    assert (fox.references, fox.target) == ((MINI / "release/50145/0.png",), MINI / "release/50145/2.png")
    assert (fox.prompt, fox.subject, fox.mask_threshold) == ("A fox on a beach with a blue sky.", "fox", 8)
    assert fox.masks == (MINI / "release/50145/masks/0.jpg",)
    assert tasks[0].subject == "red mug with a yellow stripe"
    (parrot,) = read_tasks(MINI / "generator_output")
    assert parrot.id == "Parrot_0_0_0" and parrot.masks[0] and is_file(parrot.masks[0])


def test_syncd_in_zips_without_scores_or_unpacking(tmp_path: Path) -> None:
    """As it is downloaded: metadata, and the pictures in two zips."""
    release = MINI / "release"
    for name, objects in {"archive_1.zip": ("0", "1", "2"), "archive_2.zip": ("50145",)}.items():
        files = sorted(path for item in objects for path in (release / item).rglob("*") if path.is_file())
        pack(tmp_path / name, {path.relative_to(release).as_posix(): path.read_bytes() for path in files})
    shutil.copy(release / "metadata.json", tmp_path)
    packed, plain = ManifestSource(tmp_path), ManifestSource(release)
    assert packed.tasks[3].references == (within(tmp_path / "archive_2.zip", "50145/0.png"),)
    assert packed.pairs(range(4)) == plain.pairs(range(4))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive_1.zip", "archive_2.zip", "metadata.json"]


def test_an_object_of_syncd_without_a_prompt_is_left_out(tmp_path: Path) -> None:
    rows = [{"filenames": ["0/0.png", "0/1.png"], "prompts": [" ", " "]}, {"filenames": "0/0.png"}]
    empty, odd = scan(write_rows(tmp_path / "metadata.json", *rows))
    assert isinstance(empty, LeftOut) and empty.id == "0"
    assert isinstance(odd, Fault) and "row 2: filenames" in odd.message


def test_the_releases_subset(tmp_path: Path) -> None:
    """Its pictures lie in SynCD's folder; the embeddings that it names aren't looked for."""
    path = MINI / "subset/train_mini_syncd_embedding.json"
    tasks = read_tasks(path, MINI / "release")
    assert [task.id for task in tasks] == ["3040", "3041", "3042"]
    assert tasks[2].references == (MINI / "release/50145/1.png",)
    assert tasks[2].target == MINI / "release/50145/2.png" and tasks[2].prompt.startswith("A fox on a beach")
    assert tasks[2].masks == (MINI / "release/50145/masks/1.jpg",) and tasks[2].meta["category"] == "deformable"
    for key in ("text", "ref_img", "img"):
        row = json.loads(path.read_text())[0] | {key: ""}
        with pytest.raises(UserError, match=f"row 1: {key}"):
            read_tasks(write_rows(tmp_path / "m.json", row))
