"""The check finds every planted fault, and nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.datasets import encoded, pack, scene, write_rows

from cgrpo.data import check_manifest
from cgrpo.data.report import CheckReport
from cgrpo.data.suspicion import alike, chatter, placeholder, thumbnail

MINI = Path(__file__).parent / "syncd_mini"


def scaled(picture: Image.Image, factor: float) -> Image.Image:
    """Brighter or darker."""
    levels = np.asarray(picture, dtype=np.float32) * factor
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def check(folder: Path, rows: list) -> CheckReport:
    return check_manifest(write_rows(folder / "m.json", *rows), workers=2)


def kinds(report: CheckReport) -> list[tuple[str, str]]:
    return [(problem.id, problem.kind) for problem in report.problems]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for seed in range(4):
        scene(seed).save(tmp_path / f"{seed}.png")
    scene(0).resize((48, 48)).save(tmp_path / "near.jpg", quality=60)
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    (tmp_path / "cut.png").write_bytes((tmp_path / "1.png").read_bytes()[:-2000])
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


def row(name: str, reference: str, prompt: str | None = None, **more: object) -> dict:
    return {"id": name, "prompt": prompt or f"a toy called {name}", "references": [reference], **more}


ROWS = [
    row("fine", "0.png", target="1.png"),
    row("shares a reference by design", "0.png", target="2.png"),
    row("copy", "copy.png"),
    row("near", "near.jpg"),
    row("missing", "absent.png"),
    row("cut", "cut.png"),
    row("text", "3.png", target="text.png"),
    row("chatter", "3.png", "let me know if you need any further assistance!"),
    {"id": "empty", "prompt": "", "references": ["0.png"]},
    row("fine", "3.png"),
    row("again", "0.png", "A toy  called FINE", target="1.png"),
    row("copies its reference", "2.png", target="copy2.png"),
]


def test_every_fault_is_found_by_id(pictures: Path) -> None:
    scaled(scene(2), 1.03).save(pictures / "copy2.png")
    report = check(pictures, ROWS)
    assert kinds(report) == [
        ("copy", "duplicate"),
        ("near", "near-duplicate"),
        ("missing", "missing"),
        ("cut", "broken"),
        ("text", "broken"),
        ("chatter", "chatter"),
        ("empty", "row"),
        ("fine", "duplicate"),
        ("again", "duplicate"),
        ("copies its reference", "near-duplicate"),
    ]
    assert (report.rows, report.pictures) == (12, 10)
    assert report.counts == {
        "row": 1, "missing": 1, "broken": 2, "duplicate": 3, "near-duplicate": 2, "chatter": 1, "mask": 0
    }  # fmt: skip
    assert all("\n" not in problem.message for problem in report.problems)
    assert "near.jpg looks like task fine's reference" in report.problems[1].message
    assert json.loads(json.dumps(report.as_dict()))["problems"][2]["row"] == 4


def test_quick_decodes_nothing(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(content: bytes, name: Path) -> Image.Image:
        raise AssertionError(name)

    monkeypatch.setattr("cgrpo.data.check.read_picture", read)

    report = check_manifest(write_rows(pictures / "m.json", *ROWS[:7]), quick=True)
    assert kinds(report) == [("copy", "duplicate"), ("missing", "missing"), ("text", "broken")]


def test_a_clean_set_has_no_problems(pictures: Path) -> None:
    rows = [row("a", "0.png", target="1.png", masks=["m.png"]), row("b", "2.png", target="3.png", masks=["n.png"])]
    for name in ("m.png", "n.png"):  # equal masks are nobody's fault
        mask = Image.new("L", (64, 64))
        mask.paste(255, (16, 16, 48, 48))
        mask.save(pictures / name)
    assert check(pictures, rows).problems == ()


def test_masks_and_members_of_archives_are_checked(tmp_path: Path) -> None:
    pack(tmp_path / "a.zip", {"0.png": (MINI / "release/0/0.png").read_bytes(), "bad.png": b"?"})
    rows = [row("a", "a.zip!/0.png", masks=["a.zip!/bad.png"]), row("b", "a.zip!/1.png")]
    report = check(tmp_path, rows)
    assert kinds(report) == [("a", "broken"), ("b", "missing")]
    assert "mask" in report.problems[0].message and "a.zip!/bad.png" in report.problems[0].message


def test_a_picture_at_fault_counts_against_all_its_rows(tmp_path: Path) -> None:
    assert kinds(check(tmp_path, [row("a", "x.png"), row("b", "x.png")])) == [("a", "missing"), ("b", "missing")]


def test_syncd_as_it_is() -> None:
    """Its two planted cases; the pair that is too near is one object's own."""
    report = check_manifest(MINI / "release")
    assert kinds(report) == [("1", "near-duplicate"), ("2", "chatter")]
    assert "looks like its own reference" in report.problems[0].message


def test_what_looks_alike() -> None:
    picture = scene(0)
    small_red = picture.copy()
    small_red.paste((255, 0, 0), (20, 20, 28, 28))
    others = [
        picture.resize((300, 200)),
        scaled(picture, 15 / 16),
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        Image.merge("RGB", picture.split()[::-1]),
        small_red,
        scene(1),
    ]
    looks = [thumbnail(picture), *(thumbnail(other) for other in others)]
    assert [later for later, earlier in alike(looks) if earlier == 0] == [1, 2]
    assert list(alike([])) == []


CHATTER = [
    "let me know if you need any further assistance!",
    "Let me know if you\u2019d like any changes.",
    "feel free to modify these as needed.",
    "I hope this helps!",
    "Sure, here are 10 captions for the red mug:",
    "Here are a few background descriptions:",
    "here's an example prompt",
    "i'm sorry, but i can't help with that.",
    "I cannot create such a picture.",
    "As an AI language model, I do not see pictures.",
    "please provide more details.",
    "Note: each is under ten words.",
    "would you like me to continue?",
    "is there anything else you need?",
    "these prompts show the mug in many places.",
    "assistant: a red mug",
    "...",
]
CAPTIONS = [
    "a red mug with a yellow stripe on a wooden table.",
    "an ok sign painted on a wall, beside a note: 'sure'",
    "a note pinned on a board that says let it be",
    "a captioned photograph of a dog helping a child",
    "a great white shark in the sea",
    "a robot assistant here on earth",
    "the certain death of a vampire, sure to scare",
    "a friend in need of assistance near a help desk",
    "a sloth plushie you would love",
    "I am a wolf plushie",
    "can the teapot be blue?",
    "'a puffin on a rock",
]


def test_pictures_of_one_colour_and_of_other_colours_are_noted(tmp_path: Path) -> None:
    """They are no problem of a row, and rarely meant."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("L", (8, 8), 9).save(tmp_path / "mask.png")
    wide = encoded(scene(0))
    place = wide.index(b"IDAT") - 4
    (tmp_path / "wide.png").write_bytes(wide[:place] + b"\0\0\0\4gAMA\0\1\x86\xa0\x31\xe8\x96\x5f" + wide[place:])
    names = ("red", "clear", "wide")
    report = check(tmp_path, [row(name, f"{name}.png", masks=["mask.png"]) for name in names])
    notes = [note for note in report.notes if "pictures" in note]
    assert [note.split(",")[0] for note in notes] == [
        "2 pictures are of one colour", "1 pictures say in another way than an ICC profile that they are not sRGB (cICP"
    ]  # fmt: skip
    assert "red.png" in notes[0] and "wide.png" in notes[1]


PLACEHOLDERS = [
    "[trigger] on a beach", "{trigger} at sea", "%TRIGGER% at sea", "a {red|blue} toy", "<lora:toy:1> a toy",
    "a [class]",
    "a <class>", "a %s toy", "a $class", "${class} x", "a toy --w 768 --h 768 --n bad", "a toy --ar 16:9", "(toy:1.2)",
    "a toy BREAK a dog", "__colour__ toy", "{{x}} toy", "a photo of sks dog", "TOK dog", "<token> dog", "a [V] dog",
    "<s1> x", "a photo of S*", "{0} in the jungle", "<|image_1|> at sea", "a toy, --no text",
]  # fmt: skip
PLAIN = [
    "a dog on a beach", "50% off", "100%", "i <3 you", "price $5", "a dog -- happy", "a (small) toy", "the ratio 3:4",
    "a toy (2019)", "snake_case", "a--b", "at 10:30", "x < y > z", "R&D", "a toy with a task",
    "a broken BREAKFAST table",
]  # fmt: skip


def test_placeholders_are_told_from_words(pictures: Path) -> None:
    assert not [prompt for prompt in PLACEHOLDERS if placeholder(prompt) is None]
    assert not [prompt for prompt in PLAIN if placeholder(prompt) is not None]
    prompts = [*PLAIN, "a toy at sea", *PLACEHOLDERS[:2]]
    report = check(pictures, [row(f"r{n}", "0.png", text, subject="toy") for n, text in enumerate(prompts)])
    notes = " ".join(report.notes)
    assert (
        f"2 prompts hold what another program would replace, and the model reads it as words, the first of them r{len(PLAIN) + 1}"  # noqa: E501
        in notes
    )
    assert "[trigger], {trigger}" in notes and "prompts don't name their subject, the first of them r0: toy" in notes


@pytest.mark.parametrize("prompt", CHATTER)
def test_chatter(prompt: str) -> None:
    assert chatter(prompt) is not None


@pytest.mark.parametrize("prompt", CAPTIONS)
def test_captions(prompt: str) -> None:
    assert chatter(prompt) is None
