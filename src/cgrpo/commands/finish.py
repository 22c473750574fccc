"""The end of `cgrpo train`: base against trained on held-out tasks, the summary, the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cgrpo.build import make_scorers
from cgrpo.config import TOYBOX, Config
from cgrpo.evaluation.heldout import (
    describe_tasks,
    prompt_kinds,
    sample_arms,
    score_arms,
    score_rows,
    summarise,
    tasks_by_gain,
)
from cgrpo.evaluation.pages.report import write_report
from cgrpo.evaluation.scores import write_description, write_scores
from cgrpo.evaluation.show.sheets import row_sheet
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward
from cgrpo.training.record import Record
from cgrpo.training.runtime import Runtime


def finish(
    record: Record,
    cfg: Config,
    policy: Policy,
    rewards: dict[str, Reward],
    runtime: Runtime,
    guard: Mapping[str, Any],
    stopped: str = "",
) -> None:
    """Held-out comparison, summary and report.

    ``guard`` is what to say of its checks, empty where there were none; ``stopped``, why the training itself ended
    early.
    """
    arms = sample_arms(cfg, policy, runtime) if cfg.evaluation.enabled and cfg.data.source == TOYBOX else {}
    if not runtime.is_main:
        return
    scorers = make_scorers(rewards) if arms else {}
    result = score_arms(cfg, arms, scorers) if arms else None
    rows = record.rows()
    summary: dict[str, Any] = {"iterations": len(rows), "metrics": {}}
    summary["seconds"] = {"training": sum(row["seconds/total"] for row in rows)}
    if guard:
        summary["seconds"]["guard"] = sum(row.get("seconds/guard", 0.0) for row in rows)
        summary["guard"] = guard
    if stopped:
        summary["stopped"] = stopped
    if result is not None:
        summary["split"] = cfg.evaluation.split
        summary["metrics"] = summarise(result, scorers)
        kinds = prompt_kinds(result).items()
        summary["by_prompt"] = {kind: summarise(result, scorers, mask_N) for kind, mask_N in kinds}
        made = {"base": result.base_NHWC, "trained": result.trained_NHWC}
        chosen = tasks_by_gain(result, summary["metrics"])
        row_sheet(result.batch, chosen, made).save(record.folder / "comparison.png")
        write_description(record.folder, describe_tasks(cfg, scorers))
        write_scores(record.folder, score_rows(result, scorers, cfg.evaluation.prompts_per_subject))
    record.write_summary(summary)
    write_report(record.folder, rows, cfg, summary, result, record.checks())
