"""A whole run: train, check held-out tasks on the way, compare with the base, write the report."""

import shlex
import signal
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from cgrpo.app.heldout import Watch, finish, tasks_to_watch
from cgrpo.app.materials import check_materials
from cgrpo.app.needs import check_needs, make_final_tasks, print_cut, prompts_of
from cgrpo.app.pairs import pairs_of
from cgrpo.build import make_policy, make_source
from cgrpo.config import Config, GroupConfig, settled, with_batches
from cgrpo.data import ManifestSource, Source
from cgrpo.errors import Stopped, UserError
from cgrpo.evaluation.show.sheets import sample_sheet
from cgrpo.files import alone
from cgrpo.launch import run_folder
from cgrpo.policies.base import Policy
from cgrpo.rewards import make_rewards
from cgrpo.training.batches import measured_batches
from cgrpo.training.checkpoint import (
    binding_settings,
    checkpoints,
    load_checkpoint,
    restore_best,
    save_checkpoint,
)
from cgrpo.training.loop import Iteration, Loop, make_loop
from cgrpo.training.preference.settings import PreferenceConfig
from cgrpo.training.record import RunRecord
from cgrpo.training.runtime import Runtime


def train(cfg: Config, out: Path | None = None, *, resume: Path | None = None, name: str = "run") -> Path:
    """Train, compare base and trained on held-out tasks, write the report. Returns the run directory.

    ``resume`` continues the run in that directory from its newest checkpoint, bit for bit. ``name`` is what a new run
    is called, such as its recipe's name. A run that its guard stops ends as if ``training.iterations`` had been that
    number. Raises UserError for anything the user can fix; nothing that is already written is lost.
    """
    folder = resume or out or run_folder(name)
    runtime = Runtime(cfg.logging.tracker, folder)
    folder = Path(runtime.share(str(folder)))
    runtime.local(*cfg.share())  # impossible geometry is refused before anything is loaded
    with alone(folder) if runtime.is_main else nullcontext(True) as free:
        if not free:
            raise UserError(f"{folder}: another process is training this run; wait for its end, or end it first")
        record = RunRecord(folder) if resume or not runtime.is_main else RunRecord.create(folder, cfg)
        try:
            _run(record, cfg, runtime, resumed=bool(resume), name=name)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"cgrpo train --resume {shlex.quote(str(folder))} continues the run") from None
    return folder


def _run(record: RunRecord, cfg: Config, runtime: Runtime, *, resumed: bool, name: str) -> None:
    torch.manual_seed(cfg.training.seed)  # for rewards that draw; our own draws don't use the global state
    began = record.beginning() if resumed else {"recipe": name}
    name = began.get("recipe", record.folder.name)
    # The same settings; relative paths mean what they meant where the run began.
    placed = settled(cfg, Path(began.get("folder", "."))) if resumed else cfg
    source, guard_tasks, final = make_source(placed), tasks_to_watch(placed), make_final_tasks(placed)
    check_needs(placed, source.tasks if isinstance(source, ManifestSource) else ())
    sharded = cfg.training.parallel == "fsdp2"
    policy = make_policy(placed, runtime.device, spread=sharded, called=cfg.policy.path)
    rewards = make_rewards(placed.rewards, runtime.device)
    if sharded:
        policy.shard(runtime.shard)
    if runtime.is_main:
        if isinstance(source, ManifestSource):
            prompts, names = prompts_of(source.tasks)
            print_cut(policy.cut_prompts(prompts), names)
        check_materials(record, cfg, source, policy, rewards, name, resumed=resumed)
    cfg = _with_batches(record, cfg, policy, source, runtime, resumed=resumed)
    if isinstance(cfg, PreferenceConfig):
        source = pairs_of(cfg, record.folder / "pairs", policy, rewards, source, runtime)
    trainer = make_loop(cfg, policy, rewards, source, runtime)
    first = _restore(record, cfg, policy, trainer) if resumed else 0
    watch = Watch(cfg, guard_tasks, final, policy, rewards, record, runtime, first)
    if runtime.is_main and resumed:
        record.write_config(cfg)  # it may be longer now
        if lost := record.rewind(first):
            lines = f"{lost} of the first {first} iterations have no readable line"
            print(f"cgrpo: {record.metrics_file}: {lines}; the report leaves them out", file=sys.stderr)
        restore_best(record.checkpoints, first, record.best)
    if runtime.is_main:
        runtime.start_tracking(record.folder, record.id, cfg.model_dump(mode="json"))
    with (
        tqdm(total=cfg.training.iterations, initial=first, desc=name, disable=not runtime.is_main) as bar,
        runtime.noting_signals(),
    ):
        _iterate(record, cfg, policy, trainer, watch, runtime, first, bar)
    if runtime.is_main:
        record.write_speed(cfg, runtime.world)
    if trainer.stopped and runtime.is_main:
        print(f"cgrpo: {trainer.stopped}", file=sys.stderr)
    try:
        with trainer.average.shown():
            finish(record, cfg, policy, rewards, runtime, final, watch, trainer.stopped)
    except UserError as error:
        cure = f"cgrpo train --resume {shlex.quote(str(record.folder))} repeats the comparison alone"
        raise UserError(f"{error}; the trained adapter is safe in {record.adapter}", cure) from error
    runtime.wait()
    runtime.close()


def _with_batches(
    record: RunRecord, cfg: Config, policy: Policy, source: Source, runtime: Runtime, *, resumed: bool
) -> Config:
    """``cfg`` with numbers in place of "auto": those of the run's record, or newly measured and then recorded."""
    if resumed:
        _, before = RunRecord.open(record.folder)
        sampling = before.sampling.batch if isinstance(before, GroupConfig) else 1
        cfg = with_batches(cfg, before.training.micro_batch, sampling)
    measured = measured_batches(cfg, policy, source, runtime)
    if measured != cfg and runtime.is_main:
        record.write_config(measured)
        batch = f", sampling.batch = {measured.sampling.batch}" if isinstance(measured, GroupConfig) else ""
        print(f"cgrpo: measured: training.micro_batch = {measured.training.micro_batch}{batch}", file=sys.stderr)
    return measured


def _restore(record: RunRecord, cfg: Config, policy: Policy, trainer: Loop[Any]) -> int:
    """Load the newest checkpoint; returns the iteration that the run continues with.

    0 for a run that was ended before its first checkpoint. Raises UserError where its checkpoints are lost.
    """
    if not checkpoints(record.checkpoints) and any(record.adapter.glob("*.safetensors")):  # written after one
        raise UserError(
            f"{record.checkpoints} holds no checkpoint, but the run had some", "restore one, or start a new run"
        )
    names, state = policy.trainable_parameters(), trainer.state()
    settings = binding_settings(cfg.model_dump(mode="json"))
    return load_checkpoint(record.checkpoints, names, trainer.optimizer, state, settings)


def _iterate(
    record: RunRecord,
    cfg: Config,
    policy: Policy,
    trainer: Loop[Any],
    watch: Watch,
    runtime: Runtime,
    first: int,
    bar: tqdm,
) -> None:
    """Iterations from ``first`` on, until the last, or until the trainer or the guard stops the run.

    Raises Stopped after the iteration in which a signal came, once its checkpoint is written.
    """
    for done in () if trainer.stopped or watch.stopped else trainer.run(first):
        with trainer.average.shown():
            metrics = done.metrics | watch.after(done.number + 1)
        stopped = trainer.stopped or watch.stopped
        last = done.number + 1 == cfg.training.iterations or bool(stopped)
        number = runtime.noted_signal()
        due = last or number > 0 or (done.number + 1) % cfg.training.checkpoint_every == 0
        if due:
            runtime.check_agreement(trainer.parameters)
        if runtime.is_main:
            _write_iteration(record, cfg, done, metrics, last)
            if due:
                _save(record, cfg, policy, trainer, done.number + 1)
        runtime.log(metrics, done.number)
        bar.update()
        bar.set_postfix({key: f"{done.metrics[f'reward/{key}/mean']:.3f}" for key in cfg.rewards}, refresh=False)
        if number:
            bar.close()
            runtime.wait()
            runtime.close()
            cure = f"cgrpo train --resume {shlex.quote(str(record.folder))} continues the run"
            raise Stopped(f"{signal.Signals(number).name}: stopped after iteration {done.number}; {cure}", number)
        if stopped:
            break


def _write_iteration(record: RunRecord, cfg: Config, done: Iteration, metrics: Mapping[str, float], last: bool) -> None:
    record.write({"iteration": done.number, **metrics})
    if last or done.number % cfg.logging.samples_every == 0:
        sheet = sample_sheet(done.images_NHWC, done.batch, len(done.images_NHWC) // len(done.batch))
        record.samples.mkdir(exist_ok=True)  # it may have been deleted while the run was ended
        sheet.save(record.samples / f"{done.number:05d}.png")


def _save(record: RunRecord, cfg: Config, policy: Policy, trainer: Loop[Any], iteration: int) -> None:
    save_checkpoint(
        record.checkpoints,
        iteration,
        policy.trainable_parameters(),
        trainer.optimizer,
        trainer.state(),
        binding_settings(cfg.model_dump(mode="json")),
        cfg.training.keep_checkpoints,
        record.best,
    )
    with trainer.average.shown():
        policy.save(record.adapter)
