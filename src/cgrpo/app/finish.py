"""The end of `cgrpo train`: base against trained on held-out tasks, the summary, the report."""

from __future__ import annotations

from typing import Any

from cgrpo.app.guard import Watch, make_held_out_judges
from cgrpo.app.model_card import write_model_card
from cgrpo.config import Config
from cgrpo.evaluation.heldout import (
    Tasks,
    describe_tasks,
    prompt_kinds,
    sample_arms,
    score_arms,
    score_rows,
    summarise,
    tasks_by_gain,
)
from cgrpo.evaluation.metrics import Scorer, make_scorers
from cgrpo.evaluation.pages.report import write_report
from cgrpo.evaluation.show.sheets import row_sheet
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward
from cgrpo.scores import write_description, write_scores
from cgrpo.toybox.judges import make_judges
from cgrpo.training.record import Record
from cgrpo.training.runtime import Runtime


def finish(
    record: Record,
    cfg: Config,
    policy: Policy,
    rewards: dict[str, Reward],
    runtime: Runtime,
    tasks: Tasks | None,
    watch: Watch,
    stopped: str = "",
) -> None:
    """Held-out comparison on ``tasks``, if there are any, summary and report.

    ``watch`` has the guard's checks, and its judges; ``stopped``, why the training itself ended early.
    """
    arms = sample_arms(cfg, tasks, policy, runtime) if tasks is not None else {}
    if not runtime.is_main:
        return
    scorers = _scorers(cfg, tasks, rewards, watch) if tasks is not None else {}
    result = score_arms(tasks, arms, scorers) if tasks is not None else None
    guard = watch.summary()
    rows = record.rows()
    summary: dict[str, Any] = {"iterations": len(rows), "metrics": {}}
    summary["seconds"] = {"training": sum(row["seconds/total"] for row in rows)}
    if guard:
        summary["seconds"]["guard"] = sum(row.get("seconds/guard", 0.0) for row in rows)
        summary["guard"] = guard
    if stopped:
        summary["stopped"] = stopped
    if result is not None:
        clusters = result.tasks.clusters
        summary["heldout"] = {"source": result.tasks.source, "tasks": len(result.tasks)}
        summary["heldout"] |= {"over": clusters.unit, "clusters": clusters.count}
        summary["metrics"] = summarise(result, scorers)
        kinds = prompt_kinds(result).items()
        summary["by_prompt"] = {kind: summarise(result, scorers, mask_N) for kind, mask_N in kinds}
        made = {"base": result.base_NHWC, "trained": result.trained_NHWC}
        chosen = tasks_by_gain(result, summary["metrics"])
        row_sheet(result.batch, chosen, made).save(record.folder / "comparison.png")
        write_description(record.folder, describe_tasks(cfg, result.tasks, scorers))
        write_scores(record.folder, score_rows(result, scorers))
    record.write_summary(summary)
    write_model_card(record.adapter, cfg, summary)
    write_report(record.folder, rows, cfg, summary, result, record.checks())


def _scorers(cfg: Config, tasks: Tasks, rewards: dict[str, Reward], watch: Watch) -> dict[str, Scorer]:
    """Rewards, judges and a guard: in the toy world its own judges, else the guard's, loaded once."""
    if tasks.batch.spec is not None:
        return make_scorers(rewards, make_judges(), cfg.evaluation.copies)
    if watch.guard is not None:
        judges = {name: one.score for name, one in watch.guard.scorers.items() if one.role == "judge"}
    else:
        judges = make_held_out_judges(cfg, False, watch.policy.device)
    return make_scorers(rewards, judges, cfg.evaluation.copies)
