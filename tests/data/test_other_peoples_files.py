"""Siblings of the files of test_peoples_files.py: the same kinds, other examples."""

from __future__ import annotations

import io
import json
import os
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cgrpo.data import check_manifest, read_tasks
from cgrpo.data.archives import open_picture
from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.candidates import find_picture

COLOURS = ("red", "green", "blue")
ROW = {"prompt": "a café", "image": "0.png"}


def png(colour: str) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(held, "PNG")
    return held.getvalue()


def folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def tar(path: Path, files: dict[str, bytes | tuple[bytes, str]]) -> Path:
    """Of members by name: contents, or (type, target) of links."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            item = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                item.type, item.linkname = content
                archive.addfile(item)
            else:
                item.size = len(content)
                archive.addfile(item, io.BytesIO(content))
    return path


def colour_of(path: Path) -> tuple[int, ...]:
    pixel = open_picture(path).getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel


def fault(path: Path) -> str:
    (problem,) = check_manifest(path).problems
    return problem.message


LINES = "\n".join(json.dumps(ROW | {"id": n}, ensure_ascii=False) for n in range(2))
TABLE = "prompt, image\na café, 0.png\na café, 0.png\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.jsonl", LINES.encode("utf-16")),  # PowerShell's
        ("m.csv", TABLE.encode("utf-16")),  # Excel's "Unicode text"
        ("m.tsv", TABLE.replace(", ", "\t").encode("utf-32")),
        ("m.csv", TABLE.replace("\n", "\r\n").encode("utf-8-sig")),
        ("m.jsonl", LINES.replace("\n", "\r\n").encode("utf-8-sig")),
        ("m.json", LINES.encode()),  # lines under a list's name
        ("m.jsonl", json.dumps([ROW, ROW], indent=1).encode()),  # and a list under lines'
        ("m.json", json.dumps([{"prompt": " ", "caption": ROW["prompt"], "image": "0.png"}] * 2).encode()),
    ],
)
def test_a_manifest_is_read(tmp_path: Path, name: str, content: bytes) -> None:
    records = read_tasks(folder(tmp_path, {"0.png": png("red"), name: content}) / name)
    assert [(record.prompt, record.references) for record in records] == [("a café", (tmp_path / "0.png",))] * 2


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"prompt": "a", "prompt": "b", "image": "0.png"}', "'prompt' stands there twice"),
        ('{"prompt": "\\u200b\\u0007 ", "image": "0.png"}', "prompt is missing, empty"),
        ('{"prompt": "a", "image": "https://a.b/0.png"}', "https://a.b/0.png is an address"),
        ('{"prompt": "a", "image": "data:image/png;base64,AAAA"}', "is an address"),
        ('{"prompt": "a", "image": "0.png", "target": "s3://a/0.png"}', "s3://a/0.png is an address"),
        (json.dumps({"prompt": "a", "image": "A" * 9000}), "AAA... (9000 characters) is no file's name"),
    ],
)
def test_a_row_is_refused(tmp_path: Path, row: str, says: str) -> None:
    told = fault(folder(tmp_path, {"0.png": png("red"), "m.jsonl": row.encode()}) / "m.jsonl")
    assert says in told and len(told) < 300


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.csv", "prompt,image\ncafé,0.png\n".encode("latin-1"), "byte 0xe9 at 16 is no UTF-8; save it as UTF-8"),
        ("m.csv", b"prompt,image,prompt\na,0.png,b\n", "has two columns prompt"),
        ("m.json", b"<!DOCTYPE html><html>404</html>", "it is a web page"),
        ("m.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        ("m.tar", b"\x1f\x8b\x08" + bytes(600), "it is gzipped"),
    ],
)
def test_a_file_is_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    with pytest.raises(UserError) as caught:
        read_tasks(folder(tmp_path, {name: content}) / name)
    assert says in str(caught.value)


def test_names_in_archives(tmp_path: Path) -> None:
    """Absolute, with backslashes, accents as letters of their own, and links: each is the picture that was meant."""
    accents = unicodedata.normalize("NFD", "é.png")
    links = {
        "0.png": png("red"),
        "hard.png": (tarfile.LNKTYPE, "0.png"),
        "a/soft.png": (tarfile.SYMTYPE, "../hard.png"),
    }
    loop = {"x.png": (tarfile.SYMTYPE, "y.png"), "y.png": (tarfile.SYMTYPE, "x.png")}
    tar(tmp_path / "a.tar", {**links, **loop, "/abs/1.png": png("green"), accents: png("blue")})
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("sub\\2.png", png("blue"))
    names = [
        "a.tar!/hard.png",
        "a.tar!/a/soft.png",
        "a.tar!/abs/1.png",
        "a.tar!/é.png",
        "b.zip!/sub/2.png",
        "b.zip!\\sub\\2.png",
    ]
    (tmp_path / "m.json").write_text(json.dumps([{"prompt": "a", "image": name} for name in [*names, "a.tar!/x.png"]]))
    *records, circle = read_tasks(tmp_path / "m.json")
    found = [colour_of(record.references[0]) for record in records]
    assert found == [(255, 0, 0), (255, 0, 0), (0, 128, 0), (0, 0, 255), (0, 0, 255), (0, 0, 255)]
    with pytest.raises(UserError, match="no such picture"):
        colour_of(circle.references[0])


def test_accents_in_names_of_files(tmp_path: Path) -> None:
    for one, other in (("NFC", "NFD"), ("NFD", "NFC")):
        on_disk, told = (unicodedata.normalize(form, f"é{one}.png") for form in (one, other))
        folder(tmp_path, {on_disk: png("red"), "m.json": json.dumps([{"prompt": "a", "image": told}]).encode()})
        assert read_tasks(tmp_path / "m.json")[0].references == (tmp_path / on_disk,)


def test_captions_as_they_lie_about(tmp_path: Path) -> None:
    """Endings in capitals, kohya's, UTF-16, folders that are links and lead in circles; what is neither is counted."""
    texts = {"a.TXT": "a".encode("utf-16"), "b.caption": b"b", "c.txt": b"c", "c.caption": b"not c"}
    others = {"d.mp4": b"", "e.txt": b"an orphan", "f.heic": b"", ".hidden.mp4": b""}
    folder(tmp_path / "set", {**{f"{n}.PNG": png(c) for n, c in zip("abc", COLOURS, strict=True)}, **texts, **others})
    folder(tmp_path / "far", {"z.png": png("white"), "z.txt": b"z"})
    os.symlink(tmp_path / "far", tmp_path / "set" / "far")
    os.symlink(tmp_path / "set", tmp_path / "set" / "again")
    assert [(record.id, record.prompt) for record in read_tasks(tmp_path / "set")] == [
        ("a", "a"), ("b", "b"), ("c", "c"), ("far/z", "z")
    ]  # fmt: skip
    (note,) = [note for note in check_manifest(tmp_path / "set").notes if "left out" in note]
    assert note == "3 files are left out, no picture with its prompt: .mp4 (1), .txt (1), .heic (1)"


def test_a_sample_without_a_picture_says_what_it_has(tmp_path: Path) -> None:
    shard = tar(
        tmp_path / "s.tar",
        {"a.heic": b"", "a.txt": b"x", "b.png": png("red"), "b.caption": b"y", "b.json": b'{"caption": " "}'},
    )
    (problem,) = check_manifest(shard).problems
    assert "it has .heic, .txt" in problem.message
    (record,) = [row for row in [read_tasks(tar(tmp_path / "t.tar", {"b.png": png("red"), "b.caption": b"y"}))[0]]]
    assert record.prompt == "y"


def test_sixteen_bits_of_pgm(tmp_path: Path) -> None:
    """Pillow has them as 32; 1023 is white where the file says that it is."""
    levels = np.array([[0, 512], [768, 1023]], ">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 2 2 1023\n" + levels.tobytes())
    assert np.asarray(open_picture(tmp_path / "a.pgm"))[..., 0].tolist() == [[0, 127], [191, 255]]


def test_columns_of_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"prompt": ["a"], "image": [png("red")], "subject": pa.array([1], pa.timestamp("ns"))}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert read_tasks(tmp_path / "a.parquet")[0].prompt == "a"  # Python has no such date: no subject
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array([b""])], ["prompt", "prompt", "image"])
    pq.write_table(twice, tmp_path / "b.parquet")
    with pytest.raises(UserError, match="two columns prompt"):
        read_tasks(tmp_path / "b.parquet")
    pq.write_table(pa.table({"prompt": ["a"], "image": ["https://a.b/0.png"]}), tmp_path / "c.parquet")
    assert "https://a.b/0.png is an address" in fault(tmp_path / "c.parquet")


def test_pictures_of_a_method_as_they_are_called(tmp_path: Path) -> None:
    nfd = unicodedata.normalize("NFD", "é_0")
    folder(tmp_path, {"0_0.WebP": b"", f"{nfd}.jpg": b"", "1_0.png": b"", "1_0.jpg": b""})
    assert [find_picture(tmp_path, name) for name in ("0_0", "é_0", "2_0")] == ["0_0.WebP", f"{nfd}.jpg", "2_0.png"]
    with pytest.raises(UserError, match=r"1_0.png and 1_0.jpg are both there"):
        find_picture(tmp_path, "1_0")
