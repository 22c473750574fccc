"""Pictures in zips and tars, by whatever name; WebDataset's shards."""

import json
import subprocess
import tarfile
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support.datasets import pack, png, put, write_rows

from cgrpo.data import ManifestSource, check_manifest, read_tasks
from cgrpo.data.archives import open_picture, read_bytes, within
from cgrpo.data.readers import scan
from cgrpo.data.tasks import Fault
from cgrpo.errors import UserError
from cgrpo.types import Task

RED, GREEN, BLUE = (255, 0, 0), (0, 128, 0), (0, 0, 255)
LINK, SYMLINK = tarfile.LNKTYPE, tarfile.SYMTYPE
MEMBERS = {
    "a.tar": {
        "0.png": png("red"),
        "hard.png": (LINK, "0.png"),
        "a/soft.png": (SYMLINK, "../hard.png"),
        "x.png": (SYMLINK, "y.png"),
        "y.png": (SYMLINK, "x.png"),
        "/abs/1.png": png("green"),
        unicodedata.normalize("NFD", "é.png"): png("blue"),
    },
    "b.zip": {"sub\\2.png": png("blue"), "./x//0.png": png("red")},
}
NAMES = {
    "a.tar!/hard.png": RED, "a.tar!/a/soft.png": RED, "a.tar!/abs/1.png": GREEN, "a.tar!/é.png": BLUE,
    "b.zip!/sub/2.png": BLUE, "b.zip!\\sub\\2.png": BLUE, "b.zip!/x/0.png": RED, "b.zip!/./x/0.png": RED,
    "b.zip!/x/./0.png": RED,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_member_by_any_spelling(tmp_path: Path, name: str) -> None:
    """Absolute, with backslashes, accents as characters of their own, and links: each is the picture that was meant."""
    for archive, members in MEMBERS.items():
        pack(tmp_path / archive, members)
    (task,) = read_tasks(write_rows(tmp_path / "m.json", {"prompt": "a", "image": name}))
    assert open_picture(task.references[0]).getpixel((0, 0)) == NAMES[name]


def test_names_in_a_zip_from_a_mac(tmp_path: Path) -> None:
    """UTF-8 without the flag that says so; and one with a password."""
    content = pack(tmp_path / "p.zip", {"cafXY.png": png()}).read_bytes().replace(b"cafXY", "café".encode())
    (tmp_path / "p.zip").write_bytes(content)
    assert open_picture(tmp_path / "p.zip!" / "café.png").getpixel((0, 0)) == RED
    locked = bytearray(content)
    locked[6] |= 1
    locked[content.rfind(b"PK\1\2") + 8] |= 1
    (tmp_path / "q.zip").write_bytes(bytes(locked))
    with pytest.raises(UserError, match="q.zip!/café.png: .*encrypted"):
        open_picture(tmp_path / "q.zip!" / "café.png")


@pytest.mark.parametrize(
    ("name", "says"),
    [("bad.png", "can't be read as a picture"), ("absent.png", "no such picture"), ("torn.png", "can't be read")],
)
def test_errors_inside_archives_name_the_member(tmp_path: Path, name: str, says: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bad.png", b"no picture")
        archive.writestr("torn.png", bytes(range(256)) * 9)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[content.find(b"torn.png") + 60] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(bytes(content))
    path = write_rows(tmp_path / "m.json", {"prompt": "x", "references": [f"a.zip!/{name}"]})
    with pytest.raises(UserError, match=f"a.zip!/{name}: {says}"):
        ManifestSource(path).batch([0])


def test_tars_strung_together_and_torn(tmp_path: Path) -> None:
    """Readers stop at the first end: the rest was missing without a word."""
    one = pack(tmp_path / "a.tar", {"a.png": png(), "a.txt": b"a"}).read_bytes()
    for name, content, says in (("b", one + one, "several tars"), ("c", one + bytes(1 << 20), "a megabyte of zeros")):
        (tmp_path / f"{name}.tar").write_bytes(content)
        with pytest.raises(UserError, match=f"{name}.tar: .*{says}"):
            read_tasks(tmp_path / f"{name}.tar")


def test_a_broken_tar_hides_no_other(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", {"0.png": b"p", "0.txt": b"a toy"})
    (tmp_path / "b.tar").write_bytes(b"")
    assert [row.id for row in scan(tmp_path)] == ["0", "b.tar"]
    with pytest.raises(UserError, match="b.tar: can't be read"):
        read_tasks(tmp_path / "b.tar")


def test_webdataset(tmp_path: Path) -> None:
    names = ("x/0.ref0.png", "x/0.ref1.png", "x/0.mask1.png", "x/0.target.png", "x/1.png", "x/2.png")
    texts = {"x/0.json": b'{"prompt": "two toys", "subject": "toy"}', "x/1.txt": b"a toy\n"}
    tar = pack(tmp_path / "0.tar", dict.fromkeys(names, png()) | texts)
    both, lone, bad = scan(tmp_path)
    assert isinstance(both, Task) and isinstance(lone, Task) and isinstance(bad, Fault)
    assert (both.id, both.prompt, both.subject) == ("x/0", "two toys", "toy")
    assert both.references == (within(tar, "x/0.ref0.png"), within(tar, "x/0.ref1.png"))
    assert both.masks == (None, within(tar, "x/0.mask1.png")) and both.target == within(tar, "x/0.target.png")
    assert lone.references == (within(tar, "x/1.png"),) and read_bytes(lone.references[0]) == png()
    assert "sample x/2: prompt" in bad.message


@pytest.mark.parametrize("words", [["."], ["./a", "./b"], ["a", "b"]])
def test_a_tar_of_a_folder_whatever_its_names_begin_with(tmp_path: Path, words: list[str]) -> None:
    put(tmp_path / "in", {"a/0.png": png(), "a/0.txt": "a toy", "b/1.png": png(), "b/1.txt": "a toy"})
    subprocess.run(["tar", "cf", str(tmp_path / "x.tar"), "-C", str(tmp_path / "in"), *words], check=True)
    tasks = read_tasks(tmp_path / "x.tar")
    assert sorted(task.id for task in tasks) == ["a/0", "b/1"]
    assert all(open_picture(task.references[0]).size == (8, 8) for task in tasks)


SAMPLES: dict[str, tuple[dict[str, bytes], dict[str, Any]]] = {
    "img2dataset's, the prompt beside the facts": (
        {"a.jpg": png(), "a.txt": b"a toy\n", "a.json": b'{"url": "https://x", "width": 256}'}, {"prompt": "a toy"}),
    "a null caption": ({"a.png": b"", "a.txt": b"a toy", "a.json": b'{"caption": null}'}, {"prompt": "a toy"}),
    "an empty caption": ({"a.png": b"", "a.txt": b"a toy", "a.json": b'{"caption": ""}'}, {"prompt": "a toy"}),
    "the json counts first": ({"a.png": b"", "a.txt": b"another", "a.json": b'{"caption": "a"}'}, {"prompt": "a"}),
    "kohya's caption": ({"a.png": b"", "a.caption": b"y"}, {"prompt": "y"}),
    "Windows' text": ({"a.PNG": b"", "a.txt": b"\xef\xbb\xbfa toy\r\n"}, {"prompt": "a toy"}),
    "names from before it was packed": (
        {"a.png": b"", "a.json": b'{"prompt": "x", "image": "/old/0.png", "target": "/old/1.png", "id": null}'},
        {"id": "a", "references": ["a.png"], "target": None}),
    "hidden files": ({".DS_Store": b"?", "._a.png": b"?", "a.png": b"", "a.txt": b"x"}, {"references": ["a.png"]}),
    "a reference and a picture": ({"a.ref0.png": b"", "a.png": b"", "a.txt": b"x"},
                                  {"references": ["a.ref0.png"], "masks": [], "target": "a.png"}),
    "a mask": ({"a.png": b"", "a.mask.png": b"", "a.txt": b"x"}, {"references": ["a.png"], "masks": ["a.mask.png"]}),
    "numbers from 1": ({"a.ref1.png": b"", "a.mask2.png": b"", "a.ref2.png": b"", "a.txt": b"x"},
                       {"references": ["a.ref1.png", "a.ref2.png"], "masks": [None, "a.mask2.png"]}),
    "a reference without number": ({"a.ref.png": b"", "a.mask0.png": b"", "a.target.png": b"", "a.txt": b"x"},
                                   {"references": ["a.ref.png"], "masks": ["a.mask0.png"], "target": "a.target.png"}),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_read(tmp_path: Path, name: str) -> None:
    files, expected = SAMPLES[name]
    (task,) = read_tasks(pack(tmp_path / "x.tar", files))
    files_of = {
        "references": [path.name for path in task.references],
        "masks": [path and path.name for path in task.masks],
        "target": task.target and task.target.name,
    }
    assert {key: files_of.get(key, getattr(task, key)) for key in expected} == expected


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a.png", "a.PNG"], "differ in their case alone"),
        (["a.png", "a.png"], "a.png is in it twice"),
        (["a.ref0.png", "a.ref2.png"], "references are not numbered 0, 1, 2"),
        (["a.ref0.png", "a.ref0.jpg"], "one picture of each kind"),
        (["a.ref0.png", "a.ref1.png", "a.mask2.png"], "a mask is of no reference"),
        (["a.png", "a.edited.png"], "needs one picture, a.jpg, or a.ref0.jpg, ...; it has .png, .edited.png"),
        (["a.ref0.png", "a.png", "a.target.png"], "both its target"),
        (["a.heic"], "it has .heic, .txt"),
    ],
)
def test_a_sample_that_says_too_much_or_too_little(tmp_path: Path, names: list[str], says: str) -> None:
    shard = pack(tmp_path / "x.tar", [*((name, png()) for name in names), ("a.txt", b"a")])
    (problem,) = check_manifest(shard).problems
    assert f"{shard}, sample a: " in problem.message and says in problem.message


@pytest.mark.parametrize(
    "files",
    [{"a.json": b"[1]"}, {"a.json": b"null"}, {"a.json": b"[" * 100_000}, {"a.txt": b"\xff\xfe"}, {"a.json": b"{"}],
    ids=["a list", "null", "too deep", "half of UTF-16", "torn"],
)
def test_a_samples_text_that_can_not_be_read(tmp_path: Path, files: dict[str, bytes]) -> None:
    good = {"b.png": png(), "b.json": json.dumps({"prompt": "x"}).encode()}
    bad, fine = scan(pack(tmp_path / "x.tar", {"a.png": png()} | files | good))
    assert isinstance(bad, Fault) and isinstance(fine, Task) and "sample a" in bad.message
