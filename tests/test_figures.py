"""What the README and docs/start/first-run.md promise of a run is in stored results of the recipe they name.

A changed default has another key, no stored result, and fails here: train again (`cgrpo reproduce`,
tools/first_run.py).
"""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from cgrpo.config import load_config
from cgrpo.reproduce import Results
from cgrpo.reproduce.runs import content_key

ROOT = Path(__file__).parents[1]
STORED = ROOT / "results"
NOTES = ROOT / "docs" / "notes"
README, FIRST_RUN = ROOT / "README.md", ROOT / "docs" / "start" / "first-run.md"
METRICS = {"identity reward": "identity", "prompt reward": "prompt", "identity judge": "identity_readback",
           "prompt judge": "prompt_readback"}  # fmt: skip


def on_gpu(recipe: str) -> list[dict[str, Any]]:
    """The stored trainings of ``recipe`` as it is now, seeds 0 to 2."""
    results = Results(STORED / "runs")
    found = [results.find(content_key(load_config(recipe, [f"training.seed={seed}"]))) for seed in range(3)]
    assert all(found), f"{recipe} has other defaults than its stored results: train it again"
    return [result for result in found if result]


@pytest.fixture(scope="module")
def on_cpu() -> list[dict[str, Any]]:
    """Whole commands, `cgrpo train` as it is now, seed 0."""
    rows = [json.loads(file.read_text()) for file in sorted((STORED / "first-run").glob("*.json"))]
    now = content_key(load_config())
    assert rows and all(row["key"] == now for row in rows), "the default recipe changed: train it again"
    return rows


@pytest.fixture(scope="module")
def runs(on_cpu: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*on_gpu("toybox"), *on_cpu]


def changes(rows: list[dict[str, Any]], metric: str) -> list[float]:
    return [mean(row["metrics"][metric]["trained"]) - mean(row["metrics"][metric]["base"]) for row in rows]


def span(values: list[float], form: str) -> str:
    return f"{min(values):{form}} to {max(values):{form}}"


def cells(page: Path) -> dict[str, list[str]]:
    """The rows of a page's tables by their first cell."""
    rows = [line.strip().strip("|").split("|") for line in page.read_text().splitlines() if line.startswith("|")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def test_the_readme_expects_what_was_measured(runs: list[dict[str, Any]]) -> None:
    """Every measured change lies in the README's range, rounded outwards to a hundredth: other CPUs differ a little."""
    told = cells(README)
    for words, metric in METRICS.items():
        base, change = told[words]
        assert base == f"{mean(runs[0]['metrics'][metric]['base']):.3f}"
        low, high = (float(number) for number in re.findall(r"[+-]\d\.\d\d", change))
        measured = changes(runs, metric)
        assert low <= min(measured) and max(measured) <= high and high - low <= 0.041


def test_the_first_run_expects_what_was_measured(runs: list[dict[str, Any]]) -> None:
    told = cells(FIRST_RUN)
    for metric, kept in runs[0]["metrics"].items():
        base = {f"{mean(row['metrics'][metric]['base']):.3f}" for row in runs}
        trained = span([mean(row["metrics"][metric]["trained"]) for row in runs], ".3f")
        assert told[metric] == [kept["role"], kept["axis"], *base, trained, span(changes(runs, metric), "+.3f")]


def test_naive_stands_level_as_said() -> None:
    rows = on_gpu("naive")
    for axis, metric in (("identity", "identity_readback"), ("prompt", "prompt_readback")):
        assert f"{axis} judge {span(changes(rows, metric), '+.3f')}" in FIRST_RUN.read_text()


def test_forward_gains_two_to_three_times_as_much() -> None:
    """Both judges' gains together, on the same subjects, which no choice has seen; of the recipes as they are now."""
    rows = {row["recipe"]: row for row in map(json.loads, (STORED / "unseen.jsonl").read_text().splitlines())}
    for recipe, row in rows.items():
        keys = [content_key(load_config(recipe, [f"training.seed={seed}"])) for seed in range(row["seeds"])]
        assert row["keys"] == keys, f"{recipe} has other defaults than its stored results: train it again"
    forward, default = (
        sum(rows[recipe]["metrics"][judge]["difference"] for judge in ("identity_readback", "prompt_readback"))
        for recipe in ("forward", "toybox")
    )
    assert 2 <= forward / default <= 3
    for page in (README, FIRST_RUN):
        assert "gains two to three times as much" in page.read_text()


def test_the_forward_command_is_as_told() -> None:
    told = json.loads((STORED / "forward-command.json").read_text())
    assert told["key"] == content_key(load_config("forward")), "the recipe changed: run the command again"
    minutes, seconds = divmod(round(told["wall_seconds"]), 60)
    for page in (README, NOTES / "forward.md"):
        assert f"{minutes} minutes {seconds} seconds" in " ".join(page.read_text().split())
    for judge in ("identity", "prompt"):
        row = told["metrics"][f"{judge}_readback"]
        words = f"{judge} judge {row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        assert words in " ".join((NOTES / "forward.md").read_text().split())


def test_the_forward_tables_are_those_of_the_stored_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line, what benchmarks/time_to_gain.py makes of results/; and what was measured on unseen subjects."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    made = runpy.run_path(str(ROOT / "benchmarks" / "time_to_gain.py"))
    page = (NOTES / "forward.md").read_text()
    rows = made["read"]([STORED / "forward-h200.jsonl"])
    assert made["table"](rows) in page and made["times"](rows) in page
    for line in made["table"](made["read"]([STORED / "forward-cpu.jsonl"])).splitlines():
        if re.match(r"\| forward: (SARS|AWM)", line):  # under other names there
            assert re.sub(r"  +", " ", line.split("|", 2)[2]) in page.replace("**", ""), line
    text = " ".join(page.replace("**", "").split())
    for row in map(json.loads, (STORED / "unseen.jsonl").read_text().splitlines()):
        judges = [row["metrics"][f"{axis}_readback"] for axis in ("identity", "prompt")]
        told = " / ".join("{difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**judge) for judge in judges)
        assert told in text, told


def _plain(text: str) -> str:
    return " ".join(text.replace("\N{MINUS SIGN}", "-").replace("*", "").replace(" to ", ", ").split())


def _intervals(text: str) -> list[str]:
    return re.findall(r"[+-]0\.\d{3} \[[^\]]+\]", _plain(text))


def test_intervals_in_the_reasons_are_those_of_the_tables() -> None:
    """Every further seed changes them."""
    template = (ROOT / "tools" / "results.template.md").read_text()
    reasons = template.partition("\n### Why\n")[2].partition("\n## ")[0]
    tables = _plain((NOTES / "results.md").read_text().partition("\n## Tables")[2])
    told = set(_intervals(reasons))
    assert len(told) >= 6
    assert not {interval for interval in told if interval not in tables}


def test_intervals_of_a_method_are_those_of_the_tables() -> None:
    """They are told again there, from pages that are made or measured anew."""
    forward, how = (NOTES / "forward.md").read_text(), (NOTES / "algorithm.md").read_text()
    described, _, measured = forward.partition("\n## Measured\n")
    tables = [
        _plain(measured),
        *(_plain((NOTES / f"{name}.md").read_text()) for name in ("results", "toybox", "analysis")),
    ]
    told = {
        (name, interval) for name, text in (("algorithm", how), ("forward", described)) for interval in _intervals(text)
    }
    assert len(told) >= 10
    assert not {(name, interval) for name, interval in told if not any(interval in table for table in tables)}


def test_durations_are_those_of_a_whole_command(on_cpu: list[dict[str, Any]]) -> None:
    (timed,) = [row for row in on_cpu if row["wall_seconds"]]
    minutes, seconds = divmod(round(timed["wall_seconds"]), 60)
    for page in (README, FIRST_RUN):
        assert f"{minutes} minutes {seconds} seconds" in " ".join(page.read_text().split())
    assert f"{timed['seconds'] / 60:.0f} of them training" in " ".join(FIRST_RUN.read_text().split())
    assert f"{minutes} minutes, measured" in (ROOT / "docs" / "guides" / "hardware.md").read_text()


def test_healthy_is_what_stored_runs_were(on_cpu: list[dict[str, Any]]) -> None:
    told = {name.strip("`"): row[0] for name, row in cells(FIRST_RUN).items()}
    health = {key: [row["health"][key] for row in on_cpu] for key in on_cpu[0]["health"]}
    every = {key: [value for run in runs for value in run] for key, runs in health.items()}
    later = [share for run in health["clip_share"] for share in run[1:]]
    correlation = round(mean(every["reward_correlation"]), 2) + 0.0  # no -0.00
    stds = every["reward/identity/std"] + every["reward/prompt/std"]
    expected = {
        "reward/NAME/std": span(stds, ".2f"),
        "conflict_share": f"{span(every['conflict_share'], '.2f')}, mean {mean(every['conflict_share']):.2f}",
        "reward_correlation": f"{span(every['reward_correlation'], '.2f')}, mean {correlation:.2f}",
        "ratio_drift": f"{max(every['ratio_drift']):g};",
        "ratio_spread": f"{health['ratio_spread'][0][0]:.0e} at first".replace("e-0", "e-"),
        "clip_share": f"{health['clip_share'][0][0]:.2f} at first, then {max(later):.2f} and less",
        "gradient_norm": span(every["gradient_norm"], ".3f"),
        "bonus_shift": span(every["bonus_shift"], ".2f"),
    }
    assert {key: told[key][: len(text)] for key, text in expected.items()} == expected
    assert re.search(rf"whole runs \({len(on_cpu[0]['health']['clip_share'])} iterations", FIRST_RUN.read_text())
