"""``dreambench.json``: what the scores beside it are of, and in short how they came out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from cgrpo.errors import UserError
from cgrpo.evaluation.dreambench.rows import ScoreRow
from cgrpo.files import write_text
from cgrpo.rewards import Reward
from cgrpo.rewards.checkpoint import reward_fingerprint

DESCRIPTION = "dreambench.json"


def describe(
    which: str, data: Path, photographs: Mapping[str, Any], methods: Mapping[str, Path], metrics: Mapping[str, Reward]
) -> dict[str, Any]:
    """``{list, data, photographs, methods: {name: folder}, metrics: {name: {axis, unit, checkpoint}}}``."""
    return {
        "list": which,
        "data": str(data.resolve()),
        "photographs": dict(photographs),
        "methods": {name: str(folder.resolve()) for name, folder in methods.items()},
        "metrics": {
            name: {"axis": reward.axis, "unit": reward.unit, "checkpoint": reward_fingerprint(reward)}
            for name, reward in metrics.items()
        },
    }


def join_description(out: Path, table: Mapping[str, Any], write: bool = True) -> dict[str, Any]:
    """``table`` joined with what ``out`` holds already: methods and metrics add up. Written with ``write``.

    Raises UserError where scores would mix that can't be compared: another list, other photographs, or a metric or
    method of the same name that is something else.
    """
    file = out / DESCRIPTION
    before: dict[str, Any] = {}
    if file.is_file():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{file}: can't be read ({error}); give another --out") from None
        _refuse_mixing(out, before, table)
    joined = before | dict(table)
    for key in ("methods", "metrics"):
        joined[key] = before.get(key, {}) | dict(table[key])
    if write:
        write_description(out, joined)
    return joined


def _refuse_mixing(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if before.get("list") != now["list"]:
        raise UserError(f"{out} holds scores of the {before.get('list')} list; give another --out")
    kinds = [table.get("photographs", {}).get("kind") for table in (before, now)]
    if kinds[0] != kinds[1]:
        raise UserError(
            f"{out} holds scores against other photographs ({kinds[0]}, now {kinds[1]}); give another --out"
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
