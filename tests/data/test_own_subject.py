"""From photos to a data set, through the command line."""

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from cgrpo.app.main import main
from cgrpo.data import read_tasks
from cgrpo.data.check import check_manifest


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "my photos"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (40 + number, 30), (90 * number, 0, 0)).save(folder / f"{number}.jpg")
    (folder / "0.txt").write_text("my dog on our sofa")
    (folder / "live.heic").write_bytes(b"")
    return folder


def write(photos: Path, *more: str, out: str = "sets/dog.json") -> tuple[int, Path]:
    file = photos.parent / out
    return main(["data", "prompts", str(photos), "--subject", "dog", "--out", str(file), *more]), file


def test_every_prompt_with_every_photo_and_a_third_of_the_prompts_held_out(photos, capsys):
    code, file = write(photos)
    out = capsys.readouterr().out
    assert code == 0 and "1 captions (.txt) are not used" in out and "live.heic" in out
    train, held = read_tasks(file), read_tasks(file.with_suffix(".heldout.json"))
    assert (len(train), len(held)) == (17 * 3, 8 * 3)
    notes = [*check_manifest(file).notes, *check_manifest(file.with_suffix(".heldout.json")).notes]
    assert notes and not any("all rows show one subject" in note for note in notes)
    assert not {r.prompt for r in train} & {r.prompt for r in held}
    kinds = {kind: {r.meta["prompt_kind"] for r in rows} for kind, rows in (("train", train), ("held", held))}
    assert kinds["train"] == kinds["held"] == {"background", "accessory", "property"}  # a dog's prompts, of all kinds
    assert {(r.subject, r.subject_id, r.target, len(r.references)) for r in train + held} == {("dog", "dog", None, 1)}
    for rows, prompts in ((train, 17), (held, 8)):
        first = rows[:prompts]  # one round: each prompt once, the photos as evenly as can be
        assert len({r.prompt for r in first}) == prompts
        uses = Counter(r.references for r in first)
        assert max(uses.values()) - min(uses.values()) <= 1 and len(uses) == 3
        assert len({(r.prompt, r.references) for r in rows}) == len(rows)
    assert all(path.is_file() for r in train + held for path in r.references)
    assert not Path(json.loads(file.read_text())[0]["references"][0]).is_absolute()


def test_prompts_of_ones_own_several_references_and_a_count(photos, tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("# by hand\n{class} asleep\n\nmy {class} as a stamp\nthe dog at sea\n{class} asleep\n")
    code, file = write(photos, "--prompts", str(mine), "--held-out", "1", "--references", "2", "--count", "3")
    assert code == 0
    train, held = read_tasks(file), read_tasks(file.with_suffix(".heldout.json"))
    assert [r.prompt for r in train] == ["dog asleep", "the dog at sea", "dog asleep"]
    assert {r.prompt for r in held} == {"my dog as a stamp"}
    names = [[path.name for path in r.references] for r in train]
    assert names == [["0.jpg", "1.jpg"], ["1.jpg", "2.jpg"], ["1.jpg", "2.jpg"]]
    assert write(photos, "--kind", "object", "--held-out", "0", out="x.json")[0] == 0
    assert not (tmp_path / "x.heldout.json").exists()
    assert any("wheat field" in r.prompt for r in read_tasks(tmp_path / "x.json"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--held-out", "25"), "25 prompts can't spare 25"),
        (("--references", "4"), "4 references per task"),
        (("--count", "52"), "17 prompts and 3 photos make 51"),
        (("--prompts", "absent.txt"), "absent.txt: no such file"),
        (("--out", "dog.jsonl"), "give it that ending"),
        (("--subject", " "), "--subject"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(photos, capsys, more, says):
    before = sorted(photos.parent.rglob("*"))
    code, _ = write(photos, *more)
    err = capsys.readouterr().err
    assert code == 2 and says in err and err.count("\n") == 1
    assert sorted(photos.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.txt", "a {0} {1} in the jungle\n", "'a {0} {1} in the jungle' has {0}"),  # DreamBooth's own list
        ("p.txt", "a photo of {class_name}\n", "write {class}"),
        ("p.json", '["a dog"]', ".json is no list of prompts"),
        ("p.txt", "a [class] asleep\n", "has [class]"),
        ("p.txt", "a photo of <class>\n", "has <class>"),
        ("p.txt", "a %s asleep\n", "has %s"),
        ("p.txt", "a $class asleep\n", "has $class"),
        ("p.txt", "a {class} --w 768 --h 768 --n bad\n", "has --w 768"),
        ("p.txt", "a {red|blue} {class}\n", "has {red|blue}"),
        ("p.txt", "a {class} and {\n", "has {"),
        ("p.txt", "a photo of sks {class}\n", "has sks"),
    ],
)
def test_prompts_with_another_programs_places_for_the_subject(photos, capsys, name, text, says):
    """They were prompts, braces and all."""
    (photos.parent / name).write_text(text)
    assert write(photos, "--prompts", str(photos.parent / name), "--held-out", "0")[0] == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("word", ["a dog", "The dog", "an  dog"])
def test_an_article_is_not_said_twice(photos, word):
    code, file = write(photos, "--subject", word)
    assert code == 0 and {task.subject for task in read_tasks(file)} == {"dog"}
    assert "a dog in the jungle" in {task.prompt for task in read_tasks(file)} | {
        task.prompt for task in read_tasks(file.with_suffix(".heldout.json"))
    }


def test_prompts_that_do_not_name_the_subject(photos, capsys):
    (photos.parent / "p.txt").write_text("a beach at night\nthe DOG asleep\n{class} at sea\n")
    assert write(photos, "--prompts", str(photos.parent / "p.txt"), "--held-out", "0")[0] == 0
    assert "1 prompts don't name the subject: 'a beach at night'" in capsys.readouterr().out


def test_masks_next_to_photos_are_no_photos(photos, capsys):
    """OneTrainer's and ai-toolkit's; a condition is passed over."""
    for name in ("0-masklabel.png", "1_mask.png", "masks/2.png", "2-condlabel.png"):
        (photos / name).parent.mkdir(exist_ok=True)
        Image.new("L", (40 + int(Path(name).name[0]), 30), 255).save(photos / name)
    code, file = write(photos)
    out = capsys.readouterr().out
    assert code == 0 and "17 prompts x 3 photos" in out
    assert "3 pictures have a mask, as 0-masklabel.png is that of 0.jpg" in out and "2-condlabel.png" in out
    masks = {task.references[0].name: task.masks[0] and task.masks[0].name for task in read_tasks(file)}
    assert masks == {"0.jpg": "0-masklabel.png", "1.jpg": "1_mask.png", "2.jpg": "2.png"}


def test_a_folder_without_photos_or_with_a_broken_one(photos, tmp_path, capsys):
    (photos / "9.png").write_bytes(b"no picture")
    assert write(photos)[0] == 2 and "9.png" in capsys.readouterr().err
    assert write(tmp_path / "absent")[0] == 2 and "absent: no such file" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert write(tmp_path / "empty")[0] == 2 and "holds no photos" in capsys.readouterr().err
