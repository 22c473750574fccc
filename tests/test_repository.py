"""The repository keeps its promises: light imports, parsed recipes, one version, complete package data, small files."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tomllib
from importlib import metadata, resources
from pathlib import Path

import pytest

import cgrpo
from cgrpo.app.main import main
from cgrpo.config import load_config, recipes
from cgrpo.files import json_text
from cgrpo.policies.family import POLICIES

ROOT = Path(__file__).parents[1]
TEST_COMMAND = "pip install -c constraints.txt '.[dev]' && pytest"
HEAVY = ("torch", "numpy", "PIL", "diffusers", "transformers", "peft", "accelerate", "scipy", "matplotlib")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def heavy_modules_after(code: str, folder: Path) -> str:
    """The heavy modules that a fresh interpreter has loaded after ``code``, and what the code printed."""
    report = f"\nimport sys\nprint('loaded:', *sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code + report], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_recipes() -> None:
    assert "toybox" in recipes()


@pytest.mark.parametrize("name", recipes())
def test_recipe_parses(name: str) -> None:
    load_config(name)


def test_configuration_is_light(tmp_path: Path) -> None:
    code = """
import cgrpo, cgrpo.config, cgrpo.types, cgrpo.errors
from cgrpo.rewards import REWARDS
cgrpo.load_config()
[REWARDS.load(name) for name in REWARDS.names()]
"""
    assert heavy_modules_after(code, tmp_path) == "loaded:\n"


def test_asking_people_needs_no_model_library(tmp_path: Path) -> None:
    """Not by whatever it imports either: a study may be served where there is no torch."""
    package = Path(str(resources.files("cgrpo")))
    files = sorted((package / "study").rglob("*.py"))
    names = [".".join(file.relative_to(package.parent).with_suffix("").parts) for file in files]
    code = f"import {', '.join(name.removesuffix('.__init__') for name in [*names, 'cgrpo.app.study'])}"
    loaded = set(heavy_modules_after(code, tmp_path).split())
    assert "numpy" in loaded and not loaded & {"torch", "diffusers", "transformers", "peft", "accelerate"}


def test_help_is_light(tmp_path: Path) -> None:
    """Through the installed command's entry point."""
    code = """
from importlib.metadata import entry_points
(command,) = entry_points(group="console_scripts", name="cgrpo")
assert command.load()(["--help"]) == 0
"""
    printed = heavy_modules_after(code, tmp_path)
    assert printed.startswith("Usage: cgrpo") and "train" in printed
    assert printed.endswith("\nloaded:\n")


def test_one_version() -> None:
    (cited,) = re.findall(r"^version: (\S+)$", read("CITATION.cff"), re.MULTILINE)
    declared = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert cgrpo.__version__ == declared == cited == metadata.version("customized-grpo")


def test_the_citation_is_what_cite_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cite"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    paper = " ".join(read("CITATION.cff").partition("references:")[2].split())
    names = re.findall(r"given-names: (\S+) family-names: (\S+)", paper)
    authors = [f"{family}, {given}" for given, family in names]
    assert f"author = {{{' and '.join(authors)}}}" in printed
    for key in ("title", "booktitle", "year"):
        (value,) = re.findall(rf" {key} = {{(.*?)}}", printed)
        assert value in paper, value
    assert re.findall(r"arXiv:[\d.]+", printed)[0] in paper


def test_the_source_distribution_has_what_the_tests_read() -> None:
    """All that git tracks at the top; hatchling adds pyproject.toml, README, LICENSE and .gitignore itself."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    included = tomllib.loads(read("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    added = {"pyproject.toml", "README.md", "LICENSE", ".gitignore"}
    assert {f"/{file.partition('/')[0]}" for file in files} - {f"/{name}" for name in added} == set(included)


def test_readme_and_ci_run_the_same_command() -> None:
    assert TEST_COMMAND in read("README.md")
    assert TEST_COMMAND in read(".ci/run")


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras["dev"] + extras["docs"]
    names = {re.split(r"[^\w-]", requirement)[0] for requirement in wanted}
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", read("constraints.txt"), re.MULTILINE))
    assert names <= {name.lower().replace("_", "-") for name in pins}
    assert pins["torch"] == "2.13.0"  # no local version: fits any build


def test_package_data() -> None:
    package = Path(str(resources.files("cgrpo")))
    pages = package / "evaluation"
    assert {".j2", ".css", ".js"} <= {path.suffix for path in pages.rglob("*")}
    study = package / "study" / "app"
    assert {".j2", ".css", ".js"} <= {path.suffix for path in study.rglob("*")}
    assets = package / "toybox" / "assets"
    for name in ("policy", "segmenter", "dino", "clip", "reader"):
        files = [path for path in (assets / name).rglob("*") if path.is_file()]
        assert {".json", ".safetensors"} <= {path.suffix for path in files}, name
    assert sum(path.stat().st_size for path in assets.rglob("*") if path.is_file()) <= 25e6


def test_files_stay_readable() -> None:
    files = (ROOT / "src").rglob("*.py")
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert lengths
    assert not {path: lines for path, lines in lengths.items() if lines > 300}


def test_top_level_names_are_the_algorithms_own() -> None:
    import cgrpo.algorithm

    for name in cgrpo.__all__:
        assert getattr(cgrpo, name) is not None
    functions = {name for name in cgrpo.algorithm.__all__ if name[0].islower()}
    assert functions <= set(cgrpo.__all__)
    assert all(getattr(cgrpo, name) is getattr(cgrpo.algorithm, name) for name in functions)


USER = """
from pathlib import Path
import cgrpo

cfg = cgrpo.load_config("naive", ["training.iterations=3"])
run: Path = cgrpo.train(cfg, Path("outputs/mine"))
outcome = cgrpo.evaluate_toybox(cgrpo.EvaluationRequest(run, out=Path("scores")), subjects=4)
failed: int = outcome.failed
methods: set[str] = {row.method for row in cgrpo.read_scores(Path("scores"))}
wrong: str = cgrpo.train(cfg)
"""


def test_the_package_is_typed(tmp_path: Path) -> None:
    """Its stub has the names that are loaded on first use, and a type checker knows what they return."""
    package = Path(str(resources.files("cgrpo")))
    stub = (package / "__init__.pyi").read_text(encoding="utf-8")
    assert set(re.findall(r"^from (\S+) import (\w+) as", stub, re.MULTILINE)) == {
        (module, name) for name, module in cgrpo._EXPORTS.items()
    }
    assert (package / "py.typed").is_file()
    (tmp_path / "user.py").write_text(USER)
    command = ["pyright", "--pythonpath", sys.executable, "user.py"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    errors = re.findall(r"user.py:(\d+):\d+ - error", printed)
    assert errors == [str(USER.count("\n"))], printed  # the last line alone


def test_only_the_policies_and_their_builders_know_families() -> None:
    """Import contracts don't see a name that comes by another way, or an attribute that only one family has."""
    package = ROOT / "src" / "cgrpo"
    rooms = {path.name for path in package.iterdir() if path.is_dir()} - {"policies", "toybox"}
    assert {"training", "evaluation", "app"} <= rooms
    places = [POLICIES.load(name).policy for name in POLICIES.own]  # "cgrpo.policies.flux.policy:FluxPolicy"
    folders = "|".join(place.split(".")[2] for place in places)
    classes = "|".join(place.rpartition(":")[2].removesuffix("Policy") for place in places)
    names = rf"\b({classes})(Policy|Condition)\b|\bpolicies\.({folders})\b"
    family = re.compile(names + r"|\bpolicy\.(transformer|codec|prompts|origin)\b")
    files = [*package.glob("*.py"), *(file for room in rooms for file in (package / room).rglob("*.py"))]
    assert not [str(file) for file in files if family.search(file.read_text(encoding="utf-8"))]


def test_json_has_null_for_nan() -> None:
    assert json.loads(json_text({"a": [math.nan, (1, math.inf)], "b": "NaN"})) == {"a": [None, [1, None]], "b": "NaN"}
