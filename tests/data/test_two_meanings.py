"""Files that can be read in two ways: as what was meant where only one thing can be, else refused by what is unsaid."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from cgrpo.data import PairSource, read_tasks
from cgrpo.data.archives import open_picture
from cgrpo.data.parts import split_of
from cgrpo.data.tasks import id_of
from cgrpo.errors import UserError


def png(colour: str = "red") -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(held, "PNG")
    return held.getvalue()


def tar(path: Path, files: Sequence[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            item = tarfile.TarInfo(name)
            item.size = len(content)
            archive.addfile(item, io.BytesIO(content))
    return path


def lines(folder: Path, *rows: str | dict) -> Path:
    for name in ("0.png", "1.png", "2.png"):
        (folder / name).write_bytes(png())
    told = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "m.jsonl").write_text(told)
    return folder / "m.jsonl"


def test_nan_is_what_is_not_there(tmp_path: Path) -> None:
    """As tables with gaps are written; it was a subject called "nan", and one subject of all rows."""
    gaps = '"subject": NaN, "id": NaN, "target": NaN, "mask": NaN, "mask_threshold": NaN, "meta": {"subject_id": NaN}'
    (record,) = read_tasks(lines(tmp_path, f'{{"prompt": "a", "image": "0.png", {gaps}}}'))
    assert (record.id, record.subject, record.target, record.masks) == ("0", "", None, ())
    assert (record.mask_threshold, record.subject_id) == (127, "")
    (tmp_path / "m.csv").write_text("prompt,image,subject,target\na,0.png,nan,None\n")
    assert read_tasks(tmp_path / "m.csv")[0].subject == ""
    assert read_tasks(tmp_path / "m.csv")[0].target is None


def test_ids_and_subjects_by_number(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "image": "0.png", "id": n, "meta": {"subject_id": n}} for n in (0, 1.0, " ")]
    assert [(r.id, r.subject_id) for r in read_tasks(lines(tmp_path, *rows))] == [
        ("0", "0"),
        ("1", "1.0"),
        ("2", " "),
    ]
    assert id_of({"id": float("nan")}) is None
    with pytest.raises(UserError, match="subject must be a word or a phrase to look for, not 12"):
        read_tasks(lines(tmp_path, {"prompt": "a", "image": "0.png", "subject": 12}))


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"file_name": "0.png", "conditioning_image": "1.png"}, "conditioning_image"),
        ({"image": "0.png", "control": ["1.png", "2.png"]}, "control"),
        ({"image": "0.png", "images": ["1.png", "2.png"]}, "image"),
        ({"reference_image": "0.png", "references": ["1.png"]}, "reference_image"),
        ({"image": "0.png", "target": "1.png", "target_image": "2.png"}, "target_image"),
        ({"references": ["0.png"], "image": "1.png", "file_name": "2.png"}, "file_name"),
    ],
)
def test_two_pictures_of_one_use_are_refused(tmp_path: Path, row: dict, field: str) -> None:
    with pytest.raises(UserError, match=f"row 0: {field} names a picture too .*call the subject's references"):
        read_tasks(lines(tmp_path, {"prompt": "a"} | row))


@pytest.mark.parametrize(
    "more",
    [
        {"original": "holiday.png"},  # no such file: what it was once called
        {"file_name": "0.png"},
        {"source": "https://a.b/1.png"},
        {"mask": "1.png"},
        {"target": "1.png", "depth": "2.png"},
        {"winner": "1.png", "loser": "2.png"},
    ],
)
def test_other_fields_are_no_second_picture(tmp_path: Path, more: dict) -> None:
    (record,) = read_tasks(lines(tmp_path, {"prompt": "a", "image": "0.png"} | more))
    assert record.references == (tmp_path / "0.png",)


@pytest.mark.parametrize(
    ("loser", "says"), [("./1.png", "winner and loser are one picture"), ("https://a.b/2.png", "is an address")]
)
def test_pairs_that_are_none(tmp_path: Path, loser: str, says: str) -> None:
    row = {"prompt": "a", "references": ["0.png"], "winner": "1.png", "loser": loser}
    with pytest.raises(UserError, match=f"row 0: .*{says}"):
        PairSource(lines(tmp_path, row))


def test_two_columns_of_pictures_in_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    shown = pa.array([{"bytes": png(), "path": "0.png"}])
    pq.write_table(pa.table({"text": ["a"], "image": shown, "edited_image": shown}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="pictures stand in image and in edited_image, and it is not said which"):
        read_tasks(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["a"], "image": shown, "target": shown, "depth": shown}), tmp_path / "b.parquet")
    assert read_tasks(tmp_path / "b.parquet")[0].target == tmp_path / "b.parquet!/0/target"


def shown(path: Path) -> tuple[list[str], list[str | None], str | None]:
    (record,) = read_tasks(path)
    masks = [mask and mask.name for mask in record.masks]
    return [file.name for file in record.references], masks, record.target and record.target.name


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["a.ref0.png", "a.png"], (["a.ref0.png"], [], "a.png")),
        (["a.png", "a.mask.png"], (["a.png"], ["a.mask.png"], None)),
        (["a.ref1.png", "a.mask2.png", "a.ref2.png"], (["a.ref1.png", "a.ref2.png"], [None, "a.mask2.png"], None)),
        (["a.ref.png", "a.mask0.png", "a.target.png"], (["a.ref.png"], ["a.mask0.png"], "a.target.png")),
    ],
)
def test_roles_in_a_shard(tmp_path: Path, names: list[str], found: tuple) -> None:
    assert shown(tar(tmp_path / "x.tar", [*((name, png()) for name in names), ("a.txt", b"a")])) == found


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
    ],
)
def test_samples_of_a_shard_that_say_too_much(tmp_path: Path, names: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_tasks(tar(tmp_path / "x.tar", [*((name, png()) for name in names), ("a.txt", b"a")]))


def test_tars_strung_together_and_torn(tmp_path: Path) -> None:
    """Readers stop at the first end: the rest was missing without a word."""
    one = tar(tmp_path / "a.tar", [("a.png", png()), ("a.txt", b"a")]).read_bytes()
    (tmp_path / "b.tar").write_bytes(one + one)
    with pytest.raises(UserError, match="several tars strung together"):
        read_tasks(tmp_path / "b.tar")
    (tmp_path / "c.tar").write_bytes(one + bytes(1 << 20))
    with pytest.raises(UserError, match="a megabyte of zeros.*fetch it anew"):
        read_tasks(tmp_path / "c.tar")


SPLITS = {
    "train-00000-of-00032-0a1b2c3d4e5f": "train", "data-test-000": "test", "Validation": "validation",
    "val_3": "validation", "stress-test-train": "train", "part-00000-of-00002": "part", "detest": "", "trains": "",
    "000": "", "contrained": "",
}  # fmt: skip


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_by_its_name(name: str) -> None:
    assert split_of(name) == SPLITS[name]


def test_only_the_training_part_of_a_folder(tmp_path: Path) -> None:
    """In whatever layout: what is to be tested on was trained on."""
    for split in ("train", "test"):
        text = split.encode()
        tar(tmp_path / f"tars/{split}-000.tar", [("a.png", png()), ("a.txt", text)])
        tar(tmp_path / f"folders/{split}/0.tar", [("a.png", png()), ("a.txt", text)])
        (tmp_path / "captions" / split).mkdir(parents=True)
        (tmp_path / "captions" / split / "a.png").write_bytes(png())
        (tmp_path / "captions" / split / "a.txt").write_bytes(text)
    for layout in ("tars", "folders", "captions"):
        assert [record.prompt for record in read_tasks(tmp_path / layout)] == ["train"]
    (tmp_path / "captions/test").rename(tmp_path / "captions/boat")  # toys: a train and a boat
    (tmp_path / "captions/boat/a.txt").write_text("boat")
    assert [record.prompt for record in read_tasks(tmp_path / "captions")] == ["boat", "train"]


def test_what_others_leave_in_a_folder(tmp_path: Path) -> None:
    for name in ("", "@eaDir", "__MACOSX"):
        (tmp_path / "set" / name).mkdir(exist_ok=True, parents=True)
        (tmp_path / "set" / name / "a.png").write_bytes(png())
    (tmp_path / "set/a.txt").write_text("a")
    assert [record.id for record in read_tasks(tmp_path / "set")] == ["a"]


def test_names_in_a_zip_from_a_mac(tmp_path: Path) -> None:
    """UTF-8 without the flag that says so; and one with a password."""
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("cafXY.png", png())
    content = (tmp_path / "p.zip").read_bytes().replace(b"cafXY", "café".encode())
    (tmp_path / "p.zip").write_bytes(content)
    place = tmp_path / "p.zip!" / "café.png"
    assert open_picture(place).getpixel((0, 0)) == (255, 0, 0)
    locked = bytearray(content)
    locked[6] |= 1
    locked[content.rfind(b"PK\1\2") + 8] |= 1
    (tmp_path / "q.zip").write_bytes(bytes(locked))
    with pytest.raises(UserError, match="encrypted.*with its password"):
        open_picture(tmp_path / "q.zip!" / "café.png")
