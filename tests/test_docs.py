"""What a page says: commands parse, with recipe and settings; names are there; tables are whole; pictures are shown.

That links and anchors inside docs/ lead somewhere is what `zensical build --strict` checks.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from cyclopts import CycloptsError
from support.command_line import arguments, parse

import cgrpo
from cgrpo.app.main import app, main
from cgrpo.config import load_config, recipes
from cgrpo.plan import plan
from cgrpo.section import TOYBOX_POLICIES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
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


def targets(page: Path) -> set[Path]:
    """The files that a page links to or shows."""
    found = re.findall(r"\]\(([^)\s#]+)[^)\s]*\)", without_code(page.read_text(encoding="utf-8")))
    return {(page.parent / target).resolve() for target in found if "://" not in target}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_parses(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        try:
            options = parse(words)
        except CycloptsError as error:
            pytest.fail(f"cgrpo {shlex.join(words)}: {error}")
        recipe = getattr(options, "recipe", None) or getattr(options, "path", None) or "toybox"
        if str(recipe) in recipes() and page.stem != "extending":  # whose names no package here has
            load_config(str(recipe), getattr(options, "settings", ()))


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


def test_commands_that_cost_nothing_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans: arithmetic."""
    monkeypatch.chdir(tmp_path)
    pages = [DOCS / "guides" / name for name in ("own-photos.md", "reproduce.md")]
    told = {tuple(words) for page in pages for words in commands(page.read_text(encoding="utf-8"))}
    cheap = sorted(words for words in told if words[0] == "plan")
    assert len(cheap) == 2
    for words in cheap:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            assert main(list(words)) == 0, words
        assert said.getvalue()


ONE_CARD = ["data.cache=encoded", "guard.source=heldout.json"]
AT_ONCE = ["policy.offload=true", "policy.checkpointing=off", "training.micro_batch=1"]  # as in runs/train.sh
RUNS = {
    "`runs/train.sh klein-24gb 1` (2 prompts an iteration, CLIP for HPSv3)": ("klein-24gb", []),
    "the same, no guidance while training": ("klein-24gb", ["policy.guidance=1", "policy.evaluation_guidance=4"]),
    "`runs/train.sh uno-24gb 1` (UNO in 8 bits, 2 prompts, CLIP for HPSv3)": ("uno-24gb", []),
    "`runs/train.sh uno-24gb-short 1`": ("uno-24gb-short", []),
    "`runs/train.sh klein 1` (8 prompts)": ("klein", AT_ONCE),
    "`runs/train.sh klein 8` (8 prompts)": ("klein", []),
    "recipe `klein-forward` (32 prompts)": ("klein-forward", []),
    "`runs/train.sh uno-dinoseg-hpsv3 1` (UNO, 8 prompts)": ("uno-dinoseg-hpsv3", AT_ONCE),
    "`runs/train.sh uno-dinoseg-hpsv3 8` (UNO, 8 prompts)": ("uno-dinoseg-hpsv3", []),
}
CARDS = [("rtx-3090-24gb", 1), ("rtx-4090-24gb", 1), ("h100-80gb", 1), ("a100-80gb", 8), ("h100-80gb", 8)]


def test_hours_and_memory_are_the_plans() -> None:
    """docs/guides/hardware.md's table by its columns, and the hours of one card in docs/guides/own-photos.md."""
    hardware, photos = ((DOCS / "guides" / name).read_text() for name in ("hardware.md", "own-photos.md"))
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in hardware.splitlines() if "GiB |" in line]
    assert [row[0] for row in table] == list(RUNS)
    for name, iterations, peak, *hours in table:
        recipe, settings = RUNS[name]
        cfg = load_config(recipe, [*ONE_CARD, *settings])
        found = [plan(cfg, gpu=gpu, gpus=count) for told, (gpu, count) in zip(hours, CARDS, strict=True) if told]
        assert found and all(each.fits for each in found), name
        assert iterations == f"{cfg.training.iterations:,}", name
        assert [f"{each.hours:.0f} h" for each in found] == [told for told in hours if told], name
        assert peak == f"{max(each.memory.peak for each in found) / 2**30:.1f} GiB", name
        rows = [line for line in photos.splitlines() if f"`{recipe}`" in line and "hours |" in line]
        if rows and not settings:
            for each in found[:2]:  # a 3090, a 4090
                assert any(re.search(rf"\b{each.hours:.0f}\b", row) and peak in row for row in rows), (name, each.hours)


def test_checkpoints_are_as_large_as_told() -> None:
    """Adapter and both moments of AdamW, four bytes each."""
    told = " ".join((DOCS / "guides" / "hardware.md").read_text().split())
    sizes = {"uno-dinoseg-hpsv3": "at rank 512", "klein-24gb": "for `klein-24gb`", "uno-24gb": "for `uno-24gb`"}
    for recipe, words in sizes.items():
        assert f"{3 * 4 * plan(load_config(recipe), gpu='a100-80gb').trained / 2**30:.1f} GiB {words}" in told, recipe


def test_the_plan_shown_is_what_the_command_prints() -> None:
    (shown,) = [text for _, text in blocks((DOCS / "guides" / "hardware.md").read_text()) if text.startswith("Fits:")]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["plan", "uno-dinoseg-hpsv3", "--gpus", "8", "--set", "data.cache=encoded"]) == 0
    assert said.getvalue().startswith(shown)


def test_what_is_checked_is_there() -> None:
    """The readers above find what they are to check."""
    text = "a\n```sh\ncgrpo train --set a=1  # words\ntorchrun -m cgrpo train \\\n  naive\n```\n"
    assert list(commands(text)) == [["train", "--set", "a=1"], ["train", "naive"]]
    assert sum(len(list(commands(page.read_text(encoding="utf-8")))) for page in PAGES) > 100
