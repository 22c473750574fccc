"""What a page tells: its commands parse, with recipe and settings; its links lead somewhere; its tables are whole."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgrpo.cli import main, parser
from cgrpo.config import load_config, recipes
from cgrpo.plan import plan

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(p for p in (ROOT / "docs").rglob("*.md") if ".template" not in p.name)])
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """(language, content) of every fenced block."""
    for match in re.finditer(r"^ *```(\w*)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        yield match[1], match[2]


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every cgrpo that a page tells to type, whatever starts it."""
    for language, content in blocks(text):
        if language not in ("", "sh", "bash", "console"):
            continue
        for line in content.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;|\|", line):
                try:
                    words = shlex.split(part, comments=True)
                except ValueError:  # a line of a text, not of a shell
                    continue
                if words[:1] == ["cgrpo"]:
                    yield words[1:]
                elif "-m" in words and words[words.index("-m") + 1 : words.index("-m") + 2] == ["cgrpo"]:
                    yield words[words.index("-m") + 2 :]


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower().strip()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
        if found[slug]:
            found[f"{slug}-{found[slug]}"] = 0
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_parses(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        told = io.StringIO()
        try:
            with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
                options = parser().parse_args(words)
        except SystemExit as stop:
            if stop.code == 0:  # --version, --help
                continue
            pytest.fail(f"cgrpo {shlex.join(words)}: {told.getvalue().strip().splitlines()[-1:]}")
        recipe = getattr(options, "recipe", None) or getattr(options, "path", None) or "toybox"
        if str(recipe) in recipes():
            load_config(str(recipe), getattr(options, "settings", ()))


# What a newcomer reads: a line of code that is wider has to be scrolled.
WALKED = ("start", "concepts", "first-run", "own-photos", "reproduce", "models", "use-it", "rewards", "troubleshooting",
          "cli")  # fmt: skip
READ_THROUGH = ["README.md", *(f"docs/{name}.md" for name in WALKED)]
WIDTH = 97


@pytest.mark.parametrize("page", READ_THROUGH)
def test_code_that_newcomers_read_needs_no_scrolling(page: str) -> None:
    shown = [line for _, content in blocks((ROOT / page).read_text(encoding="utf-8")) for line in content.splitlines()]
    assert not [line for line in shown if len(line) > WIDTH]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_nothing_presumes_a_published_package(page: Path) -> None:
    assert not re.search(r"pip install[^\n`]*customized-grpo", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"https?://", target):
            continue
        place, _, anchor = target.partition("#")
        there = (page.parent / place).resolve() if place else page
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_table_is_whole(page: Path) -> None:
    """A head, a rule, rows as wide as these; a row that stands alone was cut off from its table."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for table in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        rows = [re.sub(r"\\\|", "", row.strip()) for row in table.strip().splitlines()]
        assert len(rows) > 1 and re.fullmatch(r"\|( *:?-+:? *\|)+", rows[1]), f"cut off: {rows[0][:80]}"
        for row in rows:
            assert row.endswith("|") and row.count("|") == rows[0].count("|"), row[:120]


def test_commands_that_cost_nothing_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans: arithmetic."""
    monkeypatch.chdir(tmp_path)
    pages = [ROOT / "docs" / name for name in ("own-photos.md", "reproduce.md")]
    told = {tuple(words) for page in pages for words in commands(page.read_text(encoding="utf-8"))}
    cheap = sorted(words for words in told if words[0] == "plan")
    assert len(cheap) == 2
    for words in cheap:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            assert main(list(words)) == 0, words
        assert said.getvalue()


@pytest.mark.parametrize(
    ("recipe", "gpu", "hours"),
    [
        ("klein-24gb", "rtx-4090-24gb", "18"),
        ("klein-24gb", "rtx-3090-24gb", "43"),
        ("uno-24gb-short", "rtx-4090-24gb", "9"),
        ("uno-24gb", "rtx-4090-24gb", "54"),
        ("uno-24gb-short", "rtx-3090-24gb", "20"),
        ("uno-24gb", "rtx-3090-24gb", "125"),
    ],
)
def test_hours_and_memory_of_one_card_are_the_plans(recipe: str, gpu: str, hours: str) -> None:
    found = plan(load_config(recipe, ["data.cache=encoded", "guard.source=heldout.json"]), gpu=gpu)
    peak = f"{found.memory.peak / 2**30:.1f} GiB"
    assert f"{found.hours:.0f}" == hours
    for name in ("own-photos.md", "hardware.md"):
        rows = [line for line in (ROOT / "docs" / name).read_text().splitlines() if recipe in line and peak in line]
        assert any(re.search(rf"\b{hours}\b", row) for row in rows), (name, recipe, hours, peak)


def test_what_is_checked_is_there() -> None:
    """The readers above find what they are to check."""
    text = "a\n```sh\ncgrpo train --set a=1  # words\ntorchrun -m cgrpo train \\\n  naive\n```\n"
    assert list(commands(text)) == [["train", "--set", "a=1"], ["train", "naive"]]
    assert sum(len(list(commands(page.read_text(encoding="utf-8")))) for page in PAGES) > 100
