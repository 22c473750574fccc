"""``benchmark.json``: what the scores beside it are of, and in short how they came out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.rows import ScoreRow
from cgrpo.evaluation.benchmark.suite import Suite
from cgrpo.files import write_text
from cgrpo.rewards import Reward
from cgrpo.rewards.checkpoint import reward_fingerprint

DESCRIPTION = "benchmark.json"


def describe(suite: Suite, out: Path, methods: Mapping[str, Path], metrics: Mapping[str, Reward]) -> dict[str, Any]:
    """What benchmark.json says of the scores in ``out``.

    ``{benchmark, mark, facts, data, references: {subject: pictures}, methods: {name: folder}, metrics: {name: {axis,
    unit, checkpoint}}}``. Folders below ``out`` are relative to it, so that it can be moved.
    """

    def place(folder: Path) -> str:
        whole, home = folder.resolve(), out.resolve()
        return str(whole.relative_to(home) if whole.is_relative_to(home) else whole)

    return {
        "benchmark": suite.name,
        "mark": dict(suite.mark),
        "facts": dict(suite.facts),
        "data": place(suite.root),
        "references": suite.references,
        "methods": {name: place(folder) for name, folder in methods.items()},
        "metrics": {
            name: {"axis": reward.axis, "unit": reward.unit, "checkpoint": reward_fingerprint(reward)}
            for name, reward in metrics.items()
        },
    }


def read_description(out: Path) -> dict[str, Any]:
    """What ``out``'s benchmark.json says; {} without one. Raises UserError where it can't be read."""
    file = out / DESCRIPTION
    try:
        table = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: can't be read ({error}); give another --out") from None
    return table if isinstance(table, dict) else {}


def join_description(out: Path, table: Mapping[str, Any]) -> dict[str, Any]:
    """``table`` joined with what ``out`` holds already: methods, metrics and subjects add up.

    Raises UserError where scores would mix that can't be compared: of another benchmark, against other photographs, or
    a metric or method of the same name that is something else.
    """
    before = read_description(out)
    if before:
        _refuse_mixing(out, before, table)
    joined = before | dict(table)
    for key in ("references", "methods", "metrics"):
        joined[key] = before.get(key, {}) | dict(table[key])
    return joined


def _refuse_mixing(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    old, new = before.get("mark") or {}, now["mark"]
    for key in (*new, *(old.keys() - new.keys())):
        if old.get(key) != new.get(key):
            raise UserError(
                f"{out} holds scores of another {key} ({old.get(key)}, now {new.get(key)}); give another --out"
            )
    for part in ("methods", "metrics"):
        for name in now[part].keys() & before.get(part, {}).keys():
            if now[part][name] != before[part][name]:
                raise UserError(f"{out} holds scores of another {part[:-1]} called {name!r}; give another --out")


def write_description(out: Path, table: Mapping[str, Any]) -> None:
    """Raises UserError where it can't be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / DESCRIPTION, json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"can't write to {out}: {error.strerror}; give another --out") from error


def short_summary(rows: Iterable[ScoreRow]) -> list[dict[str, Any]]:
    """``{method, metric, protocol, mean, pictures, failed}`` of each column, in order of appearance.

    ``mean`` weighs every subject and prompt alike, whatever its number of pictures; None without any score.
    """
    columns: dict[tuple[str, str, str], dict[tuple[str, int | None], list[float | None]]] = {}
    for row in rows:
        cells = columns.setdefault((row.method, row.metric, row.protocol), {})
        cells.setdefault((row.subject, row.prompt_index), []).append(row.score)
    summary = []
    for (method, metric, protocol), cells in columns.items():
        valid = [[score for score in cell if score is not None] for cell in cells.values()]
        means = [fmean(cell) for cell in valid if cell]
        count = sum(map(len, cells.values()))
        summary.append(
            {
                "method": method,
                "metric": metric,
                "protocol": protocol,
                "mean": fmean(means) if means else None,
                "pictures": count,
                "failed": count - sum(map(len, valid)),
            }
        )
    return summary
