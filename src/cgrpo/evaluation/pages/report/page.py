"""The report of a run: one HTML file that needs no other, for people who were not there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cgrpo.config import Config
from cgrpo.evaluation.guard import FAR, Check
from cgrpo.evaluation.heldout import HeldOut
from cgrpo.evaluation.metrics import Metric, movement
from cgrpo.evaluation.pages.report.guard import guard_section
from cgrpo.evaluation.pages.report.heldout import heldout_section, pairs_section, words
from cgrpo.evaluation.pages.report.training import conflict_section, health_section, rewards_section, samples_section
from cgrpo.evaluation.show.page import Block, Code, Details, Facts, Page, Section, Text, Verdict
from cgrpo.evaluation.show.table import TIMES, number
from cgrpo.evaluation.show.thumbnails import script
from cgrpo.files import to_float, write_text

WEIGHTED = ("identity", "prompt")  # the rewards that carry weight; any other is watched


def write_report(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    config: Config,
    summary: Mapping[str, Any],
    heldout: HeldOut | None,
    checks: Sequence[Check] = (),
) -> Path:
    """``report.html`` in the run directory ``folder``; nothing in it is fetched from anywhere.

    rows: metrics.jsonl's, maybe none; summary: summary.json's, where "metrics" and "by_prompt" may be missing or empty;
    heldout: the pictures to show, if there was an evaluation; checks: guard.jsonl's rows, maybe none. NaN and None read
    as a dash. Raises OSError.
    """
    metrics = summary.get("metrics") or {}
    by_prompt = {kind: table for kind, table in (summary.get("by_prompt") or {}).items() if table}
    sections = [
        pairs_section(heldout, metrics) if heldout and metrics else None,
        heldout_section(metrics, by_prompt, summary.get("heldout") or {}) if metrics else None,
        guard_section(checks) if checks else None,
        rewards_section(rows),
        samples_section(folder / "samples"),
        conflict_section(rows),
        health_section(rows, config),
        _settings(config, _facts(config, summary, rows, heldout), _read(folder / "environment.json")),
    ]
    page = Page(
        config.title(),
        [
            verdict(metrics, _iterations(summary, rows)),
            *(Text(caution, "caution") for caution in cautions(metrics, _spreads(heldout)) + warned(checks)),
        ],
        [section for section in sections if section is not None],
        script=script(),
    )
    path = folder / "report.html"
    write_text(path, page.render())
    return path


def _iterations(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> int:
    """How long the run was, whatever rows are left of it."""
    return summary.get("iterations", len(rows))


def _facts(
    config: Config, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], heldout: HeldOut | None
) -> list[tuple[str, str]]:
    seconds = to_float((summary.get("seconds") or {}).get("training"))
    facts = [
        ("Training", f"{_iterations(summary, rows)} iterations"),
        *config.facts().items(),
        ("Rewards", ", ".join(f"{name} ({reward.type})" for name, reward in config.rewards.items())),
        ("Policy", f"LoRA of rank {config.policy.rank}, {config.policy.width} {TIMES} {config.policy.height} pixels"),
        ("Learning rate", _learning_rate(config)),
        *(
            [("Averaged weights", f"decay {config.training.average:g} per iteration")]
            if config.training.average
            else []
        ),
        ("Seed", str(config.training.seed)),
    ]
    if math.isfinite(seconds):
        facts.append(("Training time", f"{seconds / 60:.1f} minutes"))
    if ended := summary.get("stopped") or (summary.get("guard") or {}).get("stopped"):
        facts.append(("Ended", ended))
    if heldout is not None:
        tasks, clusters = heldout.tasks, heldout.tasks.clusters
        shown = f"{clusters.count} {clusters.unit}{' of one subject' if clusters.unit == 'prompts' else ''}"
        facts.append(("Held-out tasks", f"{len(tasks)} of {tasks.source}: {shown}"))
        if (count := config.evaluation.best_of) > 1:
            facts.append(("Trained", f"the best of {count} pictures per task, by the sum of the rewards"))
    return facts


def _learning_rate(config: Config) -> str:
    training = config.training
    rising = [f"rising over {training.warmup} iterations"] if training.warmup else []
    falling = [f"falling to 0 ({training.schedule})"] if training.schedule != "constant" else []
    return ", ".join([f"{training.learning_rate:g}", *rising, *falling])


def _settings(config: Config, facts: Sequence[tuple[str, str]], environment: Mapping[str, Any]) -> Section:
    blocks: list[Block] = [
        Details("This run", [Facts(facts)]),
        Details("config.json", [Code(config.model_dump_json(indent=2))]),
    ]
    blocks += [Details("Environment", [Facts(environment.items())])] if environment else []
    return Section("settings", "Settings and environment", blocks)


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is none, since a report should not fail for a footnote."""
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}


# -- what the metrics say ---------------------------------------------------------------------------


def verdict(metrics: Mapping[str, Metric], iterations: int) -> Verdict:
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


def _movement(noun: str, metrics: Mapping[str, Metric]) -> str:
    """ "both rewards rose (identity +0.041, prompt +0.018)", or one by one where they differ; "" for none."""
    verbs = {"rose": "rose", "fell": "fell", "unclear": "did not change measurably"}
    moves = {name: movement(m) for name, m in metrics.items()}
    gaps = {name: number(m.get("difference"), signed=True) for name, m in metrics.items()}
    if not metrics:
        return ""
    if len(set(moves.values())) == 1:
        subject = {1: f"the {noun}", 2: f"both {noun}s"}.get(len(metrics), f"all {len(metrics)} {noun}s")
        details = ", ".join(f"{words(name)} {gap}" for name, gap in gaps.items())
        return f"{subject} {verbs[next(iter(moves.values()))]} ({details})"
    return " while ".join(f"the {words(name)} {noun} {verbs[moves[name]]} ({gaps[name]})" for name in metrics)


def cautions(metrics: Mapping[str, Metric], spreads: Mapping[str, float]) -> list[str]:
    """What a glad verdict might hide: guards that rose by more than the rule of the guard's warnings allows.

    ``spreads``: the standard deviation of the base's scores over tasks, by metric.
    """
    return [
        f"The guard {words(name)} rose too ({number(m.get('difference'), signed=True)}): "
        "look whether the trained pictures copy their references."
        for name, m in metrics.items()
        if m.get("role") == "guard" and movement(m) == "rose" and m["difference"] > FAR * spreads.get(name, 0.0)
    ]


def _spreads(heldout: HeldOut | None) -> dict[str, float]:
    bases = {name: arms["base"] for name, arms in heldout.scores.items()} if heldout else {}
    return {name: base[~base.isnan()].std().item() for name, base in bases.items() if (~base.isnan()).sum() > 1}


def warned(checks: Sequence[Check]) -> list[str]:
    """What the guard's last check says, if there was one."""
    return [f"Held-out guard, iteration {row['iteration']}: {text}." for row in checks[-1:] for text in row["warnings"]]
