"""`cgrpo evaluate toybox`, `dreambench` and `manifest`: pictures by a policy or by anyone, and their scores."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from cgrpo.build import make_policy
from cgrpo.commands.sample import configuration
from cgrpo.config import TOYBOX, Config, Section, load_config
from cgrpo.errors import UserError
from cgrpo.evaluation import benchmark
from cgrpo.evaluation.benchmark import Candidate, Maker, Suite, Which
from cgrpo.evaluation.metrics import Role, Scorer
from cgrpo.evaluation.statistics import short_summary
from cgrpo.rewards import REWARDS, Reward, RewardSettings, make_reward, read_settings
from cgrpo.rewards.measures import Measure, measures
from cgrpo.scores import (
    AUTOENCODED,
    PROMPT_ONLY,
    RESERVED,
    Protocol,
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


@dataclass(frozen=True)
class EvaluationRequest:
    """What all benchmarks are asked.

    out       folder of pictures and scores; the same call goes on where it broke off
    run       a run directory or an adapter; None: the base that ``recipe`` and ``settings`` describe
    images    a folder of pictures made already, by whatever system, named by ``layout`` (layouts.py)
    method    names the rows; by default the run's or the folder's name
    metrics   types of rewards (dino, clip-i and clip with DreamBench's checkpoints, dino-seg and hpsv3 as the paper's),
              TYPE=PATH, names in the recipe, measures of the picture alone (rewards/measures.py), or the toy world's
              judges; empty: the benchmark's own
    seeds     pictures a prompt, from ``first_seed`` on
    """

    out: Path
    run: Path | None = None
    images: Path | None = None
    layout: str = "rows"
    method: str = ""
    recipe: str = TOYBOX
    settings: Sequence[str] = ()
    metrics: Sequence[str] = ()
    protocols: Sequence[Protocol] = ("one",)
    seeds: int = 4
    first_seed: int = benchmark.FIRST_SEED

    def __post_init__(self) -> None:
        """Raises UserError for what makes no sense."""
        if self.seeds < 1:
            raise UserError(f"--seeds {self.seeds}: give 1 or more pictures a prompt")
        if self.run is not None and self.images is not None:
            raise UserError(f"--images {self.images}: these are scored as they are; leave out {self.run}, or --images")
        if self.name in RESERVED:
            raise UserError(f"--method {self.name} is the name of a row that is always there; choose another")

    @property
    def name(self) -> str:
        """What the rows are called."""
        return benchmark.method_name(self.method or (self.images or self.run or Path("base")).resolve().name)


@dataclass(frozen=True)
class Outcome:
    """``summary`` as in benchmark.json; ``failed`` rows of ``scores`` have no score: exit with 1 if any.

    ``is_main``: whether this is the process to speak.
    """

    suite: Suite
    summary: list[dict[str, Any]]
    failed: int
    scores: Path
    is_main: bool = True


def evaluate_dreambench(
    data: Path, ask: EvaluationRequest, which: Which = "single", subjects: Sequence[str] = ()
) -> Outcome:
    """DreamBench with the photographs in ``data``, a folder of SUBJECT/NN.jpg. See ``evaluate``."""
    return evaluate(benchmark.dreambench_suite(data, which, subjects), ask, tuple(OFFICIAL))


def evaluate_manifest(path: Path, ask: EvaluationRequest, root: Path | None = None, limit: int = 0) -> Outcome:
    """Any data set's references and prompts; ``limit`` takes its first records alone. See ``evaluate``."""
    return evaluate(benchmark.manifest_suite(path, root, limit), ask, tuple(OFFICIAL))


def evaluate_toybox(ask: EvaluationRequest, subjects: int = 30, prompts: int = 25) -> Outcome:
    """The toy world's held-out subjects, drawn into ``ask.out/data``; its rewards and judges. See ``evaluate``."""
    runtime = Runtime()
    cfg, _ = configuration(ask.run, load_config(ask.recipe), ask.settings)
    draw = (ask.out / "data", cfg.evaluation.split, cfg.data.dial, subjects, prompts)
    if runtime.is_main:
        benchmark.toybox_suite(*draw)
    runtime.wait()
    return evaluate(benchmark.toybox_suite(*draw, draw=False), ask, (*cfg.rewards, *make_judges()))


def evaluate(suite: Suite, ask: EvaluationRequest, own: Sequence[str]) -> Outcome:
    """Generate, unless there are pictures already, and score into ``ask.out``; ``own``: the metrics by default.

    Beside the method there are always real-vs-real and copy-paste, prompt-only where a policy generates, and
    autoencoded where it does and the rows have targets. The same call again goes on where it broke off; without
    ``scores.jsonl`` it scores anew and generates nothing. Raises UserError.
    """
    runtime = Runtime()
    cfg, adapter = configuration(ask.run, load_config(ask.recipe), ask.settings)
    toys = not ask.images and cfg.policy.path in TOYBOX_POLICIES and suite.conditions["benchmark"] != "toybox"
    if toys and runtime.is_main:
        print("cgrpo: these pictures are the embedded toy policy's; --recipe names another base", file=sys.stderr)
    # Loaded first, and kept in the CPU's memory meanwhile: what is wrong is told before hours of sampling.
    metrics = _metrics(cfg, ask.metrics or own)
    folders = {ask.name: ask.images} if ask.images else _folders(suite, ask)
    table = join_description(ask.out, benchmark.describe(suite, ask.out, folders, metrics))
    if not ask.images:
        _generate(cfg, adapter, suite, ask, folders, runtime)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the policy is gone; now the metrics move in
    items = [item for name, folder in folders.items() for item in _items(name, folder, suite, ask)]
    if ask.images and runtime.is_main and (left := benchmark.of_no_row(ask.images, items)):
        print(f"cgrpo: {ask.images}: {len(left)} pictures are of no row, such as {left[0]}", file=sys.stderr)
    items += [*benchmark.real_candidates(suite), *benchmark.copy_candidates(suite)]
    for scorer in metrics.values():
        scorer.score.to(runtime.device)
    outcome = _score(table, metrics, items, suite, ask, runtime)
    runtime.wait()
    runtime.close()
    return outcome


def _folders(suite: Suite, ask: EvaluationRequest) -> dict[str, Path]:
    """Where the policy's pictures go, by row: the method, prompt-only, and targets through its autoencoder."""
    rows = (ask.name, PROMPT_ONLY, *([AUTOENCODED] if suite.with_targets().rows else []))
    return {name: ask.out / "pictures" / name for name in rows}


def _items(name: str, folder: Path, suite: Suite, ask: EvaluationRequest) -> list[Candidate]:
    if name == AUTOENCODED:
        return benchmark.method_candidates(name, folder, suite.with_targets(), 1, 0)
    return benchmark.method_candidates(
        name, folder, suite, ask.seeds, ask.first_seed, ask.layout if ask.images else "rows"
    )


def _generate(
    cfg: Config,
    adapter: Path | None,
    suite: Suite,
    ask: EvaluationRequest,
    folders: Mapping[str, Path],
    runtime: Runtime,
) -> None:
    sharded = cfg.training.parallel == "fsdp2" and runtime.world > 1
    policy = make_policy(cfg, runtime.device, adapter, spread=sharded)
    sigmas = policy.sigmas(cfg.sampling.steps, cfg.sampling.shift)
    sampled = functools.partial(benchmark.Sampled, policy, sigmas, suite, seeds=ask.seeds, first_seed=ask.first_seed)
    makers: dict[str, Maker] = {
        ask.name: sampled(alpha=cfg.policy.reference_alpha),
        PROMPT_ONLY: sampled(alone=True),
        AUTOENCODED: benchmark.Autoencoded(policy, suite),
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


def _metrics(cfg: Config, names: Sequence[str]) -> dict[str, Scorer]:
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
            told = ", ".join([*cfg.rewards, *REWARDS.names(), *measures(), *judges()])
            raise UserError(f"--metric {given}: is neither in the recipe nor a type of reward; there are {told}")
    made = {name: make_reward(name, kind) if isinstance(kind, Section) else kind for name, kind in chosen.items()}
    return {name: Scorer(_role(name, reward, cfg), reward) for name, reward in made.items()}


def _role(name: str, reward: Reward, cfg: Config) -> Role:
    """Rewards are what the recipe trains on; whatever else judges, but for measures that are neither good nor bad."""
    return "guard" if isinstance(reward, Measure) else "reward" if name in cfg.rewards else "judge"


def _score(
    table: dict[str, Any],
    metrics: dict[str, Scorer],
    items: list[Candidate],
    suite: Suite,
    ask: EvaluationRequest,
    runtime: Runtime,
) -> Outcome:
    if runtime.is_main:
        write_description(ask.out, table)
    runtime.wait()
    with tqdm(total=len(items) // runtime.world, desc="score", unit=" pictures", disable=not runtime.is_main) as bar:
        order = benchmark.score_candidates(
            metrics,
            items,
            suite.root,
            ask.out,
            masks=suite.masks,
            protocols=ask.protocols,
            rank=runtime.rank,
            world=runtime.world,
            progress=bar.update,
        )
    runtime.wait()
    if runtime.is_main:
        collect_rows(ask.out, order)
    runtime.wait()
    rows = read_scores(ask.out)
    summary = short_summary(rows)
    failed = sum(row.score is None for row in rows)
    if runtime.is_main:
        write_description(ask.out, table | {"summary": summary, "rows": len(rows), "failed": failed})
    return Outcome(suite, summary, failed, ask.out / "scores.jsonl", runtime.is_main)
