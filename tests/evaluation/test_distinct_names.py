"""Distinct subjects and prompts stay distinct, whatever they are called."""

from __future__ import annotations

import itertools
import json
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark import manifest_suite, method_candidates, picture_name
from cgrpo.evaluation.benchmark.candidates import find_picture, slug

ORDERS = list(itertools.permutations(["a/dog.png", "b/dog.png", "a/dog-2.png", "c/Dog 2.png"]))


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
