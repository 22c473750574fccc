"""What the README shows, run as a user runs it."""

import runpy
import shlex
from pathlib import Path

import pytest
from PIL import Image

from cgrpo.app.main import app, commands, main
from cgrpo.config import recipes

ROOT = Path(__file__).parents[1]


def test_sample_from_any_picture(tmp_path, capsys):
    Image.new("RGBA", (200, 120), (200, 30, 30, 128)).save(tmp_path / "toy.png")
    Image.new("L", (64, 64), 90).save(tmp_path / "other.jpg")
    prompt = "a small toy on the left in the snow"
    for references in (["toy.png"], ["toy.png", "other.jpg"]):
        out = tmp_path / f"pictures{len(references)}"
        paths = [str(tmp_path / name) for name in references]
        words = ["sample", "--reference", *paths, "--prompt", prompt, "--out", str(out), "--seeds", "2", "--steps", "2"]
        assert main(words) == 0
        assert Image.open(out / "prompt0-seed1.png").size == (32, 32)
        assert (out / "sheet.png").exists()
    assert "does not know" not in capsys.readouterr().err
    corgi = ["--prompt", "a corgi riding a toy", "--seeds", "1", "--steps", "2", "--out", str(tmp_path / "corgi")]
    assert main(["sample", *corgi]) == 0
    assert "does not know corgi, riding; it knows a " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"), [("absent.png", "no such file"), ("*.png", "no such file"), ("", "a folder")]
)
def test_references_are_looked_at_before_the_model_is_loaded(tmp_path, capsys, monkeypatch, name, said):
    monkeypatch.setattr("cgrpo.build.make_policy", lambda *_, **__: pytest.fail("loaded"))
    words = ["--reference", str(tmp_path / name), "--prompt", "a toy"]
    assert main(["sample", *words, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert main(["rewards", "score", str(tmp_path / name), *words]) == 2
    assert said in capsys.readouterr().err


def test_cite_and_help(capsys):
    assert main(["cite"]) == 0
    assert "2510.18263" in capsys.readouterr().out
    assert main([]) == 2


def test_recipes_are_listed_with_a_sentence_each(capsys):
    assert main(["train", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(recipes())
    assert all(line.endswith(".") and not line.endswith("Eq.") and len(line) > 50 for line in lines)


def test_generated_pages_are_fresh():
    pages = runpy.run_path(str(ROOT / "tools" / "generate.py"))
    for name, page in pages["PAGES"].items():
        assert (ROOT / "docs" / name).read_text() == page(), f"run python tools/generate.py: docs/{name} is stale"


def test_every_command_has_an_example_that_it_takes():
    for name, command in commands():
        examples = (command.help_epilogue or "").removeprefix("Examples:\n")
        assert max(map(len, examples.splitlines())) < 80, f"{name}: help would break this line"
        lines = examples.replace("\\\n", " ").splitlines()
        words = [shlex.split(line[line.index("cgrpo ") :])[1:] for line in lines]  # a variable may stand before it
        assert any(some[: len(name.split())] == name.split() for some in words), name
        for some in words:
            app.parse_args(some)
