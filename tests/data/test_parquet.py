"""Parquet files: every way to hold a picture, read by row in any order, by threads and forked processes."""

import multiprocessing
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.datasets import png

from cgrpo.data import ManifestSource, cache, check_manifest, columns, read_tasks
from cgrpo.data.archives import is_file, read_bytes
from cgrpo.data.readers import scan
from cgrpo.data.tasks import Fault
from cgrpo.errors import UserError
from cgrpo.types import Task

HF = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def picture(number: int) -> bytes:
    """A PNG of one colour, another for each number."""
    return png((number % 251, number // 251, 128), 4)


def embedded(number: int) -> dict[str, Any]:
    return {"bytes": picture(number), "path": f"{number}.png"}


def write(path: Path, columns: dict[str, Any], types: dict[str, Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema({name: types.get(name, pa.string()) for name in columns})
    pq.write_table(pa.table(columns, schema=schema), path, **options)
    return path


def many(path: Path, count: int, **options: Any) -> Path:
    data = {"text": [f"toy {n}" for n in range(count)], "image": [embedded(n) for n in range(count)]}
    return write(path, data, {"image": HF}, **options)


FORMS: dict[str, tuple[Any, Any]] = {
    "Hugging Face's": (HF, embedded),
    "bytes": (pa.binary(), picture),
    "large bytes": (pa.large_binary(), picture),
    "bytes alone in a struct": (pa.struct({"bytes": pa.binary()}), lambda n: {"bytes": picture(n)}),
    "by path in a struct": (HF, lambda n: {"bytes": None, "path": f"{n}.png"}),
    "a path alone in a struct": (pa.struct({"path": pa.string()}), lambda n: {"path": f"{n}.png"}),
    "by path": (pa.string(), lambda n: f"{n}.png"),
    "a list of Hugging Face's": (pa.list_(HF), lambda n: [embedded(n)]),
    "a list of bytes": (pa.list_(pa.binary()), lambda n: [picture(n)]),
    "a list of fixed length": (pa.list_(HF, 1), lambda n: [embedded(n)]),
    "a large list": (pa.large_list(HF), lambda n: [embedded(n)]),
    "a list by path": (pa.list_(pa.string()), lambda n: [f"{n}.png"]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("statistics", [True, False])
def test_every_way_to_hold_a_picture(tmp_path: Path, form: str, statistics: bool) -> None:
    """In groups of two rows, the third row without its target, with and without the file's count of nulls."""
    kind, make = FORMS[form]
    for n in range(6):
        (tmp_path / f"{n}.png").write_bytes(picture(n))
    one = [item[0] if isinstance(item := make(n), list) else item for n in range(3, 6)]
    data = {
        "prompt": ["a", "b", "c"],
        "references": [make(n) for n in range(3)],
        "target": [one[0], one[1], None],
        "masks": [make(0), make(1) if pa.types.is_fixed_size_list(kind) else None, make(2)],  # null: from pyarrow 26
    }
    flat = kind if pa.types.is_struct(kind) else getattr(kind, "value_type", kind)
    types = {"references": kind, "target": flat, "masks": kind}
    records = read_tasks(write(tmp_path / "x.parquet", data, types, row_group_size=2, write_statistics=statistics))
    assert [record.prompt for record in records] == ["a", "b", "c"]
    assert [read_bytes(record.references[0]) for record in records] == [picture(n) for n in range(3)]
    assert [record.target and read_bytes(record.target) for record in records] == [picture(3), picture(4), None]
    assert [[path and read_bytes(path) for path in record.masks] for record in records] == [
        [picture(0)], [picture(1)] if pa.types.is_fixed_size_list(kind) else [], [picture(2)]
    ]  # fmt: skip


def test_fields_lists_and_pictures_at_fault(tmp_path: Path) -> None:
    data = {
        "id": [7, None, 9, 10, 11],
        "caption": ["größer 🦊", "two", None, "no picture", "broken"],
        "images": [[embedded(0), embedded(1)], [embedded(90)], [embedded(3)], [], [{"bytes": b"?", "path": "x"}]],
        "target_image": [embedded(200), None, None, None, None],
        "item": ["fox", None, None, None, None],
        "meta": [{"from": "here"}, None, None, None, None],
    }
    types = {"id": pa.int64(), "images": pa.list_(HF), "target_image": HF, "meta": pa.struct({"from": pa.string()})}
    file = write(tmp_path / "x.parquet", data, types)
    one, two, three, four, five = scan(file)
    assert isinstance(one, Task) and isinstance(two, Task) and isinstance(five, Task)
    assert (one.id, one.prompt, one.subject, one.meta) == ("7", "größer 🦊", "fox", {"from": "here"})
    assert [str(path) for path in one.references] == [f"{file}!/0/images/0", f"{file}!/0/images/1"]
    assert str(one.target) == f"{file}!/0/target_image" and two.id == "1"
    assert isinstance(three, Fault) and three.id == "9" and "row 3: prompt" in three.message
    assert isinstance(four, Fault) and four.id == "10" and "row 4: references" in four.message
    report = check_manifest(file)
    assert [(problem.id, problem.kind) for problem in report.problems] == [
        ("9", "row"),
        ("10", "row"),
        ("11", "broken"),
    ]
    assert f"{file}!/4/images/0: can't be read" in report.problems[2].message
    batch = ManifestSource(write(tmp_path / "y.parquet", {k: v[:1] for k, v in data.items()}, types))
    assert batch.batch([0]).references[0][1].getpixel((0, 0)) == (1, 0, 128)


def test_columns(tmp_path: Path) -> None:
    """Two of one name, a date that Python doesn't have, an address, and two that hold pictures."""
    data = {"prompt": ["a"], "image": [picture(0)], "subject": pa.array([1], pa.timestamp("ns"))}
    pq.write_table(pa.table(data), tmp_path / "a.parquet")
    assert read_tasks(tmp_path / "a.parquet")[0].prompt == "a"
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array([b""])], ["prompt", "prompt", "image"])
    pq.write_table(twice, tmp_path / "b.parquet")
    with pytest.raises(UserError, match="b.parquet: .*two columns prompt"):
        read_tasks(tmp_path / "b.parquet")
    pq.write_table(pa.table({"prompt": ["a"], "image": ["https://a.b/0.png"]}), tmp_path / "c.parquet")
    with pytest.raises(UserError, match="c.parquet, row 1: https://a.b/0.png is an address"):
        read_tasks(tmp_path / "c.parquet")
    shown = pa.array([embedded(0)], HF)
    pq.write_table(pa.table({"text": ["a"], "image": shown, "other_image": shown}), tmp_path / "d.parquet")
    with pytest.raises(UserError, match="d.parquet: image and other_image both hold pictures"):
        read_tasks(tmp_path / "d.parquet")
    pq.write_table(pa.table({"text": ["a"], "image": shown, "target": shown, "depth": shown}), tmp_path / "e.parquet")
    assert read_tasks(tmp_path / "e.parquet")[0].target == tmp_path / "e.parquet!/0/target"


def test_text_that_is_no_unicode_is_one_rows_fault(tmp_path: Path) -> None:
    prompts = pa.array([b"fine", b"\xff\xfe", b"too"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": prompts, "image": pa.array([embedded(0)] * 3, HF)}), tmp_path / "x.parquet")
    assert [isinstance(row, Fault) for row in scan(tmp_path / "x.parquet")] == [False, True, False]


def test_scanning_reads_no_picture(tmp_path: Path) -> None:
    """Whose column is destroyed here; reading one then says so in a line."""
    file = many(tmp_path / "x.parquet", 50)
    chunk = pq.ParquetFile(file).metadata.row_group(0)
    (leaf,) = (c for i in range(chunk.num_columns) if (c := chunk.column(i)).path_in_schema == "image.bytes")
    content = bytearray(file.read_bytes())
    start = min(leaf.data_page_offset, leaf.dictionary_page_offset or leaf.data_page_offset)
    content[start : start + leaf.total_compressed_size] = bytes(leaf.total_compressed_size)
    file.write_bytes(content)
    records = read_tasks(file)
    assert len(records) == 50
    with pytest.raises(UserError, match="x.parquet, image, rows 0 to 49: can't be read") as caught:
        read_bytes(records[20].references[0])
    assert "\n" not in str(caught.value)
    kinds = {problem.kind for problem in check_manifest(file).problems}
    assert kinds == {"broken"}


@pytest.mark.parametrize("group", [7, 64, 200])
def test_any_order_from_blocks_within_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    """With blocks of a few rows, and room for a few blocks only."""
    monkeypatch.setattr(columns, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(cache, "KEPT_BYTES", 6000)
    monkeypatch.setattr(cache, "KEPT_CURSORS", 1)
    cache.cache_of.cache_clear()
    paths = [record.references[0] for record in read_tasks(many(tmp_path / "x.parquet", 200, row_group_size=group))]
    order = list(range(200))
    for seed in range(3):
        random.Random(seed).shuffle(order)
        assert [read_bytes(paths[n]) for n in order] == [picture(n) for n in order]
    order.sort()
    assert [read_bytes(paths[n]) for n in order] == [picture(n) for n in order]
    assert cache.cache_of(os.getpid()).bytes <= 6000
    cache.cache_of.cache_clear()


def test_threads_and_a_fork_amid_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "BLOCK_BYTES", 2000)
    paths = [record.references[0] for record in read_tasks(many(tmp_path / "x.parquet", 120, row_group_size=50))]
    order = random.Random(0).choices(range(120), k=600)

    def right(n: int) -> bool:
        return read_bytes(paths[n]) == picture(n)

    def child() -> None:
        sys.exit(0 if all(map(right, order)) else 1)

    with ThreadPoolExecutor(4) as pool:
        results = pool.map(right, order)
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        assert all(results)
    process.join(30)
    assert process.exitcode == 0


def test_shards_in_a_folder(tmp_path: Path) -> None:
    for n, name in enumerate(("train-00001-of-00002", "train-00000-of-00002", "test-00000-of-00001")):
        write(tmp_path / f"data/{name}.parquet", {"text": [f"toy {n}"], "image": [embedded(n)]}, {"image": HF})
    records = read_tasks(tmp_path)
    assert [record.id for record in records] == ["train-00000-of-00002/0", "train-00001-of-00002/0"]
    assert [record.prompt for record in records] == ["toy 1", "toy 0"]
    for path in (tmp_path / "data").glob("train*"):
        path.rename(path.with_name(path.name.replace("train", "validation")))
    with pytest.raises(UserError, match="splits test, validation, and none is called train"):
        read_tasks(tmp_path)


def test_a_broken_shard_hides_no_other(tmp_path: Path) -> None:
    many(tmp_path / "a.parquet", 2)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 cut short")
    many(tmp_path / "c.parquet", 2)
    rows = scan(tmp_path)
    assert [row.id for row in rows] == ["a/0", "a/1", "b.parquet", "c/0", "c/1"]
    for content in (b"", b"PAR1 cut short"):
        (tmp_path / "b.parquet").write_bytes(content)
        with pytest.raises(UserError, match="b.parquet: can't be read"):
            read_tasks(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    "member", ["9/image", "0/other", "0", "x/image", "-1/image", "0/image/1", "0/text", "0/image/middle"]
)
def test_members_that_are_not_there(tmp_path: Path, member: str) -> None:
    path = Path(f"{many(tmp_path / 'x.parquet', 2)}!/{member}")
    if member != "0/text":  # a column of text is one of paths
        assert not is_file(path)
    with pytest.raises(UserError, match="no such picture"):
        read_bytes(path)


def test_a_file_without_pictures_or_rows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column of pictures among prompt, sound"):
        read_tasks(write(tmp_path / "x.parquet", {"prompt": ["a"], "sound": ["b"]}, {}))
    with pytest.raises(UserError, match="holds no rows"):
        read_tasks(write(tmp_path / "y.parquet", {"prompt": [], "image": []}, {"image": HF}))


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = many(tmp_path / "x.parquet", 1)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="pip install pyarrow") as caught:
        read_tasks(file)
    assert "\n" not in str(caught.value)


def test_rows_that_need_one_picture_may_each_have_it(tmp_path: Path) -> None:
    """Parquet has no other way; the check tells that from a task that is there twice and a target that is a copy."""
    data = {
        "prompt": ["a toy in snow", "a toy at sea", "a toy in snow", "a toy at home"],
        "reference": [embedded(0)] * 4,
        "target": [None, None, None, embedded(0)],
    }
    file = write(tmp_path / "x.parquet", data, {"reference": HF, "target": HF})
    for quick in (False, True):
        problems = check_manifest(file, quick=quick).problems
        assert [(problem.id, problem.kind) for problem in problems] == [("2", "duplicate"), ("3", "duplicate")]
        assert "same prompt and pictures as 0" in problems[0].message and "own reference" in problems[1].message
