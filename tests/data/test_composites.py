"""Pairs in one picture, and UNO-1M's labels: what stays of a row, and what the usual filter leaves out."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cgrpo.cli import main
from cgrpo.data import ManifestSource, check_manifest, read_tasks
from cgrpo.data.archives import read_bytes
from cgrpo.data.readers import scan
from cgrpo.data.tasks import Fault, LeftOut
from cgrpo.errors import UserError
from cgrpo.types import Task

GOOD = {"compositeStructure": 5, "objectConsistency": 5, "imageQuality": 5}


def composite(seed: int, size: tuple[int, int] = (1056, 528), kind: str = "PNG") -> bytes:
    """Random blocks on the left and on the right, in a white frame."""
    whole, rng = Image.new("RGB", size, "white"), np.random.default_rng(seed)
    for left in (8, 528):
        blocks = rng.integers(0, 200, (8, 8, 3), dtype=np.uint8)
        whole.paste(Image.fromarray(blocks).resize((512, 512), Image.Resampling.NEAREST), (left, 8))
    out = BytesIO()
    whole.save(out, kind)
    return out.getvalue()


def row(seed: int, **change: Any) -> dict[str, Any]:
    told = {"item": f"toy {seed}", "description_0": "on a table", "description_1": f"toy {seed} in snow"}
    image = {"bytes": composite(seed), "path": None}
    return {"image": image, "description": told, "quality_assessment": GOOD, "collection": "two"} | change


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_halves_are_reference_and_target(tmp_path: Path) -> None:
    file = write(tmp_path / "x.parquet", [row(0), row(1)])
    record = read_tasks(file)[1]
    assert (record.id, record.prompt, record.subject) == ("1", "toy 1 in snow", "toy 1")
    assert record.meta["ref_prompt"] == "on a table" and record.meta["collection"] == "two"
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
    assert [record.id for record in read_tasks(file)] == ["0", "5"]
    assert [type(found) for found in scan(file)] == [Task, LeftOut, LeftOut, LeftOut, LeftOut, Task]
    report = check_manifest(file)
    assert (report.rows, report.left_out, report.pictures, report.problems) == (6, 4, 4, ())
    assert main(["data", "check", str(file)]) == 0
    assert "4 of 6 rows are left out" in capsys.readouterr().out
    assert (
        len(read_tasks(write(tmp_path / "y.parquet", [{k: v for k, v in r.items() if k[0] != "q"} for r in rows]))) == 5
    )
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
    assert "row 2: prompt" in problems[3].message
    assert all("\n" not in problem.message for problem in problems)
    with pytest.raises(UserError, match="3/image/left: can't be read as a picture"):
        read_bytes(Path(f"{file}!/3/image/left"))


def label(name: str, score: Any = 4.0, **change: Any) -> dict[str, Any]:
    pair = {f"img_path{n}": f"split1/{name}_{n}.png" for n in (1, 2)}
    told = {"img_path1": "a cup", "img_path2": f"{name} in snow", "subject": ["cup"], "judgment": "same"}
    return {**pair, "caption": told, "vlm_filter_cot": {"score_part": {}, "score_final": score}} | change


def test_unos_labels(tmp_path: Path) -> None:
    """Pictures lie in images/ beside labels/; a score that can't be is no good score."""
    (tmp_path / "images/split1").mkdir(parents=True)
    (tmp_path / "labels").mkdir()
    rows = [label("a"), label("b", 3.0), label("c", 1e5), label("d", None), label("e", 3.5)]
    rows += [label("f", caption="a cup"), label("g", caption={"subject": []}), label("h", vlm_filter_cot=None)]
    for place in ("labels/split1.json", "all.json"):
        (tmp_path / place).write_text(json.dumps(rows))
        found = scan(tmp_path / place)
        kinds = [Task, LeftOut, LeftOut, LeftOut, Task, Fault, Fault, Task]
        assert [type(one) for one in found] == kinds
        first = found[0]
        assert isinstance(first, Task) and (first.prompt, first.subject) == ("a in snow", "cup")
        assert first.references[0].resolve() == tmp_path / "images/split1/a_1.png"
        assert first.target and first.target.resolve() == tmp_path / "images/split1/a_2.png"
