"""Folders: pictures with captions, Hugging Face's imagefolders, splits of either, and what else lies about."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image
from support.datasets import encoded, pack, png, put

from cgrpo.data import check_manifest, read_tasks
from cgrpo.data.archives import open_picture
from cgrpo.data.parts import split_of
from cgrpo.data.readers import scan
from cgrpo.errors import UserError


def test_imagefolder(tmp_path: Path) -> None:
    lines = ['{"file_name": "a.png", "text": "one"}', '{"file_names": ["a.png", "b.png"], "caption": "two"}']
    one, two = read_tasks(put(tmp_path, {"metadata.jsonl": "\n".join(lines)}))
    assert (one.prompt, one.references) == ("one", (tmp_path / "a.png",))
    assert (two.prompt, two.references) == ("two", (tmp_path / "a.png", tmp_path / "b.png"))


def test_splits_of_an_imagefolder(tmp_path: Path) -> None:
    """train/ is what one trains on; without one, the user has to say which."""
    for split in ("test", "train"):
        put(tmp_path, {f"{split}/metadata.jsonl": json.dumps({"file_name": "a.png", "text": split})})
    (task,) = read_tasks(tmp_path)
    assert (task.prompt, task.references) == ("train", (tmp_path / "train/a.png",))
    (tmp_path / "train").rename(tmp_path / "validation")
    with pytest.raises(UserError, match="the splits test, validation, and none is called train"):
        read_tasks(tmp_path)
    assert read_tasks(tmp_path / "test")[0].prompt == "test"


def test_pictures_with_captions(tmp_path: Path) -> None:
    texts = {"b": "two", "deep/a": " one\n", "c": "", "d": b"\xff\xfe\x00"}
    files = {f"{name}.png": png() for name in texts} | {f"{name}.txt": text for name, text in texts.items()}
    rows = scan(put(tmp_path, files))
    assert [(row.id, getattr(row, "prompt", None)) for row in rows] == [
        ("b", "two"), ("c", None), ("d", None), ("deep/a", "one")
    ]  # fmt: skip
    with pytest.raises(UserError, match="c.png: has no prompt"):
        read_tasks(tmp_path)


def test_captions_as_they_lie_about(tmp_path: Path) -> None:
    """Endings in capitals, kohya's, UTF-16, folders that are links and lead in circles; what is neither is counted."""
    texts = {"a.TXT": "a".encode("utf-16"), "b.caption": b"b", "c.txt": b"c", "c.caption": b"not c"}
    others = {"d.mp4": b"", "e.txt": b"an orphan", "f.heic": b"", ".hidden.mp4": b""}
    foreign = {f"{name}/a.png": png() for name in ("@eaDir", "__MACOSX")}
    colours = zip("abc", ("red", "green", "blue"), strict=True)
    put(tmp_path / "set", {**{f"{n}.PNG": png(c) for n, c in colours}, **texts, **others, **foreign})
    put(tmp_path / "far", {"z.png": png("white"), "z.txt": b"z"})
    os.symlink(tmp_path / "far", tmp_path / "set" / "far")
    os.symlink(tmp_path / "set", tmp_path / "set" / "again")
    assert [(task.id, task.prompt) for task in read_tasks(tmp_path / "set")] == [
        ("a", "a"), ("b", "b"), ("c", "c"), ("far/z", "z")
    ]  # fmt: skip
    (note,) = [note for note in check_manifest(tmp_path / "set").notes if "left out" in note]
    assert note == "3 files are left out, no picture with its prompt: .mp4 (1), .txt (1), .heic (1)"


MASKS = {
    "OneTrainer": "a-masklabel.png", "kohya": "a_mask.png", "a dot": "a.mask.png", "ai-toolkit": "masks/a.png",
    "a folder beside": "../mask/a.png", "capitals": "a-Mask.png",
}  # fmt: skip


@pytest.mark.parametrize("program", MASKS)
def test_a_mask_next_to_its_picture(tmp_path: Path, program: str) -> None:
    put(tmp_path / "x/set", {"a.jpg": png(), "a.txt": "a toy", MASKS[program]: png("white")})
    (task,) = read_tasks(tmp_path / "x" if ".." in MASKS[program] else tmp_path / "x/set")
    assert [path and path.resolve() for path in task.masks] == [(tmp_path / "x/set" / MASKS[program]).resolve()]
    assert (task.references[0].name, task.target) == ("a.jpg", None)


@pytest.mark.parametrize("name", [*MASKS.values()])
def test_a_mask_of_no_picture_is_passed_over(tmp_path: Path, name: str) -> None:
    lost = name.replace("a", "z", 1) if "/" not in name else name.replace("/a.", "/z.")
    put(tmp_path / "x/set", {"a.jpg": png(), "a.txt": "a toy", lost: png("white")})
    (task,) = read_tasks(tmp_path / "x")
    assert (task.references[0].name, task.masks) == ("a.jpg", ())
    (note,) = [note for note in check_manifest(tmp_path / "x").notes if "passed over" in note]
    assert note.startswith("1 pictures are passed over") and note.endswith(f"masks of no picture: {Path(lost).name}")


def test_a_caption_makes_a_picture_of_a_mask(tmp_path: Path) -> None:
    put(tmp_path, {"dog.png": png(), "dog.txt": "a dog", "dog_mask.png": png(), "dog_mask.txt": "a dog with a mask"})
    assert [(task.id, task.masks) for task in read_tasks(tmp_path)] == [("dog", ()), ("dog_mask", ())]


def test_kohyas_folders_and_captions_that_programs_read_differently(tmp_path: Path) -> None:
    files = {"img/10_sks dog/a.png": png(), "img/10_sks dog/a.txt": "one\ntwo\nthree", "reg/1_dog/b.png": png("blue")}
    files |= {"reg/1_dog/c.png": png("lime"), "reg/1_dog/c.txt": "a dog", "img/10_sks dog/a.caption": "another"}
    (task,) = read_tasks(put(tmp_path, files))
    assert task.prompt == "one\ntwo\nthree"
    notes = " ".join(check_manifest(tmp_path, quick=True).notes)
    for part in ("2 pictures are passed over", "1 captions have several lines", "10_sks dog, are not applied"):
        assert part in notes
    assert "1 captions differ from the .txt" in notes


def test_a_picture_that_is_not_read_is_reported(tmp_path: Path) -> None:
    put(tmp_path, {"0.png": png(), "0.txt": "a toy", "1.HEIC": b"?", "1.txt": "a toy", "readme.txt": "no caption"})
    (problem,) = check_manifest(tmp_path).problems
    assert (problem.id, problem.kind) == ("1", "row") and "1.HEIC: .heic pictures are not read" in problem.message


def test_a_name_that_is_no_unicode(tmp_path: Path) -> None:
    put(tmp_path, {"\udce9.png": png(), "\udce9.txt": "a toy"})
    (task,) = read_tasks(tmp_path)
    assert open_picture(task.references[0]).size == (8, 8)


@pytest.mark.parametrize("files", [{}, {"a.png": png()}, {"a.txt": "a toy"}], ids=str)
def test_a_folder_of_nothing_known(tmp_path: Path, files: dict) -> None:
    with pytest.raises(UserError, match="no known data set"):
        read_tasks(put(tmp_path, files))
    with pytest.raises(UserError, match="absent: no such file"):
        read_tasks(tmp_path / "absent")


def test_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    put(tmp_path, {"dataset_info.json": "{}", "state.json": "{}", "data-00000-of-00001.arrow": b"ARROW1"})
    with pytest.raises(UserError, match="save_to_disk, which is not read; write the data set with to_parquet"):
        read_tasks(tmp_path)


ENDINGS = {"jfif": "JPEG", "jpe": "JPEG", "JPG": "JPEG", "jp2": "JPEG2000", "ppm": "PPM", "TIF": "TIFF", "tga": "TGA"}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_pillow_reads_is_read_from_folders_and_shards(tmp_path: Path, ending: str) -> None:
    files = {f"0.{ending}": encoded(Image.new("RGB", (9, 8)), ENDINGS[ending]), "0.txt": b"a toy"}
    for place in (put(tmp_path / "in", files), pack(tmp_path / "x.tar", files)):
        (task,) = read_tasks(place)
        assert task.prompt == "a toy" and open_picture(task.references[0]).size == (9, 8)


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
        sample = {"a.png": png(), "a.txt": split.encode()}
        pack(tmp_path / f"tars/{split}-000.tar", sample)
        pack(tmp_path / f"folders/{split}/0.tar", sample)
        put(tmp_path / "captions" / split, sample)
    put(tmp_path / "alone/train", {"a.png": png(), "a.txt": "train"})
    for layout in ("tars", "folders", "captions", "alone"):
        assert [task.prompt for task in read_tasks(tmp_path / layout)] == ["train"]
    (tmp_path / "captions/test").rename(tmp_path / "captions/boat")  # toys: a train and a boat
    put(tmp_path / "captions/boat", {"a.txt": "boat"})
    assert [task.prompt for task in read_tasks(tmp_path / "captions")] == ["boat", "train"]
