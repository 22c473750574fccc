"""Every layout is recognised, and what is wrong with a row is said with its number and field."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cgrpo.data import ManifestSource, check_manifest, read_tasks
from cgrpo.data.archives import is_file, read_bytes, within
from cgrpo.data.readers import scan
from cgrpo.data.tasks import PICTURES, VALUES, Fault
from cgrpo.errors import UserError
from cgrpo.types import Task

MINI = Path(__file__).parent / "syncd_mini"


def write(path: Path, rows: object) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


ROW = {"id": 7, "prompt": "a toy", "references": ["a.png", "b.png"], "target": "t.png", "subject": "toy"}


def test_the_three_plain_forms_are_one(tmp_path: Path) -> None:
    forms = [
        write(tmp_path / "list.json", [ROW]),
        write(tmp_path / "dict.json", {"records": [ROW], "made": "by hand"}),
        write_lines(tmp_path / "lines.jsonl", json.dumps(ROW), ""),
    ]
    expected = Task("7", "a toy", (tmp_path / "a.png", tmp_path / "b.png"), "toy", tmp_path / "t.png")
    assert [read_tasks(path) for path in forms] == [[expected]] * 3


def test_unos_form_and_masks(tmp_path: Path) -> None:
    rows = [
        {"prompt": "x", "image_paths": ["r.png"], "image_tgt_path": "t.png"},
        {"prompt": "y", "image_paths": ["r.png", "s.png"], "masks": [None, "m.png"], "mask_threshold": 8},
    ]
    one, two = read_tasks(write(tmp_path / "uno.json", rows))
    assert (one.id, one.target, one.masks, one.mask_threshold) == ("0", tmp_path / "t.png", (), 127)
    assert (two.id, two.target, two.masks, two.mask_threshold) == ("1", None, (None, tmp_path / "m.png"), 8)


def test_a_single_reference(tmp_path: Path) -> None:
    (record,) = read_tasks(write(tmp_path / "m.json", [{"prompt": "x", "reference": "r.png"}]))
    assert record.references == (tmp_path / "r.png",)


def test_root_by_argument_and_by_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "m.json", {"root": "../pictures", "records": [ROW]})
    assert read_tasks(path)[0].references[0] == tmp_path / "../pictures/a.png"
    assert read_tasks(path, tmp_path / "else")[0].references[0] == tmp_path / "else/a.png"


def test_a_line_separator_within_a_prompt_ends_no_line(tmp_path: Path) -> None:
    line = json.dumps(ROW | {"prompt": "a\u2028b"}, ensure_ascii=False)
    assert read_tasks(write_lines(tmp_path / "m.jsonl", line))[0].prompt == "a\u2028b"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompt": " "}, "row 1: prompt"),
        ({"references": "a.png"}, "row 1: references"),
        ({"references": [3]}, "row 1: references"),
        ({"target": 3}, "row 1: target"),
        ({"masks": ["m.png"]}, "row 1: masks"),
        ({"masks": [1, 2]}, "row 1: masks"),
        ({"mask_threshold": 255}, "row 1: mask_threshold"),
        ({"meta": []}, None),
        ({"meta": [1]}, "row 1: meta"),
    ],
)
def test_faults_name_row_and_field(tmp_path: Path, change: dict, says: str | None) -> None:
    path = write(tmp_path / "m.json", [ROW, ROW | change, ROW])
    if says is None:
        assert len(read_tasks(path)) == 3
        return
    with pytest.raises(UserError, match=says) as error:
        read_tasks(path)
    assert "\n" not in str(error.value)
    assert [isinstance(row, Fault) for row in scan(path)] == [False, True, False]


def test_broken_lines_are_faults_of_their_own(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "m.jsonl", json.dumps(ROW), "", "{", "[]")
    rows = scan(path)
    assert isinstance(rows[0], Task)
    messages = [row.message for row in rows if isinstance(row, Fault)]
    assert [message.partition(": ")[0].rpartition(", ")[2] for message in messages] == ["line 3", "row 2"]


@pytest.mark.parametrize(("text", "says"), [("{", "JSON"), ("[]", "no records"), ("{}", "no records"), ("3", "no rec")])
def test_files_that_are_no_manifest(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_tasks(write_lines(tmp_path / "m.json", text))


def test_imagefolder(tmp_path: Path) -> None:
    lines = ['{"file_name": "a.png", "text": "one"}', '{"file_names": ["a.png", "b.png"], "caption": "two"}']
    write_lines(tmp_path / "metadata.jsonl", *lines)
    one, two = read_tasks(tmp_path)
    assert (one.prompt, one.references) == ("one", (tmp_path / "a.png",))
    assert (two.prompt, two.references) == ("two", (tmp_path / "a.png", tmp_path / "b.png"))


def test_imagefolder_as_csv_with_several_pictures(tmp_path: Path) -> None:
    """Quoted commas and line ends, empty cells, Windows' line ends and byte order mark."""
    lines = ["file_name,reference_file_name,mask_file_name,caption,mask_threshold"]
    lines += ['t.png,r.png,m.png,"a toy, ""red""\nin snow",8', "t.png,,,alone,", "t.png,r.png,,x,y,z"]
    (tmp_path / "metadata.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    both, lone, long = scan(tmp_path)
    assert isinstance(both, Task) and isinstance(lone, Task) and isinstance(long, Fault)
    assert (both.prompt, both.mask_threshold) == ('a toy, "red"\nin snow', 8)
    assert (both.references, both.target) == ((tmp_path / "r.png",), tmp_path / "t.png")
    assert both.masks == (tmp_path / "m.png",)
    assert (lone.references, lone.target) == ((tmp_path / "t.png",), None)
    assert "row 2: has more cells than the header" in long.message


def test_file_names_in_several_columns(tmp_path: Path) -> None:
    rows = [
        {"references_file_names": ["a.png", "b.png"], "target_file_name": "t.png", "text": "one"},
        {"image_file_name": "a.png", "text": "two"},
        {"reference": "a.png", "image": "t.png", "text": "three"},
        {"images": ["a.png", "b.png"], "target_image": "t.png", "text": "four", "item": "toy"},
    ]
    one, two, three, four = read_tasks(write(tmp_path / "m.json", rows))
    a, b, t = (tmp_path / f"{name}.png" for name in "abt")
    assert (one.references, one.target) == ((a, b), t)
    assert (two.references, two.target) == ((a,), None)
    assert (three.references, three.target) == ((a,), t)
    assert (four.references, four.target, four.subject) == ((a, b), t, "toy")


def test_splits_of_an_imagefolder(tmp_path: Path) -> None:
    """train/ is what one trains on; without one, the user has to say which."""
    for split in ("test", "train"):
        (tmp_path / split).mkdir()
        write_lines(tmp_path / split / "metadata.jsonl", json.dumps({"file_name": "a.png", "text": split}))
    (record,) = read_tasks(tmp_path)
    assert (record.prompt, record.references) == ("train", (tmp_path / "train/a.png",))
    (tmp_path / "train").rename(tmp_path / "validation")
    with pytest.raises(UserError, match="the splits test, validation, and none is called train"):
        read_tasks(tmp_path)
    assert read_tasks(tmp_path / "test")[0].prompt == "test"


def test_limit(tmp_path: Path) -> None:
    """Faults behind it are nobody's concern."""
    path = write(tmp_path / "m.json", [ROW, ROW | {"id": 8}, {}])
    assert [record.id for record in read_tasks(path, limit=2)] == ["7", "8"]
    assert ManifestSource(path, limit=1).size == 1
    with pytest.raises(UserError, match="row 2"):
        read_tasks(path, limit=3)


def test_pictures_with_texts(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name, text in {"b": "two", "deep/a": " one\n", "c": ""}.items():
        Image.new("RGB", (2, 2)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(text)
    rows = scan(tmp_path)
    assert [(row.id, getattr(row, "prompt", None)) for row in rows] == [("b", "two"), ("c", None), ("deep/a", "one")]
    with pytest.raises(UserError, match="c.png: has no prompt"):
        read_tasks(tmp_path)


def test_a_folder_of_nothing_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data set that is known"):
        read_tasks(tmp_path)


def test_webdataset(tmp_path: Path) -> None:
    picture = BytesIO()
    Image.new("RGB", (3, 3), "red").save(picture, "PNG")
    files = {
        "x/0.ref0.png": picture.getvalue(),
        "x/0.ref1.png": picture.getvalue(),
        "x/0.mask1.png": picture.getvalue(),
        "x/0.target.png": picture.getvalue(),
        "x/0.json": b'{"prompt": "two toys", "subject": "toy"}',
        "x/1.png": picture.getvalue(),
        "x/1.txt": b"a toy\n",
        "x/2.png": picture.getvalue(),
    }
    tar = pack_tar(tmp_path / "0.tar", files)
    both, lone, bad = scan(tmp_path)
    assert isinstance(both, Task) and isinstance(lone, Task) and isinstance(bad, Fault)
    assert (both.id, both.prompt, both.subject) == ("x/0", "two toys", "toy")
    assert both.references == (within(tar, "x/0.ref0.png"), within(tar, "x/0.ref1.png"))
    assert both.masks == (None, within(tar, "x/0.mask1.png")) and both.target == within(tar, "x/0.target.png")
    assert lone.references == (within(tar, "x/1.png"),) and read_bytes(lone.references[0]) == picture.getvalue()
    assert "sample x/2: prompt" in bad.message


def pack_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            item = tarfile.TarInfo(name)
            item.size = len(content)
            tar.addfile(item, BytesIO(content))
    return path


def test_odd_samples_of_a_webdataset(tmp_path: Path) -> None:
    """Hidden files, names of files from before they were packed, and what is no text or no object."""
    files = {
        ".DS_Store": b"?", "._0.png": b"?", "0.png": b"p",
        "0.json": b'{"prompt": "x", "image": "/old/0.png", "target": "/old/1.png", "id": null}',
        "1.json": b"[1]", "1.png": b"p", "2.json": b"null", "2.png": b"p", "3.json": b"[" * 100_000, "3.png": b"p",
        "4.txt": b"\xff\xfe", "4.png": b"p", "5.txt": b"\xef\xbb\xbfa toy\r\n", "5.PNG": b"p",
    }  # fmt: skip
    tar = pack_tar(tmp_path / "x.tar", files)
    rows = scan(tar)
    assert [isinstance(row, Fault) for row in rows] == [False, True, True, True, True, False]
    first, last = rows[0], rows[-1]
    assert isinstance(first, Task) and isinstance(last, Task)
    assert (first.references, first.target) == ((within(tar, "0.png"),), None)
    assert last.prompt == "a toy"


def test_a_broken_tar_hides_no_other(tmp_path: Path) -> None:
    pack_tar(tmp_path / "a.tar", {"0.png": b"p", "0.txt": b"a toy"})
    (tmp_path / "b.tar").write_bytes(b"")
    assert [row.id for row in scan(tmp_path)] == ["0", "b.tar"]
    with pytest.raises(UserError, match="b.tar: can't be opened as an archive"):
        read_tasks(tmp_path / "b.tar")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "\ud800"},
        {"references": ["\ud800.png"]},
        {"references": ["a\0b.png"]},
        {"references": [{"bytes": "x"}]},
        {"target": ["t.png"]},
        {"subject": ["a", "b"]},
        {"prompt": float("nan")},
    ],
)
def test_odd_rows_are_faults(tmp_path: Path, row: dict) -> None:
    path = write(tmp_path / "m.json", [ROW | row | {"id": "\ud800"}])
    assert [type(found) for found in scan(path)] == [Fault]
    (problem,) = check_manifest(path).problems
    assert problem.kind == "row" and (problem.id + problem.message).isprintable()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.json", "", "JSON"),
        ("m.jsonl", "", "no records"),
        ("m.csv", "", "no records"),
        ("m.csv", "file_name,text\n", "no records"),
        ("m.csv", 'file_name,text\na.png,"x', "CSV"),
        ("m.csv", "file_name,text\na.png," + "x" * 200_000, "CSV"),
        ("m.json", "[" * 100_000, "JSON"),
        ("m.json", "[" + "9" * 5000 + "]", "JSON"),
        ("m.json", json.dumps([ROW]).encode("utf-16-le").decode("latin-1"), "JSON"),  # without its mark
        ("m.json", json.dumps({"records": [ROW], "root": {"a": 1}}), "root"),
        ("m.json", json.dumps({"records": [ROW], "root": "a\0b"}), "root"),
    ],
)
def test_files_that_can_not_be_read_are_a_line(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=says) as caught:
        read_tasks(tmp_path / name)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_names_as_people_have_them(tmp_path: Path) -> None:
    """Windows' separators and line ends, a byte order mark, symbolic links, an exclamation mark."""
    folder = tmp_path / "größer 日本!" / "zip!"
    (folder / "pictures").mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(folder / "pictures/ä 猫.png")
    (folder / "link.png").symlink_to("pictures/ä 猫.png")
    (folder / "loop.png").symlink_to("loop.png")
    names = ["pictures\\ä 猫.png", ".\\link.png", "loop.png", "x" * 5000 + ".png"]
    lines = [json.dumps({"prompt": "a cat " * 20_000, "references": [name]}) for name in names]
    (folder / "m.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    found = [(problem.id, problem.kind) for problem in check_manifest(folder / "m.jsonl").problems]
    assert found == [("1", "duplicate"), ("2", "missing"), ("3", "row")]


def test_syncd_release_and_generator_layout() -> None:
    records = read_tasks(MINI / "release")
    assert [record.id for record in records] == ["0", "1", "2", "50145"]
    fox = records[3]
    assert (fox.references, fox.target) == ((MINI / "release/50145/0.png",), MINI / "release/50145/2.png")
    assert (fox.prompt, fox.subject, fox.mask_threshold) == ("A fox on a beach with a blue sky.", "fox", 8)
    assert fox.masks == (MINI / "release/50145/masks/0.jpg",)
    assert records[0].subject == "red mug with a yellow stripe"
    (parrot,) = read_tasks(MINI / "generator_output")
    assert parrot.id == "Parrot_0_0_0" and parrot.masks[0] and is_file(parrot.masks[0])


def pack(release: Path, folder: Path) -> Path:
    """SynCD as it is downloaded: metadata, and the pictures in two zips."""
    for name, objects in {"archive_1.zip": ("0", "1", "2"), "archive_2.zip": ("50145",)}.items():
        with zipfile.ZipFile(folder / name, "w") as archive:
            for path in sorted(path for item in objects for path in (release / item).rglob("*") if path.is_file()):
                archive.write(path, path.relative_to(release).as_posix())
    shutil.copy(release / "metadata.json", folder)
    return folder


def test_syncd_in_zips_without_scores_or_unpacking(tmp_path: Path) -> None:
    root = pack(MINI / "release", tmp_path)
    packed, plain = ManifestSource(root), ManifestSource(MINI / "release")
    assert packed.tasks[3].references == (within(root / "archive_2.zip", "50145/0.png"),)
    (ours, our_targets), (theirs, their_targets) = packed.pairs(range(4)), plain.pairs(range(4))
    assert ours == theirs and our_targets == their_targets
    assert sorted(path.name for path in root.iterdir()) == ["archive_1.zip", "archive_2.zip", "metadata.json"]


def test_errors_inside_archives_name_the_member(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("bad.png", b"no picture")
    rows = [{"prompt": "x", "references": [f"a.zip!/{name}"]} for name in ("bad.png", "absent.png")]
    source = ManifestSource(write(tmp_path / "m.json", rows))
    for index, says in enumerate(("a.zip!/bad.png: can't be read as a picture", "a.zip!/absent.png: no such")):
        with pytest.raises(UserError, match=says):
            source.batch([index])


def test_the_releases_subset(tmp_path: Path) -> None:
    """Its pictures lie in SynCD's folder; the embeddings that it names aren't looked for."""
    path = MINI / "subset/train_mini_syncd_embedding.json"
    records = read_tasks(path, MINI / "release")
    assert [record.id for record in records] == ["3040", "3041", "3042"]
    assert records[2].references == (MINI / "release/50145/1.png",)
    assert records[2].target == MINI / "release/50145/2.png" and records[2].prompt.startswith("A fox on a beach")
    assert records[2].masks == (MINI / "release/50145/masks/1.jpg",) and records[2].meta["category"] == "deformable"
    row = json.loads(path.read_text())[0] | {"text": ""}
    with pytest.raises(UserError, match="row 0: text"):
        read_tasks(write(tmp_path / "m.json", [row]))


def test_masks_are_black_and_white_and_as_large_as_their_pictures(tmp_path: Path) -> None:
    levels = np.zeros((32, 32), np.uint8)
    levels[:, 8:16], levels[:, 16:] = 8, 9
    Image.fromarray(levels).save(tmp_path / "m.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "r.png")
    Image.new("RGB", (64, 48)).save(tmp_path / "wide.png")
    rows = [{"prompt": "x", "references": ["r.png", "wide.png"], "masks": ["m.png"] * 2, "mask_threshold": 8}]
    batch = ManifestSource(write(tmp_path / "m.json", rows)).batch([0])
    assert batch.reference_masks is not None
    fitted, other = batch.reference_masks[0]
    assert fitted is not None and other is not None
    assert (fitted.size, fitted.mode, other.size) == ((64, 64), "L", (32, 32))
    assert np.unique(np.asarray(fitted)).tolist() == [0, 255]
    assert (np.asarray(fitted)[:, :31] == 0).all() and (np.asarray(fitted)[:, 33:] == 255).all()


def test_the_guide_names_every_field() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert not [key for key in (*PICTURES, *VALUES) if f"`{key}`" not in guide]
