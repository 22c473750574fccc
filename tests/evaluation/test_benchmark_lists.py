"""DreamBench's official lists, row for row; names of pictures and subjects, all distinct."""

from __future__ import annotations

import itertools
import json
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.candidates import find_picture, method_candidates, picture_name, slug
from cgrpo.evaluation.benchmark.dreambench import check_photos, official_list, published
from cgrpo.evaluation.benchmark.suite import manifest_suite

DATA = Path(__file__).parents[1] / "data" / "dreambench"
ORDERS = list(itertools.permutations(["a/dog.png", "b/dog.png", "a/dog-2.png", "c/Dog 2.png"]))


def test_the_single_list_is_the_official_one():
    official = json.loads((DATA / "eval_single.json").read_text())
    ours = [
        {
            "id": row.number,
            "subject": row.subject,
            "reference": row.references[0],
            "prompt": row.prompt,
            "prompt_index": row.prompt_index,
        }
        for row in official_list("single")
    ]
    assert len(ours) == 750 and ours == official


def test_the_list_of_pairs_is_the_official_one():
    official = json.loads((DATA / "eval_multi.json").read_text())
    ours = [
        {
            "id": row.number,
            "subjects": list(row.subjects),
            "references": list(row.references),
            "prompt": row.prompt,
            "prompt_index": row.prompt_index,
        }
        for row in official_list("multi")
    ]
    assert len(ours) == 750 and ours == official


def test_some_subjects_keep_their_numbers():
    rows = official_list("single", ["dog"])
    assert [row.number for row in rows] == list(range(250, 275))  # the eleventh subject
    assert rows[10].prompt == "a dog wearing a red hat"
    pairs = official_list("multi", ["cat", "dog", "vase"])
    assert {row.subjects for row in pairs} == {("cat", "dog")} and len(pairs) == 25
    with pytest.raises(UserError, match="no subject 'dog4'"):
        official_list("single", ["dog4"])
    with pytest.raises(UserError, match="no pair"):
        official_list("multi", ["vase"])


def test_names_of_pictures():
    row = official_list("single", ["dog"])[3]
    assert picture_name(row, 3408) == "dog/03_3408"
    assert picture_name(row, 3408, "uno") == "253_1"
    pair = official_list("multi", ["cat", "dog"])[24]
    assert picture_name(pair, 1) == "cat+dog/24_1"
    assert picture_name(row, 3408, "{subject}/{prompt}/{image:03d}.png") == "dog/a dog on a cobblestone street/001"
    assert picture_name(row, 3408, "{slug}-{seed}") == "a_dog_on_a_cobblestone_street-3408"
    assert picture_name(pair, 3407, "{word} {index}/{image}.v2") == "cat and dog 24/0.v2"


@pytest.mark.parametrize(
    "layout", ["flat", "{subject}/{row}", "{seed}", "{row}_{image}_{size}", "{row", "{row.__class__}{seed}"]
)
def test_a_layout_that_names_no_picture_is_refused(layout):
    with pytest.raises(UserError, match=r"--layout .*give rows, uno, or a template of subject, word"):
        picture_name(official_list("single", ["dog"])[3], 3407, layout)


def test_kinds_of_subjects_and_groups_of_prompts():
    rows = official_list("single", ["can", "cat"])
    assert {(row.subject, row.subject_kind) for row in rows} == {("can", "object"), ("cat", "live")}
    groups = [[row.prompt_kind for row in rows if row.subject == name] for name in ("can", "cat")]
    assert groups == [["background"] * 10 + [name] * 10 + ["property"] * 5 for name in ("context", "accessory")]
    asked = [row.prompt for row in rows if row.prompt_kind == "property"]
    assert asked[:5] == ["a red can", "a purple can", "a shiny can", "a wet can", "a cube shaped can"]
    kinds = {
        (len({published()["subjects"][s]["live"] for s in row.subjects}), row.subject_kind)
        for row in official_list("multi")
    }
    assert kinds == {(1, "object"), (1, "live"), (2, "mixed")}


def test_photographs_are_told_apart(tmp_path, monkeypatch):
    """Only hashes count: three files whose SHA-256 is known by hand stand for DreamBench's."""
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    listed = {"02.jpg": [empty, abc], "00.jpg": [abc, empty], "01.jpg": ["", ""]}
    monkeypatch.setitem(published()["subjects"]["dog"], "photographs", listed)
    (tmp_path / "dog").mkdir()
    with pytest.raises(UserError, match="02.jpg: no such photo"):
        check_photos(tmp_path, ["dog"])
    (tmp_path / "dog" / "02.jpg").write_bytes(b"")
    (tmp_path / "dog" / "00.jpg").write_bytes(b"abc")
    told = check_photos(tmp_path, ["dog"])
    assert told == {"kind": "originals", "originals": 2, "copies": 0, "unknown": [], "missing": ["dog/01.jpg"]}
    (tmp_path / "dog" / "00.jpg").write_bytes(b"")
    (tmp_path / "dog" / "01.jpg").write_bytes(b"x")
    told = check_photos(tmp_path, ["dog"])
    assert told == {"kind": "mixed", "originals": 1, "copies": 1, "unknown": ["dog/01.jpg"], "missing": []}


def test_every_photograph_has_two_hashes():
    tables = [subject["photographs"] for subject in published()["subjects"].values()]
    hashes = [value for table in tables for pair in table.values() for value in pair]
    assert sum(map(len, tables)) == 158 and len(set(hashes)) == 316 and {len(value) for value in hashes} == {64}
    assert all(subject["reference"] in subject["photographs"] for subject in published()["subjects"].values())


def manifest(folder: Path, rows: list[tuple[str, str]]) -> Path:
    """(reference, prompt) a row."""
    for name, _ in rows:
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)
    (folder / "m.json").write_text(json.dumps([{"prompt": text, "references": [name]} for name, text in rows]))
    return folder / "m.json"


@pytest.mark.parametrize("names", ORDERS[::3])
def test_subjects_of_like_names(tmp_path: Path, names) -> None:
    suite = manifest_suite(manifest(tmp_path, [(name, "in the snow") for name in names]))
    assert len({row.subject for row in suite.rows}) == len(names)
    for row, name in zip(suite.rows, names, strict=True):
        assert row.references == suite.photos[row.subject] == (str(tmp_path / name),)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A dog, on a cobblestone street!", "a_dog_on_a_cobblestone_street"),
        ("雪地里的小狗", "雪地里的小狗"),
        ("ein Bär über dem Fluß", "ein_bär_über_dem_fluß"),
        ("Ein Ba\u0308r", "ein_bär"),
        ("कुत्ता बर्फ में", "कुत्ता_बर्फ_में"),
        ("собака — в снегу", "собака_в_снегу"),
        ("«!?»", ""),
    ],
)
def test_slugs_keep_the_letters_of_all_scripts(text: str, found: str) -> None:
    assert slug(text) == found


def test_prompts_with_one_picture_are_refused_before_anything_is_scored(tmp_path: Path) -> None:
    texts = ["一只狗在雪地里", "一只狗在海滩上"]
    suite = manifest_suite(manifest(tmp_path, [("dog.png", text) for text in texts]))
    folder = tmp_path / "made"
    names = [picture_name(row, 7, "{subject}/{slug}_{seed}") for row in suite.rows]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    items = method_candidates("theirs", folder, suite, 1, 7, "{subject}/{slug}_{seed}")
    assert [item.files[0].name for item in items] == [f"{text}_7.png" for text in texts]
    suite = manifest_suite(manifest(tmp_path, [("dog.png", "a dog!"), ("dog.png", "a dog, ..."), ("dog.png", "a cat")]))
    with pytest.raises(UserError, match=r"0 \(dog: 'a dog!'\) and 1 \(dog: 'a dog, ...'\) have one picture"):
        method_candidates("theirs", folder, suite, 1, 7, "{subject}/{slug}_{seed}")


def test_names_that_no_file_has(tmp_path: Path) -> None:
    long = "x" * 500
    assert find_picture(tmp_path, long) == f"{long}.png"
    for ending in (".PNG", ".JPG", ".jfif", ".Webp", ".tif"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"a{ending.lower()}")
        (tmp_path / f"a{ending.lower()}").rename(tmp_path / f"03{ending}")
        assert find_picture(tmp_path, "03") == f"03{ending}"
        (tmp_path / f"03{ending}").unlink()


def test_pictures_of_a_method_as_they_are_called(tmp_path: Path) -> None:
    """Endings in any case, accents as characters of their own; one name twice is refused."""
    nfd = unicodedata.normalize("NFD", "é_0")
    for name in ("0_0.WebP", f"{nfd}.jpg", "1_0.png", "1_0.jpg"):
        (tmp_path / name).write_bytes(b"")
    assert [find_picture(tmp_path, name) for name in ("0_0", "é_0", "2_0")] == ["0_0.WebP", f"{nfd}.jpg", "2_0.png"]
    with pytest.raises(UserError, match=r"1_0.png and 1_0.jpg are both there"):
        find_picture(tmp_path, "1_0")
