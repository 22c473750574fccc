"""The report of a run: one HTML file that needs nothing else, for people who were not there."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from cgrpo.config import Config
from cgrpo.evaluation.heldout import HeldOut
from cgrpo.evaluation.pages.guard import section
from cgrpo.evaluation.show import plots
from cgrpo.evaluation.show.sheets import first_tasks, fit
from cgrpo.evaluation.statistics import movement, to_float
from cgrpo.files import write_text
from cgrpo.rewards.base import to_pictures

EXAMPLES = 24  # held-out tasks shown
PICTURE = 256  # pixels: longest side of a picture in the report
WEIGHTED = ("identity", "prompt")  # the rewards that carry weight; any other is watched
DASH, MINUS, TIMES = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"

Row = Mapping[str, Any]


def write_report(
    folder: Path,
    rows: Sequence[Row],
    config: Config,
    summary: Mapping[str, Any],
    heldout: HeldOut | None,
    checks: Sequence[Row] = (),
) -> Path:
    """``report.html`` in the run directory ``folder``; nothing in it is fetched from anywhere.

    rows: metrics.jsonl's, maybe none; summary: summary.json's, where "metrics" and "by_prompt" may be missing or empty;
    heldout: the pictures to show, if there was an evaluation; checks: guard.jsonl's rows, maybe none. NaN and None read
    as a dash. Raises OSError.
    """
    metrics = summary.get("metrics") or {}
    by_prompt = {kind: table for kind, table in (summary.get("by_prompt") or {}).items() if table}
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=config.title(),
            verdict=verdict(metrics, len(rows)),
            cautions=cautions(metrics) + warned(checks),
            facts=_facts(config, summary, rows, heldout),
            split=summary.get("split", "held-out"),
            metrics=metrics,
            by_prompt=by_prompt,
            tradeoff=Markup(plots.tradeoff({"all": metrics} | by_prompt)),
            examples=examples(heldout, metrics, EXAMPLES) if heldout else [],
            guard=section(checks),
            rewards=_reward_plots(rows),
            conflict=_conflict_plots(rows),
            health=_health_plots(rows, config),
            health_facts=_health_facts(rows),
            config=config.model_dump_json(indent=2),
            environment=_read(folder / "environment.json"),
        )
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


# -- in words --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """One sentence, and whether it is good news: "rose", "mixed" or "unknown"."""

    kind: str
    text: str


def verdict(metrics: Mapping[str, Row], iterations: int) -> Verdict:
    """Did every weighted reward rise on held-out tasks, and do the judges' 95 % intervals say so too?"""
    rewards = {k: m for k, m in metrics.items() if m.get("role") == "reward" and k in WEIGHTED}
    judges = {k: m for k, m in metrics.items() if m.get("role") == "judge"}
    if not iterations:
        return Verdict("unknown", "Nothing was trained: the policy is the base.")
    if not rewards and not judges:
        return Verdict("unknown", "Base and trained were not compared on held-out tasks, so there is no verdict.")
    parts = [_movement("reward", rewards), _movement("judge", judges)]
    text = "On held-out tasks " + ", and ".join(filter(None, parts))
    if all(movement(m) == "rose" for m in (rewards | judges).values()):
        return Verdict("rose", text + "; every 95 % interval lies above 0.")
    return Verdict("mixed", text + ".")


def _movement(noun: str, metrics: Mapping[str, Row]) -> str:
    """ "both rewards rose (identity +0.041, prompt +0.018)", or one by one where they differ; "" for none."""
    words = {"rose": "rose", "fell": "fell", "unclear": "did not change measurably"}
    moves = {name: movement(m) for name, m in metrics.items()}
    gaps = {name: number(m.get("difference"), signed=True) for name, m in metrics.items()}
    if not metrics:
        return ""
    if len(set(moves.values())) == 1:
        subject = {1: f"the {noun}", 2: f"both {noun}s"}.get(len(metrics), f"all {len(metrics)} {noun}s")
        details = ", ".join(f"{name} {gap}" for name, gap in gaps.items())
        return f"{subject} {words[next(iter(moves.values()))]} ({details})"
    return f"of the {noun}s " + " while ".join(f"{name} {words[moves[name]]} ({gaps[name]})" for name in metrics)


def cautions(metrics: Mapping[str, Row]) -> list[str]:
    """What a glad verdict might hide."""
    return [
        f"The guard {name} rose too ({number(m.get('difference'), signed=True)}): "
        "look whether the trained pictures copy their references."
        for name, m in metrics.items()
        if m.get("role") == "guard" and movement(m) == "rose"
    ]


def warned(checks: Sequence[Row]) -> list[str]:
    """What the guard's last check says, if there was one."""
    return [f"Held-out guard, iteration {row['iteration']}: {text}." for row in checks[-1:] for text in row["warnings"]]


def number(value: Any, digits: int = 3, signed: bool = False) -> str:
    """A number for reading, with a true minus sign; a dash for None, NaN and what is no number."""
    if not math.isfinite(to_float(value)):
        return DASH
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", MINUS)


def _facts(
    config: Config, summary: Mapping[str, Any], rows: Sequence[Row], heldout: HeldOut | None
) -> list[tuple[str, str]]:
    seconds = to_float((summary.get("seconds") or {}).get("training"))
    facts = [
        ("Training", f"{len(rows)} iterations"),
        *config.facts().items(),
        ("Rewards", ", ".join(f"{name} ({reward.type})" for name, reward in config.rewards.items())),
        ("Policy", f"LoRA of rank {config.policy.rank}, {config.policy.width} {TIMES} {config.policy.height} pixels"),
        ("Learning rate", f"{config.training.learning_rate:g}"),
        ("Seed", str(config.training.seed)),
    ]
    if math.isfinite(seconds):
        facts.append(("Training time", f"{seconds / 60:.1f} minutes"))
    if ended := (summary.get("guard") or {}).get("stopped"):
        facts.append(("Ended", ended))
    if heldout is not None:
        subjects = len(heldout.subject_N.unique())
        facts.append(("Held-out tasks", f"{len(heldout.batch)} on {subjects} subjects never trained on"))
    return facts


def _health_facts(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Numbers over the whole run."""

    def column(key: str) -> list[float]:
        return [value for row in rows if math.isfinite(value := to_float(row.get(key)))]

    facts = []
    phases = [key for key in ("encode", "sample", "reward", "update", "total") if column(f"seconds/{key}")]
    times = {key: sum(values := column(f"seconds/{key}")) / len(values) for key in phases}
    if times:
        facts.append(("Seconds an iteration", ", ".join(f"{key} {value:.2f}" for key, value in times.items())))
    if drift := column("ratio_drift"):
        facts.append(("Largest ratio drift", f"{max(drift):.1e}"))
    if failed := [value for row in rows for key in row if key.endswith("/failed") for value in [to_float(row[key])]]:
        facts.append(("Scores that failed", f"{sum(filter(math.isfinite, failed)):.0f}"))
    if shift := column("bonus_shift"):
        facts.append(("Mean shift of credit by the bonus", number(sum(shift) / len(shift), signed=True)))
    return facts


# -- in pictures -----------------------------------------------------------------------------------


def _reward_plots(rows: Sequence[Row]) -> list[Markup]:
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith("reward/") and key.endswith("/mean"))
    names = [key.removeprefix("reward/").removesuffix("/mean") for key in keys]
    return _drawn(
        plots.curve(rows, f"reward/{name}/mean", f"{name} reward", plots.axis_colour(name), spread=f"reward/{name}/std")
        for name in names
    )


def _conflict_plots(rows: Sequence[Row]) -> list[Markup]:
    independent = plots.Mark(0.5, "independent rewards")
    none = plots.Mark(0.0, "no correlation")
    return _drawn(
        (
            plots.curve(rows, "conflict_share", "share of samples in conflict", mark=independent),
            plots.curve(rows, "reward_correlation", "correlation of the rewards in a group", mark=none),
        )
    )


def _health_plots(rows: Sequence[Row], config: Config) -> list[Markup]:
    drift = plots.Mark(config.objective.max_ratio_drift, "the run stops here") if config.method == "grpo" else None
    clipped = plots.Mark(config.training.max_grad_norm, "clipped above")
    return _drawn(
        (
            plots.curve(rows, "ratio_drift", "ratio drift", mark=drift, scale="log"),
            plots.curve(rows, "clip_share", "share of clipped pairs"),
            plots.curve(rows, "gradient_norm", "gradient norm", mark=clipped),
        )
    )


def _drawn(svgs: Iterable[str]) -> list[Markup]:
    return [Markup(svg) for svg in svgs if svg]


def examples(heldout: HeldOut, metrics: Mapping[str, Row], count: int) -> list[dict[str, Any]]:
    """Held-out tasks to show, chosen without looking at scores: ``{prompt, pictures: [(label, data URI)], scores}``."""
    judges = [name for name, metric in metrics.items() if metric.get("role") == "judge" and name in heldout.scores]
    chosen = first_tasks(heldout.subject_N, count)
    base = to_pictures(heldout.base_NHWC[chosen])
    trained = to_pictures(heldout.trained_NHWC[chosen])
    shown = []
    for place, n in enumerate(chosen):
        pictures = {"reference": heldout.batch.references[n][0], "base": base[place], "trained": trained[place]}
        scores = {name: {arm: values[n].item() for arm, values in heldout.scores[name].items()} for name in judges}
        shown.append(
            {
                "prompt": heldout.batch.prompts[n],
                "pictures": [(label, data_uri(picture)) for label, picture in pictures.items()],
                "scores": {metrics[name].get("axis", name): score for name, score in scores.items()},
            }
        )
    return shown


def data_uri(picture: Image.Image) -> str:
    """The picture inside a URI, as PNG, shrunk to 256 pixels if larger."""
    if max(picture.size) > PICTURE:
        picture = fit(picture, PICTURE, PICTURE)
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


# -- the page --------------------------------------------------------------------------------------


def _environment() -> Environment:
    loader = PackageLoader("cgrpo", "evaluation/pages")
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {"number": number, "movement": movement}
    return page


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty when there is none, for a report does not fail for want of a footnote."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}
