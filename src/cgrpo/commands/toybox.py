"""`cgrpo evaluate toybox` and `cgrpo toybox check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cgrpo.algorithm import shifted_sigmas
from cgrpo.build import make_rewards, make_scorers
from cgrpo.commands.sample import open_policy
from cgrpo.config import TOYBOX, load_config
from cgrpo.evaluation.generate import generate
from cgrpo.evaluation.heldout import heldout_tasks
from cgrpo.evaluation.sheets import row_sheet
from cgrpo.evaluation.toybox_check import ranking, segmenter_iou
from cgrpo.policies import reference_policy
from cgrpo.rewards import scored
from cgrpo.rewards.base import to_pictures, to_tensor
from cgrpo.rewards.open_vocabulary import load_segmenter
from cgrpo.toybox.assets import asset
from cgrpo.types import Batch


def evaluate_toybox(run: Path | None, settings: Sequence[str] = (), sheet: Path | None = None) -> dict[str, Any]:
    """Mean score of every metric by row.

    real: as the world draws them; autoencoded: those through the autoencoder, the best the policy could do; copy: the
    reference pasted; prompt alone: the base without a reference; base; trained: the run.

    -> {"tasks": N, "rows": {row: {metric: mean}}, "metrics": {metric: {role, axis, unit}}}; ``sheet`` is a file for
    a contact sheet of 24 tasks.
    """
    cfg, policy = open_policy(run, load_config(TOYBOX), settings)
    scorers = make_scorers(make_rewards(cfg))
    source, batch, subject_N = heldout_tasks(cfg)
    sigmas = shifted_sigmas(cfg.sampling.steps, cfg.sampling.shift, policy.latent_shape[0])
    alone = Batch(batch.ids, batch.prompts, ((),) * len(batch), batch.subjects, batch.spec)
    with reference_policy(policy.transformer):
        made = {
            "real": (real := source.oracle(range(len(batch)))),
            "autoencoded": policy.decode(policy.encode_targets(to_pictures(real))),
            "copy": to_tensor([pictures[0] for pictures in batch.references]),
            "prompt alone": generate(policy, alone, sigmas),
            "base": generate(policy, batch, sigmas),
        }
    if run is not None:
        made["trained"] = generate(policy, batch, sigmas)
    rows = {
        row: {name: scored(name, s.score, images, batch).nanmean().item() for name, s in scorers.items()}
        for row, images in made.items()
    }
    if sheet is not None:
        row_sheet(batch, subject_N, made, 24).save(sheet)
    about = {name: {"role": s.role, "axis": s.score.axis, "unit": s.score.unit} for name, s in scorers.items()}
    return {"tasks": len(batch), "split": cfg.evaluation.split, "rows": rows, "metrics": about}


def check_toybox(settings: Sequence[str] = ()) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """AUC of rewards and judges against known corruptions, by corruption; and the segmenter's mean IoU."""
    cfg, policy = open_policy(None, load_config(TOYBOX), settings)
    source, batch, _ = heldout_tasks(cfg)
    table = ranking(source, len(batch), make_scorers(make_rewards(cfg)), policy)
    sigmas = shifted_sigmas(cfg.sampling.steps, cfg.sampling.shift, policy.latent_shape[0])
    iou = segmenter_iou(source, len(batch), load_segmenter(asset("segmenter")), policy, sigmas)
    return table, iou
