"""`cgrpo evaluate dreambench`: pictures by a policy or by anyone, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from cgrpo.algorithm import shifted_sigmas
from cgrpo.build import make_policy, make_reward
from cgrpo.commands.sample import configuration
from cgrpo.config import TOYBOX, Config, RewardSettings, load_config, parse_config
from cgrpo.config.rewards import REWARD_TYPES
from cgrpo.errors import UserError
from cgrpo.evaluation import dreambench
from cgrpo.evaluation.dreambench import PROMPT_ONLY, Item, Layout, Protocol, Row, Which
from cgrpo.policies import FluxPolicy
from cgrpo.rewards import Reward
from cgrpo.training.runtime import Runtime

CLIP = "openai/clip-vit-base-patch32"
# DreamBench's own: DINO, CLIP-I and CLIP-T.
OFFICIAL = {"dino": "facebook/dino-vits16", "clip-i": CLIP, "clip": CLIP}


@dataclass(frozen=True)
class Outcome:
    """``summary`` as in dreambench.json; ``failed`` rows of ``scores`` have no score: exit with 1 if any."""

    summary: list[dict[str, Any]]
    photographs: dict[str, Any]
    failed: int
    scores: Path


@dataclass(frozen=True)
class Ask:
    """Which list, which of its subjects, and which seeds."""

    which: Which = "single"
    subjects: tuple[str, ...] = ()
    seeds: int = 4
    first_seed: int = dreambench.FIRST_SEED


def evaluate_dreambench(
    data: Path,
    out: Path,
    *,
    ask: Ask | None = None,
    run: Path | None = None,
    images: Path | None = None,
    layout: Layout = "rows",
    method: str = "",
    recipe: str = TOYBOX,
    settings: Sequence[str] = (),
    metrics: Sequence[str] = tuple(OFFICIAL),
    protocols: Sequence[Protocol] = ("one",),
) -> Outcome:
    """Generate, unless ``images`` is a folder of pictures made already, and score into ``out``.

    ``data`` is DreamBench's folder of SUBJECT/NN.jpg. ``run`` is a run directory or an adapter, None the base that
    ``recipe`` describes. ``method`` names the rows (by default the run's or the folder's name). ``metrics``: types of
    rewards (dino, clip-i and clip with DreamBench's checkpoints), TYPE=PATH, or names in the recipe. Beside the method
    there are always real-vs-real and copy-paste, and prompt-only where a policy generates. The same call again goes
    on where it broke off; without ``scores.jsonl`` it scores anew and generates nothing. Raises UserError.
    """
    ask = ask or Ask()
    if ask.seeds < 1:
        raise UserError(f"--seeds {ask.seeds}: give 1 or more pictures a prompt")
    method = dreambench.method_name(method or (images or run or Path("base")).resolve().name)
    if run is not None and images is not None:
        raise UserError(f"--images {images}: these are scored as they are; leave out {run}, or --images")
    if method in dreambench.RESERVED:
        raise UserError(f"--method {method} is the name of a row that is always there; choose another")
    rows = dreambench.official_list(ask.which, ask.subjects)
    found = dreambench.check_photographs(data, dreambench.subjects_of(rows))
    runtime = Runtime()
    cfg, adapter = configuration(run, load_config(recipe), settings)
    methods = {method: images} if images else _generate(cfg, adapter, data, out, method, ask, runtime)
    items = [
        item
        for name, folder in methods.items()
        for item in dreambench.method_items(name, folder, rows, ask.seeds, ask.first_seed, layout if images else "rows")
    ]
    items += [*dreambench.real_items(rows, data), *dreambench.copy_items(rows, data)]
    rewards = _metrics(cfg, metrics, runtime)
    table = dreambench.describe(ask.which, data, found, methods, rewards)
    return _score(table, rewards, items, data, out, protocols, runtime)


def _generate(
    cfg: Config, adapter: Path | None, data: Path, out: Path, method: str, ask: Ask, runtime: Runtime
) -> dict[str, Path]:
    """The folders of the method's and of prompt-only's pictures, by method."""
    policy: FluxPolicy = make_policy(cfg, runtime.device, adapter)
    sigmas = shifted_sigmas(cfg.sampling.steps, cfg.sampling.shift, policy.latent_shape[0])
    rows: list[Row] = dreambench.official_list(ask.which, ask.subjects)
    folders = {}
    for name, references in ((method, True), (PROMPT_ONLY, False)):
        share = len(rows[runtime.rank :: runtime.world])
        with tqdm(total=share, desc=name, unit=" prompts", disable=not runtime.is_main) as bar:
            made = dreambench.generate_dreambench(
                policy,
                sigmas,
                data,
                out,
                method=name,
                which=ask.which,
                subjects=ask.subjects,
                seeds=ask.seeds,
                first_seed=ask.first_seed,
                references=references,
                rank=runtime.rank,
                world=runtime.world,
                progress=bar.update,
            )
        folders[name] = made.folder
    runtime.wait()
    del policy
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return folders


def _metrics(cfg: Config, names: Sequence[str], runtime: Runtime) -> dict[str, Reward]:
    """The rewards asked for, by the name their rows get: without =PATH."""
    chosen: dict[str, RewardSettings] = {}
    for given in names:
        kind, _, path = given.partition("=")
        if kind in chosen:
            raise UserError(f"--metric {kind} is asked for twice; score the second into another --out")
        if not path and kind in cfg.rewards:
            chosen[kind] = cfg.rewards[kind]
        elif kind in REWARD_TYPES:
            path = path or OFFICIAL.get(kind, "")
            table = {"type": kind} | ({"path": path} if path else {})
            chosen[kind] = parse_config({"rewards": {kind: table}}, f"--metric {given}").rewards[kind]
        else:
            told = ", ".join([*cfg.rewards, *REWARD_TYPES])
            raise UserError(f"--metric {given}: is neither in the recipe nor a type of reward; there are {told}")
    if not chosen:
        raise UserError("no metric to score with; give --metric, such as dino")
    return {name: make_reward(name, kind, runtime.device) for name, kind in chosen.items()}


def _score(
    table: dict[str, Any],
    rewards: dict[str, Reward],
    items: list[Item],
    data: Path,
    out: Path,
    protocols: Sequence[Protocol],
    runtime: Runtime,
) -> Outcome:
    table = dreambench.join_description(out, table, write=runtime.is_main)
    runtime.wait()
    with tqdm(total=len(items) // runtime.world, desc="score", unit=" pictures", disable=not runtime.is_main) as bar:
        order = dreambench.score_dreambench(
            rewards,
            items,
            data,
            out,
            protocols=protocols,
            rank=runtime.rank,
            world=runtime.world,
            progress=bar.update,
        )
    runtime.wait()
    if runtime.is_main:
        dreambench.collect_rows(out, order)
    runtime.wait()
    rows = dreambench.read_rows(out)
    summary = dreambench.short_summary(rows)
    failed = sum(row.score is None for row in rows)
    if runtime.is_main:
        dreambench.write_description(out, table | {"summary": summary, "rows": len(rows), "failed": failed})
    return Outcome(summary, table["photographs"], failed, out / "scores.jsonl")
