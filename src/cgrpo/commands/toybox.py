"""`cgrpo toybox check`."""

from __future__ import annotations

from collections.abc import Sequence

from cgrpo.commands.sample import open_policy
from cgrpo.config import TOYBOX, load_config
from cgrpo.evaluation.heldout import heldout_tasks
from cgrpo.evaluation.metrics import make_scorers
from cgrpo.evaluation.toybox_check import ranking, segmenter_iou
from cgrpo.hub import asset
from cgrpo.rewards import make_rewards
from cgrpo.rewards.segmenters import load_segmenter
from cgrpo.toybox.judges import make_judges


def check_toybox(settings: Sequence[str] = ()) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """AUC of rewards and judges against known corruptions, by corruption; and the segmenter's mean IoU."""
    cfg, policy = open_policy(None, load_config(TOYBOX), settings)
    source, tasks = heldout_tasks(cfg)
    table = ranking(source, len(tasks), make_scorers(make_rewards(cfg.rewards), make_judges()), policy)
    sigmas = policy.sigmas(cfg.sampling.steps, cfg.sampling.shift)
    iou = segmenter_iou(source, len(tasks), load_segmenter(asset("segmenter")), policy, sigmas)
    return table, iou
