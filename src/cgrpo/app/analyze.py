"""`cgrpo analyze`: numbers and plots of a run that show why it learns what it learns."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgrpo import __version__
from cgrpo.app.options import Finite, Folder, Fraction, Many, Several, command, group
from cgrpo.app.requests import DEFAULT_ANALYSIS, AnalysisRequest
from cgrpo.errors import UserError
from cgrpo.files import json_text, write_text, writing

if TYPE_CHECKING:
    from cgrpo.analysis import AnalysisInputs, Result
    from cgrpo.config import Config


@dataclass(frozen=True)
class Analysis:
    """``result``, and the files that hold it."""

    result: Result
    json: Path
    plot: Path


def analyze_conflict(request: AnalysisRequest = DEFAULT_ANALYSIS, *, groups: Many = 300) -> Analysis:
    """How often the rewards disagree, and the credit of such samples (Figures 3 and 7).

    Args:
        groups: groups of samples
    """
    from cgrpo.analysis import grouped, measure_conflict

    return analyze("conflict", request, groups, grouped, functools.partial(measure_conflict, groups=groups))


def analyze_copying(
    request: AnalysisRequest = DEFAULT_ANALYSIS, *, groups: Many = 96, threshold: Fraction = 0.0
) -> Analysis:
    """Whether training would make the policy copy its reference, by credit function.

    Args:
        groups: groups of samples
        threshold: a sample is a copy where its copy_paste measure lies above (default: evaluation.copies, else 0.9)
    """
    from cgrpo.analysis import grouped, measure_copying

    measure = functools.partial(measure_copying, groups=groups, threshold=threshold)
    return analyze("copying", request, groups, grouped, measure)


def analyze_gradients(request: AnalysisRequest = DEFAULT_ANALYSIS, *, groups: Several = 24) -> Analysis:
    """Cosine of the rewards' gradients, by step or noise level.

    Args:
        groups: groups of samples
    """
    from cgrpo.analysis import measure_gradients, with_gradients

    return analyze("gradients", request, groups, with_gradients, functools.partial(measure_gradients, groups=groups))


def analyze_decisions(
    request: AnalysisRequest = DEFAULT_ANALYSIS, *, tasks: Many = 24, branches: Several = 12
) -> Analysis:
    """Which step decides which reward, by branching at each step; weights measured from it. GRPO only.

    Args:
        tasks: trajectories
        branches: samples per branching
    """
    from cgrpo.analysis import branching, measure_decisions

    measure = functools.partial(measure_decisions, tasks=tasks, branches=branches)
    return analyze("decisions", request, tasks, branching, measure)


def analyze_shaping(request: AnalysisRequest = DEFAULT_ANALYSIS, *, groups: Many = 300) -> Analysis:
    """SARS against a scaled plain sum, on real advantages.

    Args:
        groups: groups of samples
    """
    from cgrpo.analysis import grouped, measure_shaping

    return analyze("shaping", request, groups, grouped, functools.partial(measure_shaping, groups=groups))


def analyze_spectrum(
    request: AnalysisRequest = DEFAULT_ANALYSIS, *, tasks: Many = 96, cutoff: Finite = 0.25
) -> Analysis:
    """When structure and detail of the picture emerge (Figure 4).

    Args:
        tasks: pictures
        cutoff: between the bands, as a share of the highest frequency
    """
    from cgrpo.analysis import measure_spectrum

    if not 0 < cutoff < 1:
        raise UserError(f"--cutoff {cutoff:g}: give a share of the highest frequency, above 0 and below 1")
    measure = functools.partial(measure_spectrum, tasks=tasks, cutoff=cutoff)
    return analyze("spectrum", request, tasks, lambda cfg: None, measure)


def alignment(study: Folder, /, *, scores: Folder | None = None, out: Folder) -> Path:
    """Which reward agrees with people's ratings, and how far anything could (Table 6).

    Args:
        study: folder of a study made with cgrpo study create --mode rating, or of DreamBench++'s ratings
        scores: scores of the same pictures, the --out of cgrpo evaluate (default: those the study was made from)
        out: folder for alignment.json, .md and .html
    """
    from cgrpo.study.report.alignment import write_alignment

    return write_alignment(study, scores, out)


def analyze(
    name: str,
    request: AnalysisRequest,
    count: int,
    check: Callable[[Config], object],
    measure: Callable[[AnalysisInputs], Result],
) -> Analysis:
    """Load what ``request`` names, measure, and write ``name``.json and .png ("-base" for the base).

    ``check`` refuses configurations that can't be measured, before anything is loaded. Raises UserError.
    """
    from tqdm import tqdm

    from cgrpo.app.sample import configuration
    from cgrpo.build import make_subject
    from cgrpo.config import load_config
    from cgrpo.evaluation.show.plots import save
    from cgrpo.training.runtime import Runtime

    folder, device, start = request.folder, Runtime().device, time.perf_counter()
    cfg, adapter = configuration(request.run, load_config(request.recipe), request.settings)
    check(cfg)
    _check_writable(folder)
    untrained = request.base or request.run is None
    if not untrained and adapter is not None and not adapter.exists():
        raise UserError(f"{request.run} has no adapter yet; wait for its first checkpoint, or give --base")
    with tqdm(total=count, desc=name, leave=False) as bar:
        chosen = None if untrained else adapter
        result = measure(make_subject(cfg, chosen, device, split=request.split, seed=request.seed, tick=bar.update))
    table = _description(name, request, cfg) | {"seconds": round(time.perf_counter() - start, 1)} | result.as_dict()
    stem = f"{name}-base" if request.base else name
    analysis = Analysis(result, folder / f"{stem}.json", folder / f"{stem}.png")
    write_text(analysis.json, json_text(table, indent=1) + "\n")
    save(result.draw("base" if untrained else cfg.title()), analysis.plot)
    return analysis


def _check_writable(folder: Path) -> None:
    """Before hours are spent on what could not be written. Raises UserError."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: can't be written; give another --out")


def _description(name: str, request: AnalysisRequest, cfg: Config) -> dict[str, Any]:
    return {
        "analysis": name,
        "policy": "base" if request.base or request.run is None else str(request.run),
        "title": cfg.title(),
        "split": request.split,
        "seed": request.seed,
        "sampling": cfg.sampling.model_dump(mode="json"),
        "version": __version__,
    }


def show_analysis(analysis: Analysis) -> None:
    """Print the tables, and where the files are."""
    for table in analysis.result.tables():
        print(f"{table.title}\n{table.note}\n\n{table.text()}\n")
    print(f"{analysis.json}, {analysis.plot}")


CONFLICT_EXAMPLES = """\
cgrpo analyze conflict outputs/run
cgrpo analyze conflict outputs/run --base
cgrpo analyze conflict --set rewards.identity.masks=reference \\
    --out outputs/base-conflict"""
COPYING_EXAMPLES = """\
cgrpo analyze copying --recipe copy-forward --out outputs/copying
cgrpo analyze copying outputs/run --base"""
DECISIONS_EXAMPLES = """\
cgrpo analyze decisions outputs/run
cgrpo analyze decisions --set sampling.kind=cps --out outputs/base-cps"""
GRADIENTS_EXAMPLES = """\
cgrpo analyze gradients outputs/run
cgrpo analyze gradients --recipe forward --out outputs/base-forward"""
ALIGNMENT_EXAMPLES = """\
cgrpo analyze alignment ratings --out alignment
cgrpo analyze alignment ratings --scores more-scores --out alignment
cgrpo analyze alignment dreambench_plus --out alignment"""

app = group(
    "analyze",
    "Numbers and plots of a run that show why it learns what it learns.",
    command("conflict", analyze_conflict, CONFLICT_EXAMPLES, show_analysis),
    command("copying", analyze_copying, COPYING_EXAMPLES, show_analysis),
    command("gradients", analyze_gradients, GRADIENTS_EXAMPLES, show_analysis),
    command("decisions", analyze_decisions, DECISIONS_EXAMPLES, show_analysis),
    command("shaping", analyze_shaping, "cgrpo analyze shaping outputs/run --groups 100", show_analysis),
    command("spectrum", analyze_spectrum, "cgrpo analyze spectrum outputs/run --split test", show_analysis),
    command("alignment", alignment, ALIGNMENT_EXAMPLES, print),
)
