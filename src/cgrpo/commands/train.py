"""`cgrpo train`."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from cgrpo.build import make_policy, make_rewards, make_scorers, make_source
from cgrpo.config import TOYBOX, Config
from cgrpo.errors import UserError
from cgrpo.evaluation.heldout import HeldOut, asks_property, compare, summarise
from cgrpo.evaluation.report import write_report
from cgrpo.evaluation.sheets import comparison_sheet, sample_sheet
from cgrpo.files import write_text
from cgrpo.policies import FluxPolicy, named_parameters, save_adapter
from cgrpo.rewards import Reward
from cgrpo.rewards.remote import RemoteReward
from cgrpo.training.checkpoint import config_fingerprint, load_checkpoint, save_checkpoint
from cgrpo.training.checks import check_agreement, check_moved, fingerprint
from cgrpo.training.grpo import GRPO, Iteration
from cgrpo.training.record import Record
from cgrpo.training.runtime import Runtime
from cgrpo.training.sft import SFT


def train(cfg: Config, out: Path | None = None, *, resume: Path | None = None, name: str = "run") -> Path:
    """A whole run: train, compare base and trained on held-out tasks, write the report. Returns the run directory.

    ``resume`` continues the run in that directory from its newest checkpoint, bit for bit. Raises UserError for
    anything the user can mend; nothing that is already written is lost.
    """
    folder = resume or out or Path("outputs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    runtime = Runtime(cfg.logging.tracker, folder)
    folder = Path(runtime.share(str(folder)))
    # Impossible geometry is refused before anything is loaded.
    if cfg.method == "grpo":
        runtime.local(cfg.training.prompts_per_iteration)
    else:
        runtime.local(cfg.supervised.batch, "supervised.batch")
    record = Record(folder) if resume or not runtime.is_main else Record.create(folder, cfg)
    torch.manual_seed(cfg.training.seed)  # for rewards that draw; our own draws don't use the global state
    sharded = cfg.training.parallel == "fsdp2"
    source, policy = make_source(cfg), make_policy(cfg, runtime.device, spread=sharded)
    rewards = make_rewards(cfg, runtime.device)
    if sharded:
        policy.shard(runtime.shard)
    if runtime.is_main:
        check_servers(record, rewards)
    trainer = (GRPO if cfg.method == "grpo" else SFT)(cfg, policy, rewards, source, runtime)
    names = named_parameters(policy.transformer)
    mark = config_fingerprint(cfg)
    first = load_checkpoint(record.checkpoints, names, trainer.optimizer, mark) if resume else 0
    if runtime.is_main and resume:
        record.write_config(cfg)  # it may be longer now
        record.rewind(first)
    runtime.start_tracking({"recipe": name})

    before = fingerprint(trainer.parameters)
    with tqdm(total=cfg.training.iterations, initial=first, desc=name, disable=not runtime.is_main) as bar:
        for done in trainer.run(first):
            if done.number == 0:
                check_moved(before, trainer.parameters, done.metrics["gradient_norm"] > 0)
            last = done.number + 1 == cfg.training.iterations
            if last or (done.number + 1) % cfg.training.checkpoint_every == 0:
                check_agreement(runtime.agree(trainer.parameters))
            if runtime.is_main:
                _keep(record, cfg, done, last)
                if last or (done.number + 1) % cfg.training.checkpoint_every == 0:
                    keep = cfg.training.keep_checkpoints
                    save_checkpoint(record.checkpoints, done.number + 1, names, trainer.optimizer, mark, keep)
                    save_adapter(policy.transformer, record.adapter, origin=policy.origin)
            runtime.log(done.metrics, done.number)
            bar.update()
            bar.set_postfix({key: f"{done.metrics[f'reward/{key}/mean']:.3f}" for key in rewards}, refresh=False)
    _finish(record, cfg, policy, rewards, runtime)
    runtime.wait()
    runtime.close()
    return folder


def check_servers(record: Record, rewards: dict[str, Reward]) -> None:
    """A resumed run must find its remote rewards as they were; what they are is kept in servers.json."""
    found = {name: reward.checkpoint for name, reward in rewards.items() if isinstance(reward, RemoteReward)}
    file = record.folder / "servers.json"
    if not file.exists():
        if found:
            write_text(file, json.dumps(found, indent=2) + "\n")
        return
    for name, checkpoint in json.loads(file.read_text()).items():
        if found.get(name, checkpoint) != checkpoint:
            raise UserError(
                f"reward {name!r}: its server holds another checkpoint ({found[name][:12]}) than when the run began "
                f"({checkpoint[:12]}); start it with the old one, or start a new run"
            )


def _keep(record: Record, cfg: Config, done: Iteration, last: bool) -> None:
    """One iteration's numbers, and now and then its pictures."""
    record.write({"iteration": done.number} | done.metrics)
    if last or done.number % cfg.logging.samples_every == 0:
        sheet = sample_sheet(done.images_NHWC, done.batch, len(done.images_NHWC) // len(done.batch))
        sheet.save(record.samples / f"{done.number:05d}.png")


def _finish(record: Record, cfg: Config, policy: FluxPolicy, rewards: dict[str, Reward], runtime: Runtime) -> None:
    """Held-out comparison, summary and report."""
    result, scorers = None, {}
    if cfg.evaluation.enabled and cfg.data.source == TOYBOX and (runtime.is_main or runtime.sharded):
        scorers = make_scorers(rewards)
        result = compare(cfg, policy, scorers)  # a sharded base needs every process
    if not runtime.is_main:
        return
    rows = record.rows()
    summary: dict[str, Any] = {"iterations": len(rows), "metrics": {}}
    summary["seconds"] = {"training": sum(row["seconds/total"] for row in rows)}
    if result is not None:
        wish_N = asks_property(result.batch)
        summary["split"] = cfg.evaluation.split
        summary["metrics"] = summarise(result, scorers)
        summary["by_prompt"] = {
            "plain": summarise(result, scorers, ~wish_N),
            "property": summarise(result, scorers, wish_N),
        }
        comparison_sheet(result, 24).save(record.folder / "comparison.png")
        _write_scores(record, result)
    record.write_summary(summary)
    write_report(record.folder, rows, cfg, summary, result)


def _write_scores(record: Record, result: HeldOut) -> None:
    """Every held-out score as a tidy row."""
    with (record.folder / "scores.jsonl").open("w", encoding="utf-8") as file:
        for metric, arms in result.scores.items():
            for arm, scores_N in arms.items():
                for task, score in zip(result.batch.ids, scores_N.tolist(), strict=True):
                    value = None if score != score else round(score, 6)
                    file.write(json.dumps({"task": task, "arm": arm, "metric": metric, "score": value}) + "\n")
