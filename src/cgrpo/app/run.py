"""A whole run: train, check held-out tasks on the way, compare with the base, write the report."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

import torch
from tqdm import tqdm

from cgrpo.app.finish import finish
from cgrpo.app.guard import Watch, tasks_to_watch
from cgrpo.app.materials import began_in, check_materials
from cgrpo.app.needs import check_needs
from cgrpo.app.pairs import pairs_of
from cgrpo.app.tasks import make_final_tasks, print_cut, prompts_of
from cgrpo.build import make_policy, make_source, make_trainer
from cgrpo.config import Config, PreferenceConfig, parse_run, settled
from cgrpo.data import ManifestSource
from cgrpo.errors import UserError
from cgrpo.evaluation.show.sheets import sample_sheet
from cgrpo.files import alone, json_text, write_text
from cgrpo.rewards import Reward, make_rewards
from cgrpo.rewards.remote.client import RemoteReward
from cgrpo.training.checkpoint import config_fingerprint, load_checkpoint, mark_again, restore_best, save_checkpoint
from cgrpo.training.checks import check_agreement, check_moved, fingerprint
from cgrpo.training.loop import Iteration
from cgrpo.training.record import Record
from cgrpo.training.runtime import Runtime


def train(cfg: Config, out: Path | None = None, *, resume: Path | None = None, name: str = "run") -> Path:
    """A whole run: train, compare base and trained on held-out tasks, write the report. Returns the run directory.

    ``resume`` continues the run in that directory from its newest checkpoint, bit for bit. A run that its guard stops
    ends as if ``training.iterations`` had been that number. Raises UserError for anything the user can mend; nothing
    that is already written is lost.
    """
    folder = resume or out or Path("outputs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    runtime = Runtime(cfg.logging.tracker, folder)
    folder = Path(runtime.share(str(folder)))
    mark = config_fingerprint(cfg.model_dump(mode="json"))
    began = _mark_of_its_beginning(Record(folder), mark) if resume else mark
    runtime.local(*cfg.share())  # impossible geometry is refused before anything is loaded
    with alone(folder) if runtime.is_main else nullcontext(True) as free:
        if not free:
            raise UserError(f"{folder}: another process is training this run; wait for its end, or end it first")
        record = Record(folder) if resume or not runtime.is_main else Record.create(folder, cfg)
        _train(record, cfg, runtime, (mark, began), resume=bool(resume), name=name)
    return folder


def _train(record: Record, cfg: Config, runtime: Runtime, marks: tuple[str, str], *, resume: bool, name: str) -> None:
    """The run in ``record``. ``marks``: of its checkpoints now, and of those of its beginning."""
    mark, began = marks
    torch.manual_seed(cfg.training.seed)  # for rewards that draw; our own draws don't use the global state
    sharded = cfg.training.parallel == "fsdp2"
    placed = settled(cfg, began_in(record)) if resume else cfg  # the same settings, paths as they were meant
    source, watched, final = make_source(placed), tasks_to_watch(placed), make_final_tasks(placed)
    check_needs(placed, source.tasks if isinstance(source, ManifestSource) else ())  # minutes before it would tell
    policy = make_policy(placed, runtime.device, spread=sharded, called=cfg.policy.path)
    rewards = make_rewards(placed.rewards, runtime.device)
    if sharded:
        policy.shard(runtime.shard)
    if runtime.is_main:
        if isinstance(source, ManifestSource):
            prompts, names = prompts_of(source.tasks)
            print_cut(policy.cut_prompts(prompts), names)
        check_servers(record, rewards)
        check_materials(record, cfg, source, policy, rewards, resumed=resume)
    if isinstance(cfg, PreferenceConfig):
        source = pairs_of(cfg, record.folder / "pairs", policy, rewards, source, runtime)
    trainer = make_trainer(cfg, policy, rewards, source, runtime)
    names, state = policy.trainable_parameters(), trainer.state()
    first = load_checkpoint(record.checkpoints, names, trainer.optimizer, state, marks) if resume else 0
    watch = Watch(cfg, watched, policy, rewards, record, runtime, first)
    if runtime.is_main and resume:
        mark_again(record.checkpoints, began, mark)
        record.write_config(cfg)  # it may be longer now, or of an earlier version
        record.rewind(first)
        restore_best(record.checkpoints, first, record.best)
    runtime.start_tracking({"recipe": name})

    before = fingerprint(trainer.parameters)
    with tqdm(total=cfg.training.iterations, initial=first, desc=name, disable=not runtime.is_main) as bar:
        for done in () if trainer.stopped or watch.stopped else trainer.run(first):
            if done.number == 0:
                check_moved(before, trainer.parameters, done.metrics["gradient_norm"] > 0)
            with trainer.average.shown():
                metrics = done.metrics | watch.after(done.number + 1)
            stopped = trainer.stopped or watch.stopped
            last = done.number + 1 == cfg.training.iterations or bool(stopped)
            due = last or (done.number + 1) % cfg.training.checkpoint_every == 0
            if due:
                check_agreement(runtime.agree(trainer.parameters))
            if runtime.is_main:
                _keep(record, cfg, done, metrics, last)
                if due:
                    keep = cfg.training.keep_checkpoints
                    state = (names, trainer.optimizer, trainer.state(), mark)
                    save_checkpoint(record.checkpoints, done.number + 1, *state, keep, record.best)
                    with trainer.average.shown():
                        policy.save(record.adapter)
            runtime.log(metrics, done.number)
            bar.update()
            bar.set_postfix({key: f"{done.metrics[f'reward/{key}/mean']:.3f}" for key in rewards}, refresh=False)
            if stopped:
                break
    if trainer.stopped and runtime.is_main:
        print(f"cgrpo: {trainer.stopped}", file=sys.stderr)
    with trainer.average.shown():
        finish(record, cfg, policy, rewards, runtime, final, watch, trainer.stopped)
    runtime.wait()
    runtime.close()


def _mark_of_its_beginning(record: Record, mark: str) -> str:
    """What marks the checkpoints of a run that an earlier version began with the same settings; else ``mark``."""
    written = record.settings()
    same = config_fingerprint(parse_run(written, str(record.folder)).model_dump(mode="json")) == mark
    return config_fingerprint(written) if same else mark


def check_servers(record: Record, rewards: dict[str, Reward]) -> None:
    """A resumed run must find its remote rewards as they were; what they are is kept in servers.json."""
    found = {name: reward.checkpoint for name, reward in rewards.items() if isinstance(reward, RemoteReward)}
    file = record.folder / "servers.json"
    if not file.exists():
        if found:
            write_text(file, json_text(found, indent=2) + "\n")
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8-sig"))
        known = {name: str(checkpoint) for name, checkpoint in before.items()}
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file}: can't be read ({error}); delete it, if no server has changed") from None
    for name, checkpoint in known.items():
        if found.get(name, checkpoint) != checkpoint:
            raise UserError(
                f"reward {name!r}: its server holds another checkpoint ({found[name][:12]}) than when the run began "
                f"({checkpoint[:12]}); start it with the old one, or start a new run"
            )


def _keep(record: Record, cfg: Config, done: Iteration, metrics: Mapping[str, float], last: bool) -> None:
    """One iteration's numbers, and now and then its pictures."""
    record.write({"iteration": done.number, **metrics})
    if last or done.number % cfg.logging.samples_every == 0:
        sheet = sample_sheet(done.images_NHWC, done.batch, len(done.images_NHWC) // len(done.batch))
        sheet.save(record.samples / f"{done.number:05d}.png")
