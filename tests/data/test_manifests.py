"""Lists of rows on disk: every dressing they come in, and files that are none."""

import gzip
import json
from pathlib import Path

import pytest
from support.datasets import png, put, write_rows

from cgrpo.data import ManifestSource, read_tasks
from cgrpo.data.readers import scan
from cgrpo.data.tasks import Fault
from cgrpo.errors import UserError
from cgrpo.types import Task

ROW = {"prompt": "a café", "image": "0.png"}
LINES = "\n".join(json.dumps(ROW | {"id": n}, ensure_ascii=False) for n in range(2))
TABLE = "prompt, image\na café, 0.png\na café, 0.png\n"
TABS = TABLE.replace(", ", "\t")
READ = {
    "a list": ("m.json", json.dumps([ROW, ROW])),
    "a list in an object": ("m.json", json.dumps({"records": [ROW, ROW], "made": "by hand"})),
    "a list after a byte order mark": ("m.json", b"\xef\xbb\xbf" + json.dumps([ROW, ROW]).encode()),
    "lines": ("m.jsonl", LINES + "\n\n"),
    "lines, by another ending": ("m.ndjson", LINES),
    "lines, packed": ("m.jsonl.gz", gzip.compress(LINES.encode())),
    "lines, PowerShell's": ("m.jsonl", LINES.encode("utf-16")),
    "lines, Windows'": ("m.jsonl", LINES.replace("\n", "\r\n").encode("utf-8-sig")),
    "lines under a list's name": ("m.json", LINES),
    "a list under lines' name": ("m.jsonl", json.dumps([ROW, ROW], indent=1)),
    "a table": ("m.csv", TABLE),
    "a table, Excel's Unicode text": ("m.csv", TABLE.encode("utf-16")),
    "a table, Windows'": ("m.csv", TABLE.replace("\n", "\r\n").encode("utf-8-sig")),
    "tabs": ("m.tsv", TABS),
    "tabs in UTF-32": ("m.tsv", TABS.encode("utf-32")),
    "tabs, packed": ("m.tsv.gz", gzip.compress(TABS.encode())),
}


@pytest.mark.parametrize("dressing", READ)
def test_a_manifest_is_read(tmp_path: Path, dressing: str) -> None:
    name, content = READ[dressing]
    tasks = read_tasks(put(tmp_path, {"0.png": png(), name: content}) / name)
    assert [(task.prompt, task.references) for task in tasks] == [("a café", (tmp_path / "0.png",))] * 2


LATIN = "prompt,image\ncafé,0.png\n".encode("latin-1")
REFUSED = [
    ("m.json", "", "JSON|Expecting"),
    ("m.json", "{", "Expecting"),
    ("m.json", "[]", "no rows"),
    ("m.json", "{}", "no rows"),
    ("m.json", "3", "no rows"),
    ("m.json", "[" * 100_000, "too deep"),
    ("m.json", "[" + "9" * 5000 + "]", "digits"),
    ("m.json", json.dumps([ROW]).encode("utf-16-le"), "Expecting"),  # without its mark
    ("m.json", json.dumps({"records": [ROW], "root": {"a": 1}}), "root"),
    ("m.json", json.dumps({"records": [ROW], "root": "a\0b"}), "root"),
    ("m.json", '[{"prompt": "a", "prompt": "b", "image": "0.png"}]', "'prompt' stands there twice"),
    ("m.json", "<!DOCTYPE html><html>404</html>", "it is a web page"),
    ("m.jsonl", "", "no rows"),
    ("m.csv", "", "no rows"),
    ("m.csv", "file_name,text\n", "no rows"),
    ("m.csv", 'file_name,text\na.png,"x', "unexpected end"),
    ("m.csv", "file_name,text\na.png," + "x" * 200_000, "field limit"),
    ("m.csv", "prompt,image,prompt\na,0.png,b\n", "has two columns prompt"),
    ("m.csv", LATIN, "byte 0xe9 at 16 is no UTF-8; save it as UTF-8"),
    ("m.csv", "file_name;text\n0.png;a\n", "row 1: .*it has file_name;text, and should have prompt"),
    ("m.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    ("m.tar", b"\x1f\x8b\x08" + bytes(600), "it is gzipped"),
    ("m.tar.gz", "PK", "decompress"),
    ("m.tgz", "PK", "decompress"),
    ("m.zip", "PK", "unpack"),
    ("m.xlsx", "PK", "save it as CSV"),
    ("m.yaml", "PK", "save it as JSON"),
]


@pytest.mark.parametrize(("name", "content", "says"), REFUSED)
def test_a_file_is_refused(tmp_path: Path, name: str, content: bytes | str, says: str) -> None:
    with pytest.raises(UserError, match=f"{name}[:,] .*({says})") as caught:
        read_tasks(put(tmp_path, {name: content}) / name)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_lines_and_cells_that_are_none_are_faults_of_their_own(tmp_path: Path) -> None:
    put(tmp_path, {"m.jsonl": "\n".join([json.dumps(ROW), "", "{", "[]"])})
    good, line, row = scan(tmp_path / "m.jsonl")
    assert isinstance(good, Task) and isinstance(line, Fault) and isinstance(row, Fault)
    assert ", line 3: not JSON" in line.message and ", row 3: must be an object" in row.message
    put(tmp_path, {"m.csv": "prompt,image\na,0.png\na,0.png,x\n"})
    good, row = scan(tmp_path / "m.csv")
    assert isinstance(good, Task) and isinstance(row, Fault) and "row 2: has more cells" in row.message


def test_a_line_separator_within_a_prompt_ends_no_line(tmp_path: Path) -> None:
    put(tmp_path, {"m.jsonl": json.dumps(ROW | {"prompt": "a\u2028b"}, ensure_ascii=False)})
    assert read_tasks(tmp_path / "m.jsonl")[0].prompt == "a\u2028b"


def test_cells(tmp_path: Path) -> None:
    """Quoted commas and line ends, empty cells and words for them, Windows' line ends and byte order mark."""
    lines = ["file_name,reference_file_name,mask_file_name,caption,mask_threshold,subject"]
    lines += ['t.png,r.png,m.png,"a toy, ""red""\nin snow",8,toy', "t.png,,,alone,,nan", "t.png,None,NULL,x,,NaN"]
    put(tmp_path, {"metadata.csv": b"\xef\xbb\xbf" + "\r\n".join(lines).encode()})
    both, lone, words = read_tasks(tmp_path)
    assert (both.prompt, both.mask_threshold, both.subject) == ('a toy, "red"\nin snow', 8, "toy")
    assert (both.references, both.target) == ((tmp_path / "r.png",), tmp_path / "t.png")
    assert both.masks == (tmp_path / "m.png",)
    for task in (lone, words):
        assert (task.references, task.target, task.masks) == ((tmp_path / "t.png",), None, ())
        assert (task.subject, task.mask_threshold) == ("", 127)


def test_limit(tmp_path: Path) -> None:
    """Faults behind it are nobody's concern."""
    path = write_rows(tmp_path / "m.json", ROW | {"id": 7}, ROW | {"id": 8}, {})
    assert [task.id for task in read_tasks(path, limit=2)] == ["7", "8"]
    assert ManifestSource(path, limit=1).size == 1
    with pytest.raises(UserError, match="row 3"):
        read_tasks(path, limit=3)
