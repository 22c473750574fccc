"""What the commands do: train, sample, evaluate. Python users call the same functions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from cgrpo.algorithm import shifted_sigmas
from cgrpo.build import make_policy, make_rewards, make_scorers, make_segmenter, make_source
from cgrpo.config import TOYBOX, Config, load_config
from cgrpo.errors import UserError
from cgrpo.evaluation.generate import generate
from cgrpo.evaluation.heldout import HeldOut, asks_property, compare, heldout_tasks, summarise
from cgrpo.evaluation.report import write_report
from cgrpo.evaluation.sheets import comparison_sheet, row_sheet, sample_sheet
from cgrpo.evaluation.toybox_check import ranking, segmenter_iou
from cgrpo.policies import FluxPolicy, named_parameters, read_picture, reference_policy, save_adapter
from cgrpo.rewards import Reward, scored
from cgrpo.rewards.base import to_pictures, to_tensor
from cgrpo.training.checkpoint import config_fingerprint, load_checkpoint, save_checkpoint
from cgrpo.training.checks import check_agreement, check_moved, fingerprint
from cgrpo.training.grpo import GRPO, Iteration
from cgrpo.training.record import Record
from cgrpo.training.runtime import Runtime
from cgrpo.training.sft import SFT
from cgrpo.types import Batch


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
    source, policy, rewards = make_source(cfg), make_policy(cfg, runtime.device), make_rewards(cfg)
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
                    save_adapter(policy.transformer, record.adapter, base=cfg.policy.path)
            runtime.log(done.metrics, done.number)
            bar.update()
            bar.set_postfix({key: f"{done.metrics[f'reward/{key}/mean']:.3f}" for key in rewards}, refresh=False)
    if runtime.is_main:
        _finish(record, cfg, policy, rewards)
    runtime.wait()
    runtime.close()
    return folder


def _keep(record: Record, cfg: Config, done: Iteration, last: bool) -> None:
    """One iteration's numbers, and now and then its pictures."""
    record.write({"iteration": done.number} | done.metrics)
    if last or done.number % cfg.logging.samples_every == 0:
        sheet = sample_sheet(done.images_NHWC, done.batch, len(done.images_NHWC) // len(done.batch))
        sheet.save(record.samples / f"{done.number:05d}.png")


def _finish(record: Record, cfg: Config, policy: FluxPolicy, rewards: dict[str, Reward]) -> None:
    """Held-out comparison, summary and report."""
    rows, result = record.rows(), None
    summary: dict[str, Any] = {"iterations": len(rows), "metrics": {}}
    summary["seconds"] = {"training": sum(row["seconds/total"] for row in rows)}
    if cfg.evaluation.enabled and cfg.data.source == TOYBOX:
        scorers = make_scorers(rewards)
        result = compare(cfg, policy, scorers)
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


def open_policy(run: Path | None, cfg: Config | None = None) -> tuple[Config, FluxPolicy]:
    """The policy of a run directory or of an adapter file or folder; None is the base. ``cfg`` describes the base."""
    adapter = run
    if run is not None and (run / "config.json").exists():
        record, cfg = Record.open(run)
        adapter = record.adapter
    cfg = cfg or load_config()
    return cfg, make_policy(cfg, adapter=adapter)


def sample(
    run: Path | None,
    references: Sequence[Path],
    prompts: Sequence[str],
    out: Path,
    *,
    seeds: int = 4,
    steps: int | None = None,
) -> list[Path]:
    """Pictures of the referenced subject for each prompt and seed, as PNG files in ``out``, and a sheet of them all."""
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise UserError("--prompt is empty; say what the picture should show")
    pictures = tuple(read_picture(path) for path in references)
    cfg, policy = open_policy(run)
    sigmas = shifted_sigmas(steps or cfg.sampling.steps, cfg.sampling.shift)
    count = len(prompts)
    batch = Batch(tuple(str(n) for n in range(count)), tuple(prompts), (pictures,) * count, ("",) * count)
    try:
        out.mkdir(parents=True, exist_ok=True)
        files, rows = [], []
        for seed in range(seeds):
            rows.append(generate(policy, batch, sigmas, seed))
        images_PGHWC = torch.stack(rows, 1)
        for number, images in enumerate(images_PGHWC):
            for seed, image in enumerate(images):
                files.append(out / f"prompt{number}-seed{seed}.png")
                to_pictures(image[None])[0].save(files[-1])
        files.append(out / "sheet.png")
        sample_sheet(images_PGHWC.flatten(0, 1), batch, seeds).save(files[-1])
    except OSError as error:
        raise UserError(f"can't write to {out}: {error.strerror}; give another --out") from error
    return files


def evaluate_toybox(run: Path | None, settings: Sequence[str] = (), sheet: Path | None = None) -> dict[str, Any]:
    """Mean score of every metric by row.

    real: as the world draws them; autoencoded: those through the autoencoder, the best the policy could do; copy: the
    reference pasted; prompt alone: the base without a reference; base; trained: the run.

    -> {"tasks": N, "rows": {row: {metric: mean}}, "metrics": {metric: {role, axis, unit}}}; ``sheet`` is a file for
    a contact sheet of 24 tasks.
    """
    cfg, policy = open_policy(run, load_config(TOYBOX, settings))
    scorers = make_scorers(make_rewards(cfg))
    source, batch, subject_N = heldout_tasks(cfg)
    sigmas = shifted_sigmas(cfg.sampling.steps, cfg.sampling.shift)
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
    cfg, policy = open_policy(None, load_config(TOYBOX, settings))
    source, batch, _ = heldout_tasks(cfg)
    table = ranking(source, len(batch), make_scorers(make_rewards(cfg)), policy)
    sigmas = shifted_sigmas(cfg.sampling.steps, cfg.sampling.shift)
    iou = segmenter_iou(source, len(batch), make_segmenter(TOYBOX), policy, sigmas)
    return table, iou
