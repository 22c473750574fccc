"""Held-out tasks in a run: the guard's checks on the way, and base against trained at the end."""

import sys
import time
from typing import Any

from tqdm import tqdm

from cgrpo.app.model_card import write_model_card
from cgrpo.app.needs import make_guard_tasks
from cgrpo.config import Config
from cgrpo.errors import UserError
from cgrpo.evaluation.guard import (
    Guard,
    best_check,
    best_in_words,
    exhausted,
    new_warnings,
    stopped_in_words,
    untouched,
)
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
from cgrpo.evaluation.metrics import Scorer, as_rewards, make_scorers
from cgrpo.evaluation.pages.report import write_report
from cgrpo.evaluation.sampling import Processes
from cgrpo.evaluation.show.sheets import row_sheet
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward, make_rewards
from cgrpo.rewards.measures import measures
from cgrpo.scores import write_description, write_scores
from cgrpo.section import TOYBOX_WORLDS
from cgrpo.toybox.judges import make_judges
from cgrpo.training.record import RunRecord
from cgrpo.training.runtime import Runtime
from cgrpo.types import Batch


def tasks_to_watch(cfg: Config) -> Batch | None:
    """The held-out tasks; None where there are none, or the run is too short for a check."""
    return make_guard_tasks(cfg) if 0 < cfg.guard.every <= cfg.training.iterations else None


def make_guard(cfg: Config, tasks: Batch, policy: Policy, rewards: dict[str, Reward], processes: Processes) -> Guard:
    """The guard over ``tasks``: ``rewards`` as trained on, judges, and measures of the pictures.

    Judges are guard.scorers, or the toy world's own where there are none. Raises UserError where two have one name.
    """
    with untouched(policy.device):  # loading a model may draw
        judges = make_rewards(cfg.guard.scorers, policy.device) or (make_judges(tasks.spec) if tasks.spec else {})
    own = measures(cfg.evaluation.copies)
    for name in own:
        if name in rewards or name in judges:
            raise UserError(
                f"{name!r} is what the guard itself measures; rename the reward or scorer, or set guard.every=0"
            )
    scorers = as_rewards(rewards) | {name: Scorer("judge", judge) for name, judge in judges.items()}
    scorers |= {name: Scorer("guard", measure) for name, measure in own.items()}
    sigmas = policy.sigmas(cfg.sampling.steps, cfg.sampling.shift)
    return Guard(policy, tasks, scorers, sigmas, processes, cfg.guard.batch)


class Watch:
    """The guard's checks, and the judges of the final comparison. All processes check; the main one writes.

    tasks    the guard's, as ``tasks_to_watch`` gives them
    final    the final comparison's
    first    the iteration that the run continues with; earlier checks are read from ``record``
    stopped  why the run is to end early; "" while it is not
    """

    def __init__(
        self,
        cfg: Config,
        tasks: Batch | None,
        final: Tasks | None,
        policy: Policy,
        rewards: dict[str, Reward],
        record: RunRecord,
        runtime: Runtime,
        first: int,
    ):
        self.policy, self.record, self.main = policy, record, runtime.is_main
        self.settings, self.iterations = cfg.guard, cfg.training.iterations
        self.rows = [row for row in record.checks() if row["iteration"] <= first]
        self.guard: Guard | None = None
        self.stopped = ""
        if tasks is not None:
            self.guard = make_guard(cfg, tasks, policy, rewards, runtime)
        self.judges = self._final_judges(cfg, final, policy) if self.main and final is not None else {}
        if self.settings.every and not self.settings.source and cfg.data.source not in TOYBOX_WORLDS:
            self._say(
                "no held-out guard: guard.source names no manifest of held-out tasks; cgrpo data prompts makes one"
            )
        self._conclude(first)

    def _final_judges(self, cfg: Config, tasks: Tasks, policy: Policy) -> dict[str, Reward]:
        """In the toy world its own judges, else the guard's. Made before the training: a missing one ends no run late.

        They wait in the CPU's memory where no check needs them.
        """
        toybox = tasks.batch.spec is not None
        if self.guard is not None and not toybox:
            return {name: one.score for name, one in self.guard.scorers.items() if one.role == "judge"}
        with untouched(policy.device):
            return make_judges(tasks.batch.spec) if toybox else make_rewards(cfg.guard.scorers)

    def after(self, iteration: int) -> dict[str, float]:
        """The check that may be due after ``iteration`` iterations; its numbers for the record, empty if none is."""
        if self.guard is None or iteration % self.settings.every:
            return {}
        start = time.perf_counter()
        row = self.guard.check(iteration, self.rows)
        numbers = {f"guard/{name}": metric["difference"] for name, metric in row["metrics"].items()}
        numbers |= self.guard.report() | {"seconds/guard": time.perf_counter() - start}
        for warn in new_warnings(row, self.rows):
            self._say(f"held-out guard, iteration {iteration}: {warn.text} (to change: {warn.cure})")
        if self.main:
            if row["best"]:
                self.policy.save(self.record.best)
            self.record.write_check(row)
        self.rows.append(row)
        self._conclude(iteration)
        return numbers

    def summary(self) -> dict[str, Any]:
        """For summary.json; empty where nothing was checked."""
        if not self.rows:
            return {}
        best = best_check(self.rows)
        return {
            "checks": len(self.rows),
            "best": best and best["iteration"],
            "kept": best_in_words(self.rows),
            "stopped": self.stopped or None,
            "warnings": self.rows[-1]["warnings"],
        }

    def _conclude(self, iteration: int) -> None:
        patience = self.settings.patience
        if self.guard is not None and iteration < self.iterations and exhausted(self.rows, patience):
            self.stopped = stopped_in_words(self.rows, patience, iteration)
            self._say(self.stopped)

    def _say(self, sentence: str) -> None:
        if self.main:
            tqdm.write(sentence, file=sys.stderr)  # above the bar


def finish(
    record: RunRecord,
    cfg: Config,
    policy: Policy,
    rewards: dict[str, Reward],
    runtime: Runtime,
    tasks: Tasks | None,
    watch: Watch,
    stopped: str = "",
) -> None:
    """The comparison on held-out ``tasks``, if there are any; summary and report.

    ``stopped`` says why the training itself ended early.
    """
    arms = {}
    if tasks is not None:
        total = len(tasks) * (1 + cfg.evaluation.best_of) // runtime.world
        with tqdm(total=total, desc="compare", unit=" pictures", disable=not runtime.is_main) as bar:
            arms = sample_arms(cfg, tasks, policy, runtime, bar.update)
    if not runtime.is_main:
        return
    guard, rows = watch.summary(), record.rows()
    summary: dict[str, Any] = {"iterations": rows[-1]["iteration"] + 1 if rows else 0, "metrics": {}}
    summary["seconds"] = {"training": sum(row["seconds/total"] for row in rows)}
    if guard:
        summary["seconds"]["guard"] = sum(row.get("seconds/guard", 0.0) for row in rows)
        summary["guard"] = guard
    if stopped:
        summary["stopped"] = stopped
    result = None
    if tasks is not None:
        for judge in watch.judges.values():
            judge.to(runtime.device)
        scorers = make_scorers(rewards, watch.judges, cfg.evaluation.copies)
        with tqdm(total=len(scorers), desc="score", unit=" metrics") as bar:
            result = score_arms(tasks, arms, scorers, bar.update)
        summary["heldout"] = {"source": tasks.source, "tasks": len(tasks)}
        summary["heldout"] |= {"over": tasks.clusters.unit, "clusters": tasks.clusters.count}
        summary["metrics"] = summarise(result, scorers)
        kinds = prompt_kinds(result).items()
        summary["by_prompt"] = {kind: summarise(result, scorers, mask_N) for kind, mask_N in kinds}
        pictures = {"base": result.base_NHWC, "trained": result.trained_NHWC}
        chosen = tasks_by_gain(result, summary["metrics"])
        row_sheet(result.batch, chosen, pictures).save(record.folder / "comparison.png")
        write_description(record.folder, describe_tasks(cfg, tasks, scorers))
        write_scores(record.folder, score_rows(result, scorers))
    record.write_summary(summary)
    if record.adapter.is_dir():  # none where nothing was trained
        write_model_card(record.adapter, cfg, summary)
    write_report(record.folder, rows, cfg, summary, result, record.checks())
