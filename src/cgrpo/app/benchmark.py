"""What `cgrpo evaluate` does: pictures by a policy or by anyone, and their scores."""

import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from cgrpo.app.requests import EvaluationRequest, Outcome
from cgrpo.app.sample import configuration
from cgrpo.build import make_policy
from cgrpo.config import Config, Section, load_config
from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.candidates import (
    Candidate,
    copy_candidates,
    method_candidates,
    of_no_row,
    real_candidates,
)
from cgrpo.evaluation.benchmark.generate import Autoencoded, Maker, Sampled
from cgrpo.evaluation.benchmark.score import score_candidates
from cgrpo.evaluation.benchmark.suite import Suite, describe
from cgrpo.evaluation.benchmark.toybox import toybox_suite
from cgrpo.evaluation.metrics import Role, Scorer
from cgrpo.evaluation.statistics.cells import short_summary
from cgrpo.rewards import REWARDS, Reward, RewardSettings, make_reward, read_settings
from cgrpo.rewards.measures import Measure, measures
from cgrpo.scores import (
    AUTOENCODED,
    PROMPT_ONLY,
    collect_rows,
    join_description,
    read_scores,
    write_description,
)
from cgrpo.section import TOYBOX_POLICIES
from cgrpo.toybox.judges import make_judges
from cgrpo.training.runtime import Runtime

CLIP = "openai/clip-vit-base-patch32"
PAPER = "uno-dinoseg-hpsv3"  # whose rewards stand for their types where no path is given
# DreamBench's own: DINO, CLIP-I and CLIP-T.
OFFICIAL = {"dino": "facebook/dino-vits16", "clip-i": CLIP, "clip": CLIP}


def run_toybox(request: EvaluationRequest, subjects: int, prompts: int) -> Outcome:
    """The toy world's held-out subjects, drawn into ``request.out/data``; its rewards and judges."""
    runtime = Runtime()
    cfg, _ = configuration(request.run, load_config(request.recipe), request.settings)
    draw = (request.out / "data", cfg.evaluation.split, cfg.data.dial, subjects, prompts)
    if runtime.is_main:
        toybox_suite(*draw)
    runtime.wait()
    return run_benchmark(toybox_suite(*draw, draw=False), request, (*cfg.rewards, *make_judges()))


def run_benchmark(suite: Suite, request: EvaluationRequest, own: Sequence[str]) -> Outcome:
    """Generate, unless there are pictures already, and score into ``request.out``; ``own``: the metrics by default.

    There are always rows of real-vs-real and copy-paste; of prompt-only where a policy generates, and of autoencoded
    where the tasks have targets too. The same call again continues where it ended. Without ``scores.jsonl`` it scores
    again and generates nothing. Raises UserError.
    """
    runtime = Runtime()
    cfg, adapter = configuration(request.run, load_config(request.recipe), request.settings)
    toys = not request.images and cfg.policy.path in TOYBOX_POLICIES and suite.conditions["benchmark"] != "toybox"
    if toys and runtime.is_main:
        print("cgrpo: these pictures are the embedded toy policy's; --recipe names another base", file=sys.stderr)
    # Loaded first, and kept in the CPU's memory meanwhile, so that mistakes show before hours of sampling.
    metrics = make_metrics(cfg, request.metrics or own)
    folders = {request.name: request.images} if request.images else _folders(suite, request)
    table = join_description(request.out, describe(suite, request.out, folders, metrics))
    if not request.images:
        _generate(cfg, adapter, suite, request, folders, runtime)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the policy is gone; now the metrics move in
    items = [item for name, folder in folders.items() for item in _items(name, folder, suite, request)]
    if request.images and runtime.is_main and (left := of_no_row(request.images, items)):
        print(f"cgrpo: {request.images}: {len(left)} pictures are of no row, such as {left[0]}", file=sys.stderr)
    items += [*real_candidates(suite), *copy_candidates(suite)]
    for scorer in metrics.values():
        scorer.score.to(runtime.device)
    outcome = _score(table, metrics, items, suite, request, runtime)
    runtime.wait()
    runtime.close()
    return outcome


def _folders(suite: Suite, request: EvaluationRequest) -> dict[str, Path]:
    """Where the policy's pictures go, by row: the method, prompt-only, and targets through its autoencoder."""
    rows = (request.name, PROMPT_ONLY, *([AUTOENCODED] if suite.with_targets().rows else []))
    return {name: request.out / "pictures" / name for name in rows}


def _items(name: str, folder: Path, suite: Suite, request: EvaluationRequest) -> list[Candidate]:
    if name == AUTOENCODED:
        return method_candidates(name, folder, suite.with_targets(), 1, 0)
    layout = request.layout if request.images else "rows"
    return method_candidates(name, folder, suite, request.seeds, request.first_seed, layout)


def _generate(
    cfg: Config,
    adapter: Path | None,
    suite: Suite,
    request: EvaluationRequest,
    folders: Mapping[str, Path],
    runtime: Runtime,
) -> None:
    sharded = cfg.training.parallel == "fsdp2" and runtime.world > 1
    policy = make_policy(cfg, runtime.device, adapter, spread=sharded)
    sigmas = policy.sigmas(cfg.sampling.steps, cfg.sampling.shift)
    sampled = functools.partial(Sampled, policy, sigmas, suite, seeds=request.seeds, first_seed=request.first_seed)
    makers: dict[str, Maker] = {
        request.name: sampled(alpha=cfg.policy.reference_alpha),
        PROMPT_ONLY: sampled(alone=True),
        AUTOENCODED: Autoencoded(policy, suite),
    }
    if sharded:
        policy.shard(runtime.shard)
    for name, folder in folders.items():
        total = sum(len(block.seeds) for block in makers[name].blocks)
        with tqdm(total=total, desc=name, unit=" pictures", disable=not runtime.is_main) as bar:
            made = makers[name](folder, runtime, bar.update)
        for row, error in list(made.failed.items())[:1]:
            print(f"{name}: {len(made.failed)} prompts without a picture, such as {row}: {error}", file=sys.stderr)
    runtime.wait()


def make_metrics(cfg: Config, names: Sequence[str]) -> dict[str, Scorer]:
    """The metrics asked for, on the CPU, by the name their rows get: without =PATH. Raises UserError."""
    paper = {reward.type: reward for reward in load_config(PAPER).rewards.values()}
    judges = functools.cache(make_judges)  # loaded only if asked for
    chosen: dict[str, RewardSettings | Reward] = {}
    for given in names:
        kind, _, path = given.partition("=")
        if kind in chosen:
            raise UserError(f"--metric {kind} is asked for twice; score the second into another --out")
        if not path and kind in cfg.rewards:
            chosen[kind] = cfg.rewards[kind]
        elif not path and kind in measures():
            chosen[kind] = measures()[kind]
        elif not path and kind in paper:
            chosen[kind] = paper[kind]
        elif kind in REWARDS.names():
            path = path or OFFICIAL.get(kind, "")
            table = {"type": kind} | ({"path": path} if path else {})
            chosen[kind] = read_settings(table, f"--metric {given}")
        elif not path and kind in judges():
            chosen[kind] = judges()[kind]
        else:
            names = ", ".join([*cfg.rewards, *REWARDS.names(), *measures(), *judges()])
            raise UserError(f"--metric {given}: is neither in the recipe nor a type of reward; there are {names}")
    rewards = {name: make_reward(name, kind) if isinstance(kind, Section) else kind for name, kind in chosen.items()}
    return {name: Scorer(_role(name, reward, cfg), reward) for name, reward in rewards.items()}


def _role(name: str, reward: Reward, cfg: Config) -> Role:
    """Rewards are what the recipe trains on; whatever else judges, but for measures that are neither good nor bad."""
    return "guard" if isinstance(reward, Measure) else "reward" if name in cfg.rewards else "judge"


def _score(
    table: dict[str, Any],
    metrics: dict[str, Scorer],
    items: list[Candidate],
    suite: Suite,
    request: EvaluationRequest,
    runtime: Runtime,
) -> Outcome:
    if runtime.is_main:
        write_description(request.out, table)
    runtime.wait()
    with tqdm(total=len(items) // runtime.world, desc="score", unit=" pictures", disable=not runtime.is_main) as bar:
        order = score_candidates(
            metrics,
            items,
            suite.root,
            request.out,
            masks=suite.masks,
            protocols=request.protocols,
            rank=runtime.rank,
            world=runtime.world,
            progress=bar.update,
        )
    runtime.wait()
    if runtime.is_main:
        collect_rows(request.out, order)
    runtime.wait()
    rows = read_scores(request.out)
    summary = short_summary(rows)
    failed = sum(row.score is None for row in rows)
    if runtime.is_main:
        write_description(request.out, table | {"summary": summary, "rows": len(rows), "failed": failed})
    return Outcome(suite, summary, failed, request.out / "scores.jsonl", runtime.is_main)
