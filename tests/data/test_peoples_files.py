"""Data sets as other tools write them: read, or refused in one line that names what was found."""

from __future__ import annotations

import gzip
import json
import subprocess
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from cgrpo.data import check_manifest, read_tasks
from cgrpo.data.archives import open_picture
from cgrpo.data.readers import scan
from cgrpo.data.tasks import Fault
from cgrpo.errors import UserError


def picture(path: Path, **settings) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").convert("RGB").save(path, **settings)
    return path


def tar(folder: Path, *words: str) -> Path:
    file = folder.parent / "x.tar"
    subprocess.run(["tar", "cf", str(file), "-C", str(folder), *words], check=True)
    return file


@pytest.mark.parametrize("words", [["."], ["./a", "./b"], ["a", "b"]])
def test_a_tar_of_a_folder_whatever_its_names_begin_with(tmp_path: Path, words: list[str]) -> None:
    for name in ("a/0", "b/1"):
        picture(tmp_path / "in" / f"{name}.jpg").with_suffix(".txt").write_text("a toy")
    records = read_tasks(tar(tmp_path / "in", *words))
    assert sorted(record.id for record in records) == ["a/0", "b/1"]
    assert all(open_picture(record.references[0]).size == (256, 256) for record in records)


def test_members_of_a_zip_by_any_spelling(tmp_path: Path) -> None:
    picture(tmp_path / "0.png")
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.write(tmp_path / "0.png", "./x//0.png")
    rows = [{"prompt": "a toy", "references": [f"p.zip!/{name}"]} for name in ("x/0.png", "./x/0.png", "x/./0.png")]
    (tmp_path / "m.json").write_text(json.dumps(rows))
    assert all(open_picture(record.references[0]).size == (256, 256) for record in read_tasks(tmp_path / "m.json"))


@pytest.mark.parametrize("facts", [{"url": "https://x", "width": 256}, {"caption": None}, {"caption": ""}])
def test_img2datasets_shards_have_their_prompt_beside_the_facts(tmp_path: Path, facts: dict) -> None:
    picture(tmp_path / "in" / "000.jpg")
    (tmp_path / "in" / "000.txt").write_text("a toy in the snow\n")
    (tmp_path / "in" / "000.json").write_text(json.dumps(facts))
    (record,) = read_tasks(tar(tmp_path / "in", "000.jpg", "000.txt", "000.json"))
    assert record.prompt == "a toy in the snow"


def test_a_json_that_has_the_prompt_counts_before_the_txt(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "000.jpg")
    (tmp_path / "in" / "000.txt").write_text("another")
    (tmp_path / "in" / "000.json").write_text('{"caption": "a toy"}')
    (record,) = read_tasks(tar(tmp_path / "in", "."))
    assert record.prompt == "a toy"


ENDINGS = {"jfif": "JPEG", "jpe": "JPEG", "JPG": "JPEG", "jp2": "JPEG2000", "ppm": "PPM", "TIF": "TIFF", "tga": "TGA"}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_pillow_reads_is_read_from_folders_and_shards(tmp_path: Path, ending: str) -> None:
    file = picture(tmp_path / "in" / f"0.{ending}", format=ENDINGS[ending])
    file.with_suffix(".txt").write_text("a toy")
    for place in (tmp_path / "in", tar(tmp_path / "in", ".")):
        (record,) = read_tasks(place)
        assert record.prompt == "a toy" and open_picture(record.references[0]).size == (256, 256)


def test_a_picture_that_is_not_read_is_told(tmp_path: Path) -> None:
    picture(tmp_path / "0.png").with_suffix(".txt").write_text("a toy")
    (tmp_path / "1.HEIC").write_bytes(b"?")
    (tmp_path / "1.txt").write_text("a toy")
    (tmp_path / "readme.txt").write_text("not a caption")
    (problem,) = check_manifest(tmp_path).problems
    assert (problem.id, problem.kind) == ("1", "row") and "1.HEIC: no picture that is read" in problem.message


TABLE = "file_name\tprompt\n0.png\ta toy, red\n"
LINES = '{"file_name": "0.png", "prompt": "a toy, red"}\n'
FILES = {
    "m.tsv": TABLE.encode(), "m.ndjson": LINES.encode(), "m.jsonl.gz": gzip.compress(LINES.encode()),
    "m.tsv.gz": gzip.compress(TABLE.encode()), "m.json": b"\xef\xbb\xbf[" + LINES.encode() + b"]",
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_manifests_in_other_dressings(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "0.png")
    (tmp_path / name).write_bytes(FILES[name])
    (record,) = read_tasks(tmp_path / name)
    assert (record.prompt, record.references) == ("a toy, red", (tmp_path / "0.png",))


@pytest.mark.parametrize("name", ["d.tar.gz", "d.tgz", "d.zip", "d.xlsx", "d.yaml"])
def test_other_formats_are_named_with_the_way_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    ending = name.removeprefix("d")
    with pytest.raises(UserError, match=f"{name}: {ending} is not read as a data set; (unpack|gunzip|save)"):
        read_tasks(tmp_path / name)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("Prompt,file_name", "it has Prompt, file_name, and should have prompt or text or caption"),
        ("file_name;text", "it has file_name;text, and should have prompt or text or caption"),
        ("prompt,picture", "it has prompt, picture, and should have references or"),
    ],
)
def test_columns_of_other_names_are_named(tmp_path: Path, header: str, says: str) -> None:
    (tmp_path / "m.csv").write_text(f"{header}\na toy{',0.png' if ',' in header else ';x'}\n")
    (fault,) = scan(tmp_path / "m.csv")
    assert isinstance(fault, Fault) and says in fault.message and "\n" not in fault.message
