"""A run's iterations: its rewards, how far they pull apart, and whether training was in order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from cgrpo.config import Config
from cgrpo.evaluation.show.page import Facts, Plots, Section, Text
from cgrpo.evaluation.show.plots import Level, axis_colour, curve
from cgrpo.evaluation.show.table import number
from cgrpo.evaluation.show.thumbnails import Slides
from cgrpo.files import to_float

SHEETS = 12  # of samples, at most
Rows = Sequence[Mapping[str, Any]]  # lines of metrics.jsonl


def rewards_section(rows: Rows) -> Section:
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith("reward/") and key.endswith("/mean"))
    names = [key.removeprefix("reward/").removesuffix("/mean") for key in keys]
    drawn = [
        curve(rows, f"reward/{name}/mean", f"{name} reward", axis_colour(name), spread=f"reward/{name}/std")
        for name in names
    ]
    words = (
        "Thin: mean of an iteration's samples. Bold: its moving mean. Band: one standard deviation of the samples. "
        "Every iteration has other prompts, so single points jump."
    )
    shown = [Text(words, "muted"), Plots(drawn)] if any(drawn) else [Text("No iteration was recorded.")]
    return Section("rewards", "Rewards during training", shown)


def samples_section(folder: Path) -> Section | None:
    """The contact sheets of training, evenly picked; None without any."""
    files = sorted(folder.glob("*.png"))
    files = files[:: -(-len(files) // SHEETS)][:-1] + files[-1:] if len(files) > SHEETS else files
    sheets: dict[str, Image.Image] = {}
    for file in files:
        with suppress(OSError), Image.open(file) as picture:
            sheets[file.stem.lstrip("0") or "0"] = picture.convert("RGB")
    words = (
        "What the rewards scored: a row per prompt, its reference first, then the group's samples. Click to enlarge."
    )
    return (
        Section("samples", "Samples during training", [Slides("Iteration", sheets), Text(words, "muted")])
        if sheets
        else None
    )


def conflict_section(rows: Rows) -> Section | None:
    """None where no iteration knows."""
    drawn = [
        curve(rows, "conflict_share", "share of samples in conflict", level=Level(0.5, "independent rewards")),
        curve(rows, "reward_correlation", "correlation of the rewards in a group", level=Level(0.0, "no correlation")),
    ]
    words = (
        "A sample is in conflict when one reward puts it above its group's mean and the other below. Two unrelated "
        "rewards give 0.5, so the distance from there is what tells: above, they compete; below, they agree."
    )
    shown = [Text(words, "muted"), Plots(drawn)]
    return Section("conflict", "Do the rewards pull apart?", shown) if any(drawn) else None


def health_section(rows: Rows, config: Config) -> Section | None:
    """None where no iteration knows."""
    limits = {metric: Level(limit, "the run stops here") for metric, limit in config.limits().items()}
    clipped = Level(config.training.max_grad_norm, "clipped above")
    drawn = [
        curve(rows, "ratio_drift", "ratio drift", level=limits.get("ratio_drift"), scale="log"),
        curve(rows, "clip_share", "share of clipped pairs"),
        curve(rows, "old_gap", "squared distance from the old policy's velocity", scale="log"),
        curve(rows, "preference_margin", "preference margin"),
        curve(rows, "preference_accuracy", "share of pairs with a margin above 0"),
        curve(rows, "gradient_norm", "gradient norm", level=clipped),
    ]
    facts = _health_facts(rows)
    words = [Text(config.health, "muted")] if config.health else []
    shown = [*words, Plots(drawn), Facts(facts)]
    return Section("health", "Training health", shown) if any(drawn) or facts else None


def _health_facts(rows: Rows) -> list[tuple[str, str]]:
    """Numbers over the whole run."""

    def column(key: str) -> list[float]:
        return [value for row in rows if math.isfinite(value := to_float(row.get(key)))]

    facts = []
    phases = [key for key in ("encode", "sample", "reward", "update", "total") if column(f"seconds/{key}")]
    times = {key: sum(values := column(f"seconds/{key}")) / len(values) for key in phases}
    if times:
        facts.append(("Seconds per iteration", ", ".join(f"{key} {value:.2f}" for key, value in times.items())))
    if drift := column("ratio_drift"):
        facts.append(("Largest ratio drift", f"{max(drift):.1e}"))
    if left_out := column("updates_left_out"):
        facts.append(("Updates left out", f"{sum(left_out):.0f}"))
    if failed := [value for row in rows for key in row if key.endswith("/failed") for value in [to_float(row[key])]]:
        facts.append(("Scores that failed", f"{sum(filter(math.isfinite, failed)):.0f}"))
    if shift := column("bonus_shift"):
        facts.append(("Mean shift of credit by the bonus", number(sum(shift) / len(shift), signed=True)))
    return facts
