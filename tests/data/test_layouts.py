"""A data set of any layout gives the tasks of the manifest that it stands for, after each program's own documentation.

The target never becomes its own reference: of every layout, and of rows whose fields leave the roles open.
"""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.datasets import pack, png, put, write_rows

from cgrpo.data import PairSource, check_manifest, read_tasks
from cgrpo.data.archives import read_bytes
from cgrpo.data.readers import scan
from cgrpo.data.tasks import Fault
from cgrpo.errors import UserError
from cgrpo.types import Task

HF = pa.struct({"bytes": pa.binary(), "path": pa.string()})
PICTURES = {"r0.png": png("red"), "r1.png": png("lime"), "t.png": png("blue")}
PROMPT, REFERENCES, TARGET = "a toy, in the snow", ["r0.png", "r1.png"], "t.png"
FILES = [{"type": "image", "path": name} for name in REFERENCES]


def table(row: dict[str, str], delimiter: str = ",") -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(row), delimiter=delimiter)
    writer.writeheader()
    writer.writerow(row)
    return out.getvalue()


def parquet(folder: Path, row: dict[str, Any], **types: Any) -> Path:
    schema = pa.schema({name: types.get(name, pa.string()) for name in row})
    pq.write_table(pa.table({name: [value] for name, value in row.items()}, schema=schema), folder / "x.parquet")
    return folder / "x.parquet"


def embedded(name: str) -> dict[str, Any]:
    return {"bytes": PICTURES[name], "path": name}


def rows(name: str, row: Any) -> Callable[[Path], Path]:
    return lambda folder: write_rows(put(folder, PICTURES) / name, row)


def text(name: str, content: str) -> Callable[[Path], Path]:
    return lambda folder: put(folder, PICTURES | {name: content.encode()}) / name


def folder_of(files: dict[str, Any]) -> Callable[[Path], Path]:
    return lambda folder: put(folder, {name: PICTURES.get(content, content) for name, content in files.items()})


V2 = {"schema_version": 2, "input": {"prompt": PROMPT, "media": [FILES[0] | {"slot": "first_frame"}, FILES[1]]}}
DEMONSTRATION = {"type": "demonstration", "target": {"media": [{"type": "image", "path": TARGET}]}}
UNIRL = [{"modality": "image", "role": "condition", "uri": name} for name in REFERENCES]
UNIRL_TARGET = {"modality": "image", "role": "target", "uri": TARGET}
NAMES = json.dumps(REFERENCES)
CONTROLS = {"control_path_0": "r0.png", "control_path_1": "r1.png"}

WITH_TARGET: dict[str, Callable[[Path], Path]] = {
    "cgrpo's": rows("m.json", {"prompt": PROMPT, "references": REFERENCES, "target": TARGET}),
    "UNO": rows("m.json", {"prompt": PROMPT, "image_paths": REFERENCES, "image_tgt_path": TARGET}),
    "a table, JSON in a cell": text("m.csv", table({"prompt": PROMPT, "references": NAMES, "target": TARGET})),
    "Python in a cell": text("m.csv", table({"prompt": PROMPT, "references": str(REFERENCES), "target": TARGET})),
    "names in a cell": text("m.tsv", table({"text": PROMPT, "images": "r0.png, r1.png", "target": TARGET}, "\t")),
    "DiffSynth": rows("metadata.json", {"image": TARGET, "prompt": PROMPT, "edit_image": REFERENCES}),
    "DiffSynth's table": text("metadata.csv", table({"image": TARGET, "prompt": PROMPT, "edit_image": NAMES})),
    "Kontext in DiffSynth": rows("m.json", {"image": TARGET, "prompt": PROMPT, "kontext_images": REFERENCES}),
    "musubi-tuner": rows("m.jsonl", {"image_path": TARGET, "caption": PROMPT} | CONTROLS),
    "musubi-tuner, the first unnumbered": rows("m.jsonl", {"image_path": TARGET, "caption": PROMPT,
                                               "control_path": "r0.png", "control_path_1": "r1.png"}),
    "ai-toolkit, a gap": rows("m.json", {"image": TARGET, "text": PROMPT, "control_path_1": "r0.png",
                                         "control_path_2": None, "control_path_3": "r1.png"}),
    "Flow-Factory's version 2": rows("m.jsonl", V2 | {"supervision": DEMONSTRATION}),
    "UniRL": rows("m.jsonl", {"prompt": PROMPT, "media": [*UNIRL, UNIRL_TARGET], "sample_id": "s0"}),
    "UniRL's media_refs": rows("m.jsonl", {"caption": PROMPT, "media_refs": [UNIRL_TARGET, *UNIRL]}),
    "X2I": rows("m.jsonl", {"instruction": PROMPT, "input_images": REFERENCES, "output_image": TARGET}),
    "ai-toolkit's folders": folder_of({"images/a.png": TARGET, "images/a.txt": PROMPT, "control_1/a.png": "r0.png",
                                       "control_2/a.png": "r1.png"}),
    "musubi-tuner's folders": folder_of({"images/a.png": TARGET, "images/a.txt": PROMPT, "control/a_1.png": "r1.png",
                                         "control/a_0.png": "r0.png"}),
    "a control folder below": folder_of({"a.png": TARGET, "a.txt": PROMPT, "control/a_0000.png": "r0.png",
                                         "control/a_0001.png": "r1.png"}),
    "captions of the references, too": folder_of({"images/a.png": TARGET, "images/a.txt": PROMPT, "control/a.txt": "a",
                                                  "control/a_0.png": "r0.png", "control/a_0.txt": "a toy",
                                                  "control/a_1.png": "r1.png", "control/a_1.txt": "a toy"}),
    "captioned references below": folder_of({"a.png": TARGET, "a.txt": PROMPT, "conditioning_1/a.png": "r0.png",
                                             "conditioning_1/a.txt": "a toy", "conditioning_2/a.png": "r1.png"}),
    "before and after": folder_of({"after/a.png": TARGET, "after/a.txt": PROMPT, "before/a_0.png": "r0.png",
                                   "before/a_0.txt": "a toy", "before/a_1.png": "r1.png"}),
    "sources in folders of their own": folder_of({"img/10_toy/a.png": TARGET, "img/10_toy/a.txt": PROMPT,
                                                  "Source Images/10_toy/a_0.png": "r0.png",
                                                  "Source Images/10_toy/a_0.txt": "a toy",
                                                  "Source Images/10_toy/a_1.png": "r1.png",
                                                  "control.txt": "no picture's"}),
    "WebDataset": lambda folder: pack(folder / "x.tar", {"a.ref0.png": PICTURES["r0.png"], "a.ref1.png":
                                      PICTURES["r1.png"], "a.png": PICTURES[TARGET], "a.txt": PROMPT.encode()}),
    "parquet, edit_image": lambda folder: parquet(
        folder, {"prompt": PROMPT, "image": embedded(TARGET), "edit_image": [*map(embedded, REFERENCES)]},
        image=HF, edit_image=pa.list_(HF)),
    "parquet, numbered columns": lambda folder: parquet(
        folder, {"text": PROMPT, "image": PICTURES[TARGET], "control_path_1": PICTURES["r0.png"],
                 "control_path_2": PICTURES["r1.png"]},
        image=pa.binary(), control_path_1=pa.binary(), control_path_2=pa.binary()),
    "parquet by path": lambda folder: parquet(
        put(folder, PICTURES), {"text": PROMPT, "image": TARGET, "edit_image": REFERENCES},
        edit_image=pa.list_(pa.string())),
    "parquet, names in a text": lambda folder: parquet(
        put(folder, PICTURES), {"text": PROMPT, "image": TARGET, "edit_image": NAMES}),
    "parquet, a list of bytes": lambda folder: parquet(
        folder, {"instruction": PROMPT, "input_images": [PICTURES[name] for name in REFERENCES],
                 "edited_image": embedded(TARGET)}, input_images=pa.list_(pa.binary()), edited_image=HF),
}  # fmt: skip
WITHOUT_TARGET: dict[str, Callable[[Path], Path]] = {
    "Flow-Factory": lambda folder: write_rows(
        put(folder, {f"images/{name}": content for name, content in PICTURES.items()}) / "train.jsonl",
        {"prompt": PROMPT, "images": REFERENCES},
    ).parent,
    "Flow-Factory's references": rows("m.jsonl", {"prompt": PROMPT, "references": FILES}),
    "DyRef": rows("benchmark.json", {"index": 0, "prompt": PROMPT, "category": "subject", "edit_image": REFERENCES}),
    "PSRBench": rows("m.json", {"instruction": PROMPT, "input_paths": REFERENCES}),
    "MultiBanana": folder_of({"3_back/006_0.jpg": "r0.png", "3_back/006_1.jpg": "r1.png", "3_back/types.json": "{}",
                              "3_back/006_prompt.txt": PROMPT, "3_back/006_generated.jpg": "t.png"}),
}  # fmt: skip


def shown(task: Task) -> tuple[str, list[bytes], bytes | None]:
    assert task.target not in task.references
    return task.prompt, [read_bytes(path) for path in task.references], task.target and read_bytes(task.target)


@pytest.mark.parametrize("layout", [*WITH_TARGET, *WITHOUT_TARGET])
def test_a_layout_gives_the_manifests_tasks(tmp_path: Path, layout: str) -> None:
    source = (WITH_TARGET | WITHOUT_TARGET)[layout](tmp_path)
    (task,) = read_tasks(source)
    references = [PICTURES[name] for name in REFERENCES]
    assert shown(task) == (PROMPT, references, PICTURES[TARGET] if layout in WITH_TARGET else None)
    assert check_manifest(source, quick=True).problems == ()


def test_a_preference_pair_of_flow_factory(tmp_path: Path) -> None:
    media = {name: {"media": [{"type": "image", "path": f"{name}.png"}]} for name in ("chosen", "rejected")}
    source = PairSource(rows("m.jsonl", V2 | {"supervision": {"type": "preference"} | media})(tmp_path))
    assert (source.tasks[0].target, source.losing[0].target) == (tmp_path / "chosen.png", tmp_path / "rejected.png")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (V2 | {"supervision": {"target": {"media": [{"type": "video", "path": "t.mp4"}]}}}, "media must be images"),
        (V2 | {"supervision": {"target": {"media": FILES}}}, "target must be a picture"),
        ({"input": {"prompt": PROMPT, "media": []}}, "references"),
        (V2 | {"supervision": "x"}, "supervision must be an object"),
        (V2 | {"supervision": {"target": ["t.png"]}}, "target must be an object"),
        ({"input": {"prompt": PROMPT, "media": 3}}, "media must be images"),
        ({"prompt": PROMPT, "media": [UNIRL[0] | {"role": "mask"}]}, "a role other than"),
        ({"prompt": PROMPT, "media": [UNIRL[0] | {"modality": "audio"}]}, "media must be images"),
        ({"prompt": PROMPT, "media": [UNIRL_TARGET]}, "references"),
        ({"prompt": PROMPT, "media": [UNIRL[0], UNIRL_TARGET | {"uri": "r0.png"}]}, "is its own reference"),
        ({"prompt": PROMPT, "references": ["./t.png"], "target": "t.png"}, "is its own reference"),
    ],
)
def test_media_that_make_no_task(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=f"m.jsonl, row 1: .*{says}"):
        read_tasks(rows("m.jsonl", row)(tmp_path))


SURE = [
    "edit_image", "edit_images", "kontext_images", "kontext", "control", "control_image", "controlImages",
    "control_path",
    "control_path_2", "controlnet_image", "conditioning_image", "conditioning_image_file_name", "cond", "cond_image",
    "condition_image", "ref", "ref_img", "ref_images", "reference_img", "src_img", "src", "source_image", "source_img",
    "source_path", "before", "before_image", "input_image", "input_image_1", "input_images", "input_img", "init_image",
    "original_image", "original_img", "context_image", "subject_image", "depth_image", "pose_img", "hint",
]  # fmt: skip
PERHAPS = ["source", "original", "input", "style", "depth", "canny", "condition", "context", "edit", "raw"]
PICTURE_VALUES: list[Any] = [
    '["r0.png"]', "['r0.png']", "r0.png,r1.png", "r0.png", "lost.png", "r0", "https://a.b/0.png?size=9", ["r0.png"],
    ["lost.png"], ["r0"], {"path": "r0.png"}, {"bytes": "iVBORw0K", "path": None}, [{"path": "lost.png"}], "data:x.png",
]  # fmt: skip
OTHER_VALUES: list[Any] = [None, "", [], "sub/lost", 7, {"a": 1}, [3], "https://a.b/c", "[", "iVBORw0K" * 700]


@pytest.mark.parametrize(
    ("name", "ending"), [*((name, "json") for name in SURE + PERHAPS), ("edit_image", "csv"), ("source", "csv")]
)
def test_the_target_of_an_editing_set_is_never_its_reference(tmp_path: Path, name: str, ending: str) -> None:
    """A row with a lone image and such a field is read as an editing program's, or it is refused."""
    put(tmp_path, PICTURES)
    for value in PICTURE_VALUES + (OTHER_VALUES if name in SURE else []):
        row = {"prompt": PROMPT, "image": TARGET, name: value}
        if ending == "csv":
            (tmp_path / "m.csv").write_text(table({key: str(cell) for key, cell in row.items()}))
        else:
            write_rows(tmp_path / "m.json", row)
        (one,) = scan(tmp_path / f"m.{ending}")
        assert isinstance(one, Fault) or (one.target == tmp_path / TARGET and one.target not in one.references), value


@pytest.mark.parametrize(
    "more",
    [{"source": "laion"}, {"source": "https://a.b/photos/7"}, {"style": "anime"}, {"original": False}, {"input": 3},
     {"input_prompt": "a toy"}, {"control_type": "canny"}, {"source_url": "https://a.b/0.png"}, {"edit": "make it red"},
     {"reference": None}, {"source": None}, {"reference_count": 2}, {"image_id": "r0"}, {"context": ""},
     {"edit_instruction": "r0.png, red"}],
    ids=str,
)  # fmt: skip
def test_what_says_something_else_of_an_image_is_no_condition(tmp_path: Path, more: dict[str, Any]) -> None:
    (task,) = read_tasks(rows("m.json", {"prompt": PROMPT, "image": TARGET} | more)(tmp_path))
    assert task.references == (tmp_path / TARGET,)


SECOND_COLUMNS = {
    "bytes": ("control_image", pa.binary(), PICTURES["r0.png"]),
    "Hugging Face's": ("control_image", HF, embedded("r0.png")),
    "bytes by an odd name": ("image_b", pa.binary(), PICTURES["r0.png"]),
    "a list of bytes": ("conditioning", pa.list_(pa.binary()), [PICTURES["r0.png"]]),
    "a list of structs": ("after", pa.list_(HF), [embedded("r0.png")]),
    "in a struct": ("pair", pa.struct({"before": HF, "note": pa.string()}), {"before": embedded("r0.png"), "note": ""}),
    "in a list of structs": ("turns", pa.list_(pa.struct({"input": HF})), [{"input": embedded("r0.png")}]),
    "a path": ("control_image", pa.string(), "r0.png"),
    "a lost path": ("control_image", pa.string(), "lost"),
    "a path by an odd name": ("image_b", pa.string(), "r0.png"),
    "a list of paths": ("cond", pa.list_(pa.string()), ["lost.png"]),
    "a path in a struct": ("cond_image", pa.struct({"path": pa.string()}), {"path": "lost.png"}),
    "a number": ("control_image", pa.int64(), 7),
    "a dictionary": ("source", pa.dictionary(pa.int8(), pa.string()), "lost.png"),
}


@pytest.mark.parametrize(
    "first", [("image", HF, embedded(TARGET)), ("image", pa.string(), TARGET)], ids=["bytes", "path"]
)
@pytest.mark.parametrize("second", SECOND_COLUMNS)
def test_a_second_column_of_pictures_is_refused(tmp_path: Path, first: tuple, second: str) -> None:
    put(tmp_path, PICTURES)
    columns = [first, SECOND_COLUMNS[second]]
    file = parquet(
        tmp_path,
        {"text": PROMPT} | {name: value for name, _, value in columns},
        **{name: kind for name, kind, _ in columns},
    )
    with pytest.raises(UserError, match=SECOND_COLUMNS[second][0]):
        read_tasks(file)


def test_a_shards_lone_picture_that_was_made_from_another(tmp_path: Path) -> None:
    facts = {"prompt": PROMPT, "edit_image": "r/a.png"}
    shard = pack(tmp_path / "x.tar", {"a.png": PICTURES[TARGET], "a.json": json.dumps(facts).encode()})
    with pytest.raises(UserError, match=r"x.tar, sample a: its json has edit_image"):
        read_tasks(shard)


BESIDE: dict[str, tuple[dict[str, str], dict[str, str]]] = {  # files; each row: its reference, or what is wrong
    "a target without a reference": (
        {"images/a.png": TARGET, "images/a.txt": "a", "images/b.png": "r1.png", "images/b.txt": "b",
         "control/a.png": "r0.png"},
        {"images/a.png": "control/a.png", "images/b.png": "no picture in control has its name"}),
    "captions everywhere": (
        {"images/a.png": TARGET, "images/a.txt": "a", "images/b.png": "r1.png", "images/b.txt": "b",
         "control/a.png": "r0.png", "control/a.txt": "a", "control/c.png": "r1.png", "control/c.txt": "c"},
        {"control/c.png": "no picture next to control has its name", "images/a.png": "control/a.png",
         "images/b.png": "no picture in control has its name"}),
    "no name in common": (
        {"after/y.png": TARGET, "after/y.txt": "y", "before/x.png": "r0.png", "before/x.txt": "x"},
        {"after/y.png": "no picture in before has its name", "before/x.png": "no picture next to before has its name"}),
    "one reference of two targets": (
        {"dog/a.png": TARGET, "dog/a.txt": "a", "cat/a.png": "r1.png", "cat/a.txt": "b", "input/a.png": "r0.png",
         "input/a.txt": "a"},
        {"cat/a.png": "input/a.png", "dog/a.png": "input/a.png"}),
    "numbers of the targets": (
        {"images/a.png": TARGET, "images/a.txt": "a", "images/a_1.png": "r1.png", "images/a_1.txt": "b",
         "source/a.png": "r0.png", "source/a_1.png": "r1.png"},
        {"images/a.png": "source/a.png", "images/a_1.png": "source/a_1.png"}),
    "further down than the references": (
        {"images/x/y/a.png": TARGET, "images/x/y/a.txt": "a", "control/a.png": "r0.png", "control/a.txt": "a"},
        {"control/a.png": "no picture next to control", "images/x/y/a.png": "no picture in control has its name"}),
    "two files of one name": (
        {"images/a.png": TARGET, "images/a.txt": "a", "images/a.jpg": TARGET, "control/a.jpg": "r0.png",
         "control/a.png": "r0.png", "control/a.txt": "a"},
        {"control/a.jpg": "a.png next to it has its name", "images/a.jpg": "a.png next to it has its name",
         "images/a.png": "control/a.png"}),
    "a source by another name": (
        {"product/a.png": "r0.png", "product/a.txt": "a", "output/a.png": TARGET, "output/a.txt": "b",
         "output/b.png": TARGET, "output/b.txt": "b"},
        {"output/a.png": "product next to output has a picture of its name; call that folder control",
         "output/b.png": "output/b.png", "product/a.png": "product/a.png"}),
    "folders in their order": (
        {"1_after/a.png": TARGET, "1_after/a.txt": "b", "0_before/a.png": "r0.png", "0_before/a.txt": "a"},
        {"1_after/a.png": "0_before/a.png"}),
    "a lone folder by such a name": (
        {"source/a.png": TARGET, "source/a.txt": "a", "reg/1_dog/b.png": "r0.png", "reg/1_dog/b.txt": "b"},
        {"source/a.png": "source/a.png"}),
}  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_folders_of_references_beside_their_targets(tmp_path: Path, name: str) -> None:
    files, expected = BESIDE[name]
    rows = scan(folder_of(files)(tmp_path))
    assert [row.id for row in rows] == [picture.rpartition(".")[0] for picture in expected]
    for row, (picture, says) in zip(rows, expected.items(), strict=True):
        if isinstance(row, Fault):
            assert row.message.startswith(f"{tmp_path / picture}: ") and says in row.message
        else:
            assert isinstance(row, Task) and row.references == (tmp_path / says,)
            assert row.target == (None if says == picture else tmp_path / picture)
    targets = sum(
        picture != says for row, (picture, says) in zip(rows, expected.items(), strict=True) if isinstance(row, Task)
    )
    assert (f"{targets} pictures are targets" in " ".join(check_manifest(tmp_path, quick=True).notes)) == bool(targets)
