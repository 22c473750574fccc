"""From the configuration to the held-out guard."""

from __future__ import annotations

from cgrpo.build.data import make_manifest
from cgrpo.build.rewards import as_rewards, make_judges, make_reward
from cgrpo.config import TOYBOX, Config
from cgrpo.data import ToyboxSource
from cgrpo.errors import UserError
from cgrpo.evaluation.guard import Guard, untouched
from cgrpo.evaluation.sampling import Processes
from cgrpo.evaluation.scores import Scorer
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward
from cgrpo.rewards.measures import measures
from cgrpo.types import Batch


def make_guard_tasks(cfg: Config) -> Batch | None:
    """The held-out tasks; None where none are named. Raises UserError for a manifest that can't be read."""
    settings = cfg.guard
    if settings.source:
        source = make_manifest(cfg, settings.source)
        return source.batch(range(min(settings.tasks, len(source.records))))
    if cfg.data.source == TOYBOX:
        return ToyboxSource(0, "validation", cfg.data.dial).batch(range(settings.tasks))
    return None


def make_guard(cfg: Config, tasks: Batch, policy: Policy, rewards: dict[str, Reward], processes: Processes) -> Guard:
    """The guard over ``tasks``: ``rewards`` as trained on, judges beside them, and measures of the pictures.

    Raises UserError where two of them have one name. The random state is left as it was.
    """
    with untouched(policy.device):  # loading a model may draw
        judges = {name: make_reward(name, settings, policy.device) for name, settings in cfg.guard.scorers.items()} or (
            make_judges() if tasks.spec is not None else {}
        )
    own = measures()
    for name in own:
        if name in rewards or name in judges:
            raise UserError(
                f"{name!r} is what the guard itself measures; rename the reward or scorer, or set guard.every=0"
            )
    scorers = as_rewards(rewards) | {name: Scorer("judge", judge) for name, judge in judges.items()}
    scorers |= {name: Scorer("guard", measure) for name, measure in own.items()}
    sigmas = policy.sigmas(cfg.sampling.steps, cfg.sampling.shift)
    return Guard(policy, tasks, scorers, sigmas, processes, cfg.guard.batch)
