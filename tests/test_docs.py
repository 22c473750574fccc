"""What a page says: commands parse, with recipe and settings; names are there; tables are whole; pictures are shown.

That links and anchors inside docs/ lead somewhere is what `zensical build --strict` checks.
"""

from __future__ import annotations

import json
import re
import shlex
import textwrap
import tomllib
from functools import cache
from pathlib import Path

import pytest
from cyclopts import CycloptsError
from support.command_line import arguments, parse
from support.pages import blocks, commands

import cgrpo
from cgrpo.app.main import app
from cgrpo.app.main import commands as every_command
from cgrpo.config import load_config, recipes
from cgrpo.section import TOYBOX_POLICIES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE))


def targets(page: Path) -> set[Path]:
    """The files that a page links to or shows."""
    found = re.findall(r"\]\(([^)\s#]+)[^)\s]*\)", without_code(page.read_text(encoding="utf-8")))
    return {(page.parent / target).resolve() for target in found if "://" not in target}


def check(words: list[str], *, recipes_known: bool = True) -> None:
    """That a command line parses, with the recipe and the settings that it names."""
    try:
        options = parse(words)
    except CycloptsError as error:
        pytest.fail(f"cgrpo {shlex.join(words)}: {error}")
    recipe = getattr(options, "recipe", None) or getattr(options, "path", None) or "toybox"
    if recipes_known and str(recipe) in recipes():
        load_config(str(recipe), getattr(options, "settings", ()))


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_parses(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        check(words, recipes_known=page.stem != "extending")  # whose names no package here has


def test_every_example_of_help_parses() -> None:
    for _, command in every_command():
        examples = (command.help_epilogue or "").removeprefix("Examples:\n")
        for words in commands(f"```\n{examples}\n```\n"):
            check(words)


# What a newcomer reads: a line of code that is wider has to be scrolled.
READ_THROUGH = ["README.md", *(page for page in IDS if page.startswith(("docs/start/", "docs/guides/")))]
WIDTH = 97


@pytest.mark.parametrize("page", READ_THROUGH)
def test_code_that_newcomers_read_needs_no_scrolling(page: str) -> None:
    shown = [line for _, content in blocks((ROOT / page).read_text(encoding="utf-8")) for line in content.splitlines()]
    assert not [line for line in shown if len(line) > WIDTH]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_nothing_presumes_a_published_package(page: Path) -> None:
    assert not re.search(r"pip install[^\n`]*customized-grpo", page.read_text(encoding="utf-8"))


def test_links_stay_on_the_site() -> None:
    """A page of docs/ links to docs/ alone; what README.md links to is there."""
    assert not [(page, target) for page in PAGES for target in targets(page) if not target.exists()]
    assert not [(page, target) for page in PAGES[1:] for target in targets(page) if DOCS not in target.parents]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_table_is_whole(page: Path) -> None:
    """A head, a rule, rows as wide as these; a row that stands alone was cut off from its table."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for table in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        rows = [re.sub(r"\\\|", "", row.strip()) for row in table.strip().splitlines()]
        assert len(rows) > 1 and re.fullmatch(r"\|( *:?-+:? *\|)+", rows[1]), f"cut off: {rows[0][:80]}"
        for row in rows:
            assert row.endswith("|") and row.count("|") == rows[0].count("|"), row[:120]


def spans(text: str) -> list[str]:
    """What stands between backquotes in a page's sentences and tables."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE))


OTHERS = ("torchrun ", "pip ", "hf ", "tensorboard ")  # programs with options of their own
ROWS = re.compile(r"^\| `([a-z_.0-9A-Z]+)` \|", re.MULTILINE)
SETTINGS = set(ROWS.findall((DOCS / "reference" / "config.md").read_text()))
SETTINGS |= {f"rewards.NAME.{key}" for key in ROWS.findall((DOCS / "reference" / "rewards.md").read_text())}
NO_SETTINGS = {
    "guard.jsonl",
    "weights.set",
    "training.seed.x",
}  # a file, a key of a json, a mistake that a page tells of


TABLES = "|".join(sorted({key.partition(".")[0] for key in SETTINGS if "." in key}))
ROOMS = "|".join(path.name for path in (ROOT / "src" / "cgrpo").iterdir() if path.is_dir())


@cache
def options() -> set[str]:
    """Of cgrpo and of what is in benchmarks/."""
    scripts = [file.read_text(encoding="utf-8") for file in (ROOT / "benchmarks").glob("*.*")]
    ours = {name for argument in arguments().values() for name in argument.names} | {"--help", "--version"}
    return ours.union(*(re.findall(r"--[a-z][a-z-]+", script) for script in scripts))


def amiss(span: str) -> list[str]:
    """Options, settings, files of the repository and commands that a span of code names, and that are not there."""
    found = [] if span.startswith(OTHERS) else sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", span)) - options())
    for key in re.findall(rf"(?<![\w./-])(?:{TABLES})\.[A-Za-z_][A-Za-z_.0-9]*", span):
        named = re.sub(r"^(rewards|weights\.others|guard\.scorers)\.\w+", r"\1.NAME", key).removesuffix(".NAME")
        table = any(other.startswith(f"{named}.") for other in SETTINGS)
        found += [] if table or named in SETTINGS | NO_SETTINGS else [key]
    files = re.findall(r"(?<![\w./-])(?:tests|benchmarks|runs|examples|tools|results|docs|src)/[\w./-]*\w", span)
    found += [file for file in files if not (ROOT / file).exists() and "NAME" not in file]
    files = re.findall(rf"(?<![\w./-])(?:{ROOMS})/[\w/]+\.py", span)
    found += [file for file in files if not any((top / file).exists() for top in (ROOT, ROOT / "src" / "cgrpo"))]
    if span.startswith("cgrpo "):
        words = [word for word in span.split()[1:3] if re.fullmatch(r"[a-z]+", word)]
        _, (*_, command), others = app.parse_commands(words)
        found += [span] if others and command.default_command is None else []
    return found


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_what_a_sentence_names_is_there(page: Path) -> None:
    assert not [(span, found) for span in spans(page.read_text(encoding="utf-8")) if (found := amiss(span))]


def test_what_is_not_there_is_found() -> None:
    wrong = "`--gold`, `training.clop`, `weights.x`, `policies/gone.py`, `runs/no.sh`, `cgrpo gone`, `cgrpo data no`"
    assert all(map(amiss, spans(wrong))) and len(spans(wrong)) == 7
    assert not any(map(amiss, ("--set rewards.identity.masks=none", "cgrpo data check RECIPE", "policies/base.py")))


def test_every_page_is_in_the_navigation() -> None:
    """Of the site, and of docs/README.md, which is the index on GitHub; and every picture is on a page."""
    (_, *rooms) = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    named = {DOCS / name for room in rooms for pages in room.values() for page in pages for name in page.values()}
    assert named == {page for page in PAGES if DOCS in page.parents} - {INDEX} == targets(INDEX)
    assert INDEX in targets(ROOT / "README.md")
    assert set(DOCS.rglob("*.png")) == {path for page in PAGES for path in targets(page) if path.suffix == ".png"}


def test_every_recipe_of_a_real_model_is_told_of() -> None:
    """Under its model, in docs/reference/models.md."""
    (row,) = [
        line for line in (DOCS / "reference" / "models.md").read_text().splitlines() if line.startswith("| recipes")
    ]
    real = {name for name in recipes() if load_config(name).policy.path not in TOYBOX_POLICIES}
    assert set(re.findall(r"`([^`]+)`", row)) == real


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_code_that_is_no_command_is_whole(page: Path) -> None:
    """Python and TOML parse, JSON too; what is taken from ``cgrpo`` is there."""
    for language, content in blocks(page.read_text(encoding="utf-8")):
        if language == "python":
            compile(textwrap.dedent(content), str(page), "exec")
            for name in re.findall(r"\bcgrpo\.([A-Za-z]\w*)", content):
                assert name in cgrpo.__all__ or any((ROOT / "src" / "cgrpo").glob(f"{name}*")), name
        elif language == "toml":
            tomllib.loads(content)
        elif language == "json":
            json.loads(content)


def test_what_is_checked_is_there() -> None:
    """The readers above find what they are to check."""
    text = "a\n```sh\ncgrpo train --set a=1  # words\ntorchrun -m cgrpo train \\\n  naive\n```\n"
    assert list(commands(text)) == [["train", "--set", "a=1"], ["train", "naive"]]
    assert sum(len(list(commands(page.read_text(encoding="utf-8")))) for page in PAGES) > 70
