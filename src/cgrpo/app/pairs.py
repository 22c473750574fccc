"""Preference pairs of a run, made with the frozen base before the training and kept in the run."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from cgrpo.algorithm import harmonic_mean, winner_and_loser
from cgrpo.data import PairSource, Source, task_indices
from cgrpo.errors import UserError
from cgrpo.evaluation.sampling import sample_tasks
from cgrpo.files import json_text, save_picture, write_text
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward, scored
from cgrpo.rewards.base import to_pictures
from cgrpo.training.checkpoint import config_fingerprint
from cgrpo.training.preference.settings import PreferenceConfig
from cgrpo.training.runtime import Runtime
from cgrpo.types import Batch

BLOCK = 24  # tasks between two writes
MANY = 4096  # more candidates than a task ever has: no two seeds share a noise
PAIRS, STATE = "pairs.jsonl", "made.json"


def pairs_of(
    cfg: PreferenceConfig, folder: Path, policy: Policy, rewards: Mapping[str, Reward], source: Source, runtime: Runtime
) -> PairSource:
    """``source`` if it has pairs; else pairs for its tasks, made in ``folder``, resumed where some are made already.

    To be called by all processes together. Raises UserError where ``folder`` holds pairs of other settings, and where
    the rewards give none.
    """
    if isinstance(source, PairSource):
        return source
    wanted = cfg.preference.tasks if source.size is None else min(cfg.preference.tasks, source.size)
    tasks = task_indices(cfg.training.seed, 0, wanted, source.size)
    fingerprint = _fingerprint(cfg)
    earlier = json.loads(runtime.share(json_text(_earlier(folder, fingerprint) if runtime.is_main else None)))
    done, rows = earlier["tasks"], earlier["rows"]
    with tqdm(total=wanted, initial=done, desc="pairs", disable=not runtime.is_main) as bar, policy.reference():
        while done < wanted:
            batch = source.batch(tasks[done : done + BLOCK])
            images_KNHWC = _candidates(cfg, policy, batch, runtime)
            if runtime.is_main:
                rows += _chosen(cfg, folder, batch, images_KNHWC, rewards, done)
                _keep(folder, rows, {"settings": fingerprint, "tasks": done + len(batch)})
            done += len(batch)
            bar.update(len(batch))
    runtime.wait()
    return PairSource(folder / PAIRS, cfg.policy.reference_alpha)


def _fingerprint(cfg: PreferenceConfig) -> str:
    """Of all settings that the pairs depend on."""
    table = cfg.model_dump(mode="json")
    kept = {name: table[name] for name in ("policy", "data", "sampling", "rewards")}
    kept["preference"] = {name: table["preference"][name] for name in ("candidates", "prompt", "tasks")}
    return config_fingerprint(kept | {"training": {"seed": cfg.training.seed}})


def _earlier(folder: Path, fingerprint: str) -> dict[str, Any]:
    """How many tasks are done, and the rows of their pairs."""
    if not (folder / STATE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        return {"tasks": 0, "rows": []}
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        rows = [json.loads(line) for line in (folder / PAIRS).read_text(encoding="utf-8").splitlines()]
        done, same = int(state["tasks"]), state["settings"] == fingerprint
        rows = [row for row in rows if row["task"] < done]  # a kill may have come between the two files
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{folder}: its pairs can't be read ({error}); delete it to make them anew") from error
    if not same:
        raise UserError(f"{folder} holds pairs of other settings; give another --out, or delete it")
    return {"tasks": done, "rows": rows}


def _candidates(cfg: PreferenceConfig, policy: Policy, batch: Batch, runtime: Runtime) -> Tensor:
    """[K, N, H, W, 3], from the prompt alone; on every process."""
    alone = replace(batch, references=((),) * len(batch), reference_masks=None)
    sigmas = policy.sigmas(cfg.sampling.steps, cfg.sampling.shift)
    draws = (cfg.training.seed * MANY + k for k in range(cfg.preference.candidates))
    return torch.stack([sample_tasks(policy, sigmas, alone, cfg.evaluation.batch, runtime, draw) for draw in draws])


def _chosen(
    cfg: PreferenceConfig,
    folder: Path,
    batch: Batch,
    images_KNHWC: Tensor,
    rewards: Mapping[str, Reward],
    first: int,
) -> list[dict[str, Any]]:
    """The rows of the tasks that give a pair, their pictures written; ``first``: the number of the batch's first."""
    score = {
        name: torch.stack([scored(name, rewards[name], images_NHWC, batch) for images_NHWC in images_KNHWC], dim=1)
        for name in ("identity", "prompt")
        if name in rewards
    }
    prompt_NK, identity_NK = (score.get(name, next(iter(score.values()))) for name in ("prompt", "identity"))
    winner_N, loser_N, pair_N = winner_and_loser(harmonic_mean(identity_NK, prompt_NK, cfg.preference.prompt))
    if not first and not pair_N.any():
        raise UserError(
            f"no pair among the first {len(batch)} tasks: no two of a task's pictures have different scores above 0; "
            "see what the rewards say of them, or draw more with preference.candidates"
        )
    rows = []
    for n in pair_N.nonzero()[:, 0].tolist():
        task, sides = first + n, {"winner": int(winner_N[n]), "loser": int(loser_N[n])}
        files = {side: f"{task}-{side}.png" for side in sides}
        for side, picture in zip(sides, to_pictures(images_KNHWC[list(sides.values()), n]), strict=True):
            save_picture(picture, folder / files[side])
        references = [f"{task}-reference-{place}.png" for place in range(len(batch.references[n]))]
        for picture, name in zip(batch.references[n], references, strict=True):
            save_picture(picture, folder / name)
        scores = {name: [round(score_NK[n, k].item(), 6) for k in sides.values()] for name, score_NK in score.items()}
        row = {"task": task, "id": batch.ids[n], "prompt": batch.prompts[n], "subject": batch.subjects[n]}
        rows.append(row | {"references": references, **files, "scores": scores})
    return rows


def _keep(folder: Path, rows: list[dict[str, Any]], state: dict[str, Any]) -> None:
    write_text(folder / PAIRS, "".join(f"{json_text(row)}\n" for row in rows))
    write_text(folder / STATE, json_text(state) + "\n")
