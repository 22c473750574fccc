"""The held-out guard's part in a run: checks when they are due, the best adapter, and when to stop."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from tqdm import tqdm

from cgrpo.app.tasks import make_guard_tasks
from cgrpo.config import TOYBOX, Config
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
from cgrpo.evaluation.metrics import Scorer, as_rewards
from cgrpo.evaluation.sampling import Processes
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward, make_rewards
from cgrpo.rewards.measures import measures
from cgrpo.toybox.judges import make_judges
from cgrpo.training.record import Record
from cgrpo.training.runtime import Runtime
from cgrpo.types import Batch


def tasks_to_watch(cfg: Config) -> Batch | None:
    """The held-out tasks; None where there are none, or the run is too short for a check."""
    return make_guard_tasks(cfg) if 0 < cfg.guard.every <= cfg.training.iterations else None


def make_held_out_judges(cfg: Config, toybox: bool, device: torch.device | str) -> dict[str, Reward]:
    """Judges of held-out tasks: guard.scorers, or where there are none and the tasks are the toy world's, its own.

    The random state is left as it was: loading a model may draw.
    """
    with untouched(torch.device(device)):
        return make_rewards(cfg.guard.scorers, device) or (make_judges() if toybox else {})


def make_guard(cfg: Config, tasks: Batch, policy: Policy, rewards: dict[str, Reward], processes: Processes) -> Guard:
    """The guard over ``tasks``: ``rewards`` as trained on, judges beside them, and measures of the pictures.

    Raises UserError where two of them have one name. The random state is left as it was.
    """
    judges = make_held_out_judges(cfg, tasks.spec is not None, policy.device)
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
    """Alike on all processes; the main one writes. ``stopped`` says why the run is to end early, "" while it isn't.

    ``tasks`` are what ``tasks_to_watch`` gives; ``first`` is the iteration that the run goes on with.
    What it concludes follows from the checks before that one, whether this process made or found them.
    """

    def __init__(
        self,
        cfg: Config,
        tasks: Batch | None,
        policy: Policy,
        rewards: dict[str, Reward],
        record: Record,
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
        if self.settings.every and not self.settings.source and cfg.data.source != TOYBOX:
            self._say(
                "no held-out guard: guard.source names no manifest of held-out tasks; cgrpo data prompts makes one"
            )
        self._conclude(first)

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
