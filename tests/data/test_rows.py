"""What a row says: the names that fields may have, and rows that are refused by number and field."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from support.datasets import png, put, write_rows

from cgrpo.data import PairSource, check_manifest, read_tasks
from cgrpo.data.fields import PICTURES, VALUES
from cgrpo.data.readers import scan
from cgrpo.data.tasks import Fault, id_of
from cgrpo.errors import UserError
from cgrpo.types import Task

NAN = float("nan")
ROW = {"id": 7, "prompt": "a toy", "references": ["a.png", "b.png"], "target": "t.png", "subject": "toy"}
ONE = {"prompt": "a", "image": "0.png"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return put(tmp_path, {f"{name}.png": png() for name in (0, 1, 2, "x.png,y")})


def shown(task: Task, *fields: str) -> dict[str, Any]:
    """The fields of a task, files by their names."""

    def name(value: Any) -> Any:
        return value.name if isinstance(value, Path) else [*map(name, value)] if isinstance(value, tuple) else value

    return {field: name(getattr(task, field)) for field in fields}


READ = {
    "all": (ROW, {"id": "7", "prompt": "a toy", "references": ["a.png", "b.png"], "target": "t.png", "subject": "toy"}),
    "several subjects": (ROW | {"subject": ["dog", "mug"]}, {"subject": "dog and mug", "phrases": ["dog", "mug"]}),
    "one subject in a list": (ONE | {"subject": ["dog"]}, {"subject": "dog", "phrases": []}),
    "the least": (ONE, {"id": "0", "subject": "", "target": None, "masks": [], "mask_threshold": 127, "meta": {}}),
    "UNO's": ({"prompt": "x", "image_paths": ["r.png"], "image_tgt_path": "t.png"},
              {"references": ["r.png"], "target": "t.png"}),
    "UNO's, with masks": ({"prompt": "y", "image_paths": ["r", "s"], "masks": [None, "m.png"], "mask_threshold": 8},
                          {"references": ["r", "s"], "target": None, "masks": [None, "m.png"], "mask_threshold": 8}),
    "a single reference": ({"prompt": "x", "reference": "r.png"}, {"references": ["r.png"]}),
    "lists of file names": ({"references_file_names": ["a", "b"], "target_file_name": "t", "text": "one"},
                            {"prompt": "one", "references": ["a", "b"], "target": "t"}),
    "an image by file name": ({"image_file_name": "a", "text": "two"}, {"references": ["a"], "target": None}),
    "an image beside a reference": ({"reference": "a", "image": "t", "text": "three"},
                                    {"references": ["a"], "target": "t"}),
    "images": ({"images": ["a", "b"], "target_image": "t", "caption": "four", "item": "toy"},
               {"prompt": "four", "references": ["a", "b"], "target": "t", "subject": "toy"}),
    "NaN in gaps": (ONE | dict.fromkeys(["subject", "id", "target", "mask", "mask_threshold"], NAN)
                    | {"meta": {"subject_id": NAN}},
                    {"id": "0", "subject": "", "target": None, "masks": [], "mask_threshold": 127, "subject_id": ""}),
    "an empty meta": (ONE | {"meta": []}, {"meta": {}}),
    "a blank prompt, then a caption": (ONE | {"prompt": " ", "caption": "b"}, {"prompt": "b"}),
    "number 0": (ONE | {"id": 0, "meta": {"subject_id": 0}}, {"id": "0", "subject_id": "0"}),
    "number 1 beside gaps": (ONE | {"id": 1.0, "meta": {"subject_id": 1.0}}, {"id": "1", "subject_id": "1.0"}),
    "a blank id": (ONE | {"id": " ", "meta": {"subject_id": " "}}, {"id": "0", "subject_id": " "}),
    # Other fields that name no second picture of one use.
    "a file that isn't there": (ONE | {"album": "holiday.png"}, {"references": ["0.png"], "target": None}),
    "the same picture twice": (ONE | {"file_name": "0.png"}, {"references": ["0.png"], "target": None}),
    "a page's address": (ONE | {"source": "https://a.b/photos"}, {"references": ["0.png"], "target": None}),
    "one reference in a text": (ROW | {"references": "a.png"}, {"references": ["a.png"], "target": "t.png"}),
    "a mask by file name": (ONE | {"mask_file_name": "1.png"}, {"references": ["0.png"], "masks": ["1.png"]}),
    "a lost mask by file name": (ONE | {"mask_file_name": "lost.png"}, {"masks": ["lost.png"]}),
    "a mask": (ONE | {"mask": "1.png"}, {"references": ["0.png"], "masks": ["1.png"]}),
    "a depth beside a target": (ONE | {"target": "1.png", "depth": "2.png"},
                                {"references": ["0.png"], "target": "1.png"}),
    "two names in a text": (ROW | {"references": "x.png,z.png"}, {"references": ["x.png", "z.png"]}),
    "one name with two endings": (ROW | {"references": "x.png,y.png"}, {"references": ["x.png,y.png"]}),
    "MagicBrush's": ({"img_id": "7", "turn_index": 1, "source_img": "0.png", "mask_img": "1.png", "instruction": "x",
                      "target_img": "2.png"}, {"prompt": "x", "references": ["0.png"], "target": "2.png", "masks": []}),
    "Pico-Banana's": ({"open_image_input_url": "https://a.b/0.png", "text": "x", "output_image": "2.png",
                       "edit_type": "y", "summarized_text": "z", "local_input_image": "0.png"},
                      {"prompt": "x", "references": ["0.png"], "target": "2.png"}),
    "Pico-Banana's, in short": ({"summarized_text": "z", "output_image": "2.png", "local_input_image": "0.png"},
                                {"prompt": "z", "references": ["0.png"], "target": "2.png"}),
    "polygons": (ONE | {"segmentation": [[1, 2, 3]], "image_2": None}, {"references": ["0.png"], "masks": []}),
    "a winner and a loser": (ONE | {"winner": "1.png", "loser": "2.png"}, {"references": ["0.png"], "target": None}),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_row_is_read(folder: Path, name: str) -> None:
    row, expected = READ[name]
    (task,) = read_tasks(write_rows(folder / "m.json", row))
    assert shown(task, *expected) == expected
    assert all(path.parent == folder for path in task.references)


TWO = "names a picture too"
REFUSED = {
    "a blank prompt": (ROW | {"prompt": " "}, "prompt"),
    "an invisible prompt": (ROW | {"prompt": "\u200b\u0007 "}, "prompt"),
    "half of a surrogate pair": (ROW | {"prompt": "\ud800"}, "prompt"),
    "no prompt but NaN": (ROW | {"prompt": NAN}, "prompt"),
    "in capitals": ({"Prompt": "a", "file_name": "0.png"}, "it has Prompt, file_name, id, and should have prompt"),
    "another column": ({"prompt": "a", "picture": "0.png"}, "it has prompt, picture, id, and should have references"),
    "no object": ([], "must be an object"),
    "references that are no text": (ROW | {"references": ""}, "references"),
    "a reference that is a number": (ROW | {"references": [3]}, "references"),
    "a reference that is no Unicode": (ROW | {"references": ["\ud800.png"]}, "references"),
    "a reference with a null byte": (ROW | {"references": ["a\0b.png"]}, "references"),
    "a reference that is a table": (ROW | {"references": [{"bytes": "x"}]}, "references"),
    "a target that is a number": (ROW | {"target": 3}, "target"),
    "a target that is a list": (ROW | {"target": ["t.png"]}, "target"),
    "a target that is no Unicode": (ROW | {"target": "\ud800.png"}, "target"),
    "a mask for two references": (ROW | {"masks": ["m.png"]}, "masks"),
    "masks that are numbers": (ROW | {"masks": [1, 2]}, "masks"),
    "an empty mask": (ONE | {"mask": ""}, "masks"),
    "a threshold of 255": (ROW | {"mask_threshold": 255}, "mask_threshold"),
    "a meta that is a list": (ROW | {"meta": [1]}, "meta"),
    "more subjects than references": (ROW | {"subject": ["a", "b", "c"]}, "3 subjects for 2 references"),
    "fewer subjects than references": (ROW | {"subject": ["a"]}, "1 subjects for 2 references"),
    "a subject without a word": (ROW | {"subject": ["a", " "]}, "subject must be a word or a phrase"),
    "a subject that is a number": (ROW | {"subject": 12}, "subject must be a word or a phrase to look for, not 12"),
    "an address": (ONE | {"image": "https://a.b/0.png"}, "https://a.b/0.png is an address"),
    "a picture as text": (ONE | {"image": "data:image/png;base64,AAAA"}, "is an address"),
    "a target's address": (ONE | {"target": "s3://a/0.png"}, "s3://a/0.png is an address"),
    "a picture as a long text": (ONE | {"image": "A" * 9000}, "AAA... (9000 characters) is no file's name"),
    # Two pictures of one use.
    "a conditioning image": ({"prompt": "a", "file_name": "0.png", "conditioning_image": "1.png"},
                             f"conditioning_image {TWO}"),
    "an original that isn't there": (ONE | {"original": "holiday.png"}, f"original {TWO}"),
    "a source's address": (ONE | {"source": "https://a.b/1.png"}, f"source {TWO}"),
    "a second image that isn't there": (ONE | {"image_2": "lost.png"}, f"image_2 {TWO}"),
    "a second file name that isn't there": (ONE | {"image_2_file_name": "lost.png"}, f"image_2_file_name {TWO}"),
    "another image that isn't there": (ONE | {"second_image": "lost.png"}, f"second_image {TWO}"),
    "a photo that isn't there": (ONE | {"photo2": ["lost.jpg"]}, f"photo2 {TWO}"),
    "a mask by another name that isn't there": (ONE | {"subjectMask": "lost.png"}, f"subjectMask {TWO}"),
    "a segmentation that isn't there": (ONE | {"segmentation_path": "lost.png"}, f"segmentation_path {TWO}"),
    "OmniEdit's": ({"src_img": "0.png", "edited_img": "1.png", "edited_prompt_list": ["a", "b"]},
                   "it has src_img, edited_img, edited_prompt_list, id, and should have prompt"),
    "two controls": (ONE | {"control": ["1.png", "2.png"]}, f"control {TWO}"),
    "an image and images": (ONE | {"images": ["1.png", "2.png"]}, f"image {TWO}"),
    "two references": ({"prompt": "a", "reference_image": "0.png", "references": ["1.png"]}, f"reference_image {TWO}"),
    "two targets": (ONE | {"target": "1.png", "target_image": "2.png"}, f"target_image {TWO}"),
    "an image and a file name": ({"prompt": "a", "references": ["0.png"], "image": "1.png", "file_name": "2.png"},
                                 f"file_name {TWO}"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_row_is_refused(folder: Path, name: str) -> None:
    """By number and field, in one short line; the rows around it are read."""
    row, says = REFUSED[name]
    path = write_rows(
        folder / "m.json", ROW, {**row, "id": "\ud800"} if isinstance(row, dict) else row, ROW | {"id": 8}
    )
    assert [type(one) for one in scan(path)] == [Task, Fault, Task]
    with pytest.raises(UserError) as caught:
        read_tasks(path)
    message = str(caught.value)
    assert f"{path}, row 2: " in message and says in message and message.isprintable()
    assert len(message) < 350 + len(str(path))
    (problem,) = [problem for problem in check_manifest(path).problems if problem.kind == "row"]
    assert problem.row == 1 and (problem.id + problem.message).isprintable()


def test_an_id_that_is_nan_is_none() -> None:
    assert id_of({"id": NAN}) is None and id_of([]) is None


def test_root_by_argument_and_by_the_file(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps({"root": "../pictures", "records": [ROW]}))
    assert read_tasks(tmp_path / "m.json")[0].references[0] == tmp_path / "../pictures/a.png"
    assert read_tasks(tmp_path / "m.json", tmp_path / "else")[0].references[0] == tmp_path / "else/a.png"


def test_names_as_people_have_them(tmp_path: Path) -> None:
    """Windows' separators and line ends, a byte order mark, symbolic links, an exclamation mark."""
    folder = put(tmp_path / "größer 日本!" / "zip!", {"pictures/ä 猫.png": png()})
    (folder / "link.png").symlink_to("pictures/ä 猫.png")
    (folder / "loop.png").symlink_to("loop.png")
    names = ["pictures\\ä 猫.png", ".\\link.png", "loop.png", "x" * 5000 + ".png"]
    lines = [json.dumps({"prompt": "a cat " * 20_000, "references": [name]}) for name in names]
    (folder / "m.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    problems = [(problem.id, problem.kind) for problem in check_manifest(folder / "m.jsonl").problems]
    assert problems == [("1", "duplicate"), ("2", "missing"), ("3", "row")]


@pytest.mark.parametrize(("on_disk", "in_the_row"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_in_names_of_files(tmp_path: Path, on_disk: Any, in_the_row: Any) -> None:
    file, name = (unicodedata.normalize(form, "é.png") for form in (on_disk, in_the_row))
    put(tmp_path, {file: png()})
    assert read_tasks(write_rows(tmp_path / "m.json", ONE | {"image": name}))[0].references == (tmp_path / file,)


PAIR = {"prompt": "a", "references": ["0.png"], "winner": "1.png", "loser": "2.png"}


def test_a_pair(folder: Path) -> None:
    source = PairSource(write_rows(folder / "m.jsonl", PAIR, PAIR, {}), limit=2)
    assert source.size == 2 and shown(source.tasks[1], "target") == {"target": "1.png"}
    assert shown(source.losing[1], "id", "target") == {"id": "1", "target": "2.png"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"loser": "./1.png"}, "winner and loser are one picture"),
        ({"loser": "https://a.b/2.png"}, "is an address"),
        ({"winner": 3}, "winner"),
        ({"loser": None}, "loser"),
    ],
)
def test_pairs_that_are_none(folder: Path, change: dict, says: str) -> None:
    with pytest.raises(UserError, match=f"m.jsonl, row 2: .*{says}"):
        PairSource(write_rows(folder / "m.jsonl", PAIR, PAIR | change))


@pytest.mark.parametrize(
    ("name", "says"), [("none.jsonl", "no such file"), ("", "is a folder"), ("m.jsonl", "no pairs")]
)
def test_files_without_pairs(folder: Path, name: str, says: str) -> None:
    (folder / "m.jsonl").write_text("")
    with pytest.raises(UserError, match=says):
        PairSource(folder / name)


def test_the_guide_names_every_field() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "reference" / "data.md").read_text(encoding="utf-8")
    assert not [key for key in (*PICTURES, *VALUES) if f"`{key}`" not in guide]
