"""What all benchmarks take, and what all analyses take: their options on the command line and their Python call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from cgrpo.app.options import BaseRecipe, Folder, Many, Run, Settings, Whole
from cgrpo.errors import UserError
from cgrpo.scores import RESERVED

if TYPE_CHECKING:
    from cgrpo.evaluation.adapters.ranking import Ranking
    from cgrpo.evaluation.benchmark.suite import Suite

Split = Literal["train", "validation", "test"]
LAYOUT = (
    "the names of --images: rows (SUBJECT/PP_SEED.png), uno (ROW_IMAGE.png), or a template such as "
    "{subject}/{slug}/{image} of subject, word, index, prompt, slug, row, image, seed"
)
METRICS = (
    "TYPE or TYPE=PATH (dino, clip-i, clip, hpsv3, dino-seg, ...), or a reward of the recipe. Also copy_paste, "
    "brightness, edge_density, saturation, and the toy world's judges. Repeatable (default: dino, clip-i, clip; for "
    "the toy world its rewards and judges)"
)


def _convert(request: Any, paths: Sequence[str], lists: Sequence[str]) -> None:
    """Make paths of texts, and one text in place of several a list of one, as the command line does."""
    for name in paths:
        if isinstance(value := getattr(request, name), str):
            object.__setattr__(request, name, Path(value))
    for name in lists:
        if isinstance(value := getattr(request, name), str):
            object.__setattr__(request, name, (value,))


@Parameter(name="*")
@dataclass(frozen=True)
class EvaluationRequest:
    """What every benchmark takes.

    Args:
        out: pictures and scores; with the same folder again it continues where it ended
        seeds: pictures per prompt
        first_seed: the first seed, by default that of the paper's code
        images: score these pictures of any system instead of generating
        method: name of the rows (default: the folder's)
        protocols: score identity against a subject's one reference, or the mean over all its photos; repeatable
    """

    run: Run = None
    _: KW_ONLY
    out: Folder
    seeds: Many = 4
    first_seed: Whole = 3407
    images: Folder | None = None
    layout: Annotated[str, Parameter(metavar="NAMES", help=LAYOUT)] = "rows"
    method: Annotated[str, Parameter(metavar="NAME")] = ""
    metrics: Annotated[Sequence[str], Parameter(name="--metric", metavar="NAME", help=METRICS)] = ()
    protocols: Annotated[Sequence[Literal["one", "all"]], Parameter(name="--protocol")] = ("one",)
    recipe: BaseRecipe = "toybox"
    settings: Settings = ()

    def __post_init__(self) -> None:
        """Raises UserError for options that contradict each other."""
        _convert(self, ("run", "out", "images"), ("metrics", "protocols", "settings"))
        if self.seeds < 1:
            raise UserError(f"--seeds {self.seeds}: give 1 or more pictures per prompt")
        if self.run is not None and self.images is not None:
            raise UserError(f"--images {self.images}: these are scored as they are; leave out {self.run}, or --images")
        if self.name in RESERVED:
            raise UserError(f"--method {self.name} is the name of a row that is always there; choose another")

    @property
    def name(self) -> str:
        """What the rows are called. Raises UserError for what no folder can be called."""
        name = self.method or (self.images or self.run or Path("base")).resolve().name
        if not name or Path(name).name != name or name.startswith("."):
            raise UserError(f"--method {name!r}: is to be the name of a folder, such as uno-tdw")
        return name


@dataclass(frozen=True)
class Outcome:
    """``summary`` as in benchmark.json; ``failed``: rows of ``scores`` without a score.

    ``is_main``: whether this process prints.
    """

    suite: Suite
    summary: list[dict[str, Any]]
    failed: int
    scores: Path
    is_main: bool = True


@dataclass(frozen=True)
class AdapterRequest:
    """What is evaluated, and how; the arguments of ``cgrpo evaluate adapters``."""

    paths: Sequence[Path]
    out: Path
    data: str = "toybox"
    limit: int = 0
    skip: int = 0
    seeds: int = 2
    metrics: Sequence[str] = ()
    references: bool = True
    strengths: bool = False
    watch: float | None = None
    recipe: str = "toybox"
    settings: Sequence[str] = ()


@dataclass(frozen=True)
class BestAdapter:
    """``file``: the best adapter, copied; None where none is fit. ``unread``: why files were not drawn, by label.

    ``strengths``: the best adapter at several strengths, ranked; None where that was not requested.
    """

    ranking: Ranking
    strengths: Ranking | None
    file: Path | None
    page: Path
    unread: Mapping[str, str] = field(default_factory=dict)
    is_main: bool = True


@Parameter(name="*")
@dataclass(frozen=True)
class AnalysisRequest:
    """What every analysis takes.

    Args:
        base: the untrained policy with the run's settings; files get the suffix -base
        out: where the files go (default: analysis/ in the run)
        split: tasks: what the run trains on, or held-out ones of the toy world
        seed: another seed draws other tasks and other noise
    """

    run: Run = None
    _: KW_ONLY
    base: bool = False
    out: Folder | None = None
    split: Split = "train"
    seed: Whole = 0
    recipe: BaseRecipe = "toybox"
    settings: Settings = ()

    def __post_init__(self) -> None:
        _convert(self, ("run", "out"), ("settings",))

    @property
    def folder(self) -> Path:
        """Raises UserError where neither ``out`` nor a run directory is given."""
        if self.run is not None and not self.run.exists():
            raise UserError(f"{self.run}: no such run directory or adapter")
        if self.out is None and (self.run is None or not (self.run / "config.json").exists()):
            raise UserError("say with --out where the analysis goes, or name a run directory")
        return self.out or Path(self.run or "") / "analysis"


DEFAULT_ANALYSIS = AnalysisRequest()
