"""`cgrpo analyze`: numbers and plots of a run that say why it learns what it learns."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cgrpo import __version__
from cgrpo.analysis import (
    AnalysisInputs,
    Result,
    branching,
    grouped,
    measure_conflict,
    measure_decisions,
    measure_gradients,
    measure_shaping,
    measure_spectrum,
    with_gradients,
)
from cgrpo.analysis.spectrum import CUTOFF
from cgrpo.build import make_subject
from cgrpo.build.subject import Split
from cgrpo.commands.sample import configuration
from cgrpo.config import TOYBOX, Config, load_config
from cgrpo.errors import UserError
from cgrpo.evaluation.show.plots import save
from cgrpo.files import json_text, write_text
from cgrpo.training.runtime import Runtime


@dataclass(frozen=True)
class AnalysisRequest:
    """What all analyses are asked.

    run      a run directory or an adapter; None: the base that ``recipe`` and ``settings`` describe
    base     the run's settings with the untrained policy
    out      where the files go; by default analysis/ in the run
    split    tasks of the training, or the toy world's held-out ones
    seed     other tasks and other noise for another seed
    """

    run: Path | None = None
    base: bool = False
    out: Path | None = None
    recipe: str = TOYBOX
    settings: Sequence[str] = ()
    split: Split = "train"
    seed: int = 0

    @property
    def folder(self) -> Path:
        """Raises UserError where there is neither ``out`` nor a run directory."""
        if self.run is not None and not self.run.exists():
            raise UserError(f"{self.run}: no such run directory or adapter")
        if self.out is None and (self.run is None or not (self.run / "config.json").exists()):
            raise UserError("say with --out where the analysis goes, or name a run directory")
        return self.out or Path(self.run or "") / "analysis"


@dataclass(frozen=True)
class Analysis:
    """``found``, and the files that tell of it."""

    found: Result
    json: Path
    plot: Path


def analyze_decisions(ask: AnalysisRequest, tasks: int = 24, branches: int = 12) -> Analysis:
    """Which step decides which reward, by branching at each; GRPO only. See ``analysis/decisions.py``."""
    if branches < 2:
        raise UserError(f"--branches {branches}: give 2 or more; a variance needs them")
    measure = functools.partial(measure_decisions, tasks=tasks, branches=branches)
    return analyze("decisions", ask, tasks, branching, measure)


def analyze_conflict(ask: AnalysisRequest, groups: int = 300) -> Analysis:
    """How often the rewards disagree about a sample of a group. See ``analysis/conflict.py``."""
    return analyze("conflict", ask, groups, grouped, functools.partial(measure_conflict, groups=groups))


def analyze_shaping(ask: AnalysisRequest, groups: int = 300) -> Analysis:
    """What SARS is beside a scaled plain sum. See ``analysis/shaping.py``."""
    return analyze("shaping", ask, groups, grouped, functools.partial(measure_shaping, groups=groups))


def analyze_gradients(ask: AnalysisRequest, groups: int = 24) -> Analysis:
    """Whether the rewards pull the same way, step by step. See ``analysis/gradients.py``."""
    if groups < 2:
        raise UserError(f"--groups {groups}: give 2 or more; expectations are told from noise by two groups at least")
    return analyze("gradients", ask, groups, with_gradients, functools.partial(measure_gradients, groups=groups))


def analyze_spectrum(ask: AnalysisRequest, tasks: int = 96, cutoff: float = CUTOFF) -> Analysis:
    """When structure and detail come to be; any method. See ``analysis/spectrum.py``."""
    if not 0 < cutoff < 1:
        raise UserError(f"--cutoff {cutoff:g}: give a share of the highest frequency, above 0 and below 1")
    measure = functools.partial(measure_spectrum, tasks=tasks, cutoff=cutoff)
    return analyze("spectrum", ask, tasks, lambda cfg: None, measure)


def analyze(
    name: str,
    ask: AnalysisRequest,
    count: int,
    able: Callable[[Config], object],
    measure: Callable[[AnalysisInputs], Result],
) -> Analysis:
    """Load what ``ask`` names, measure, and write ``name``.json and .png, "-base" for the base.

    ``able`` refuses configurations that can't be measured, before anything is loaded. Raises UserError.
    """
    folder, device, began = ask.folder, Runtime().device, time.perf_counter()
    cfg, adapter = configuration(ask.run, load_config(ask.recipe), ask.settings)
    able(cfg)
    _make(folder)
    untrained = ask.base or ask.run is None
    if not untrained and adapter is not None and not adapter.exists():
        raise UserError(f"{ask.run} has no adapter yet; wait for its first checkpoint, or give --base")
    with tqdm(total=count, desc=name, leave=False) as bar:
        subject = make_subject(
            cfg, None if untrained else adapter, device, split=ask.split, seed=ask.seed, tick=bar.update
        )
        found = measure(subject)
    told = describe(name, ask, cfg) | {"seconds": round(time.perf_counter() - began, 1)} | found.as_dict()
    return keep(found, told, folder, f"{name}-base" if ask.base else name, "base" if untrained else cfg.title())


def _make(folder: Path) -> None:
    """Before hours are spent on what could not be written. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"can't write to {folder}: {error.strerror}; give another --out") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"can't write to {folder}; give another --out")


def describe(name: str, ask: AnalysisRequest, cfg: Config) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "analysis": name,
        "policy": "base" if ask.base or ask.run is None else str(ask.run),
        "title": cfg.title(),
        "split": ask.split,
        "seed": ask.seed,
        "sampling": cfg.sampling.model_dump(mode="json"),
        "version": __version__,
    }


def keep(found: Result, told: dict[str, Any], folder: Path, name: str, title: str) -> Analysis:
    """The json and the plot, in ``folder``, which is there. Raises OSError."""
    files = folder / f"{name}.json", folder / f"{name}.png"
    write_text(files[0], json_text(told, indent=1) + "\n")
    save(found.draw(title), files[1])
    return Analysis(found, *files)
