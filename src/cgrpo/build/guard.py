"""From the configuration to held-out tasks, those of the guard and those of the final comparison, and to the guard."""

from __future__ import annotations

import torch

from cgrpo.build.data import make_manifest
from cgrpo.config import TOYBOX, Config
from cgrpo.data import ToyboxSource
from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark import manifest_suite
from cgrpo.evaluation.guard import Guard, untouched
from cgrpo.evaluation.heldout import Tasks, heldout_tasks, tasks_of
from cgrpo.evaluation.metrics import Scorer, as_rewards
from cgrpo.evaluation.sampling import Processes
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward, make_rewards
from cgrpo.rewards.measures import measures
from cgrpo.toybox.judges import make_judges
from cgrpo.types import Batch


def make_guard_tasks(cfg: Config) -> Batch | None:
    """The guard's held-out tasks; None where none are named. Raises UserError for a manifest that can't be read."""
    settings = cfg.guard
    if settings.source:
        source = make_manifest(cfg, settings.source)
        return source.batch(range(min(settings.tasks, len(source.tasks))))
    if cfg.data.source == TOYBOX:
        return ToyboxSource(0, "validation", cfg.data.dial).batch(range(settings.tasks))
    return None


def make_final_tasks(cfg: Config) -> Tasks | None:
    """The final comparison's held-out tasks; None where it is off or has none. Raises UserError as above."""
    settings = cfg.evaluation
    path = settings.source or ("" if cfg.data.source == TOYBOX else cfg.guard.source)
    if not settings.enabled or not (path or cfg.data.source == TOYBOX):
        return None
    if not path:
        return heldout_tasks(cfg)[1]
    source = make_manifest(cfg, path, limit=settings.tasks)
    suite = manifest_suite(source.path, limit=settings.tasks)
    return tasks_of(suite, source.batch(range(len(source.tasks))))


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
