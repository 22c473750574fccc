"""What a run needs before anything is loaded: packages, checkpoints, held-out tasks, and what its tasks must say."""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from cgrpo.build import make_manifest
from cgrpo.config import Config, GroupConfig
from cgrpo.data import toy_source
from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.suite import manifest_suite
from cgrpo.evaluation.heldout import Tasks, heldout_tasks, tasks_of
from cgrpo.hub import Wanted, asset, whereabouts
from cgrpo.policies.settings import PolicySettings
from cgrpo.rewards import RewardSettings
from cgrpo.section import TOYBOX_POLICIES, TOYBOX_WORLDS
from cgrpo.types import Batch, Task


def check_needs(cfg: Config, records: Sequence[Task] = ()) -> None:
    """Raises UserError for the first thing that is missing, and says how many more there are."""
    faults = [*missing(cfg), *unfit(cfg, records)]
    if faults:
        more = f" (and {len(faults) - 1} more; cgrpo data check with the recipe lists them)" if faults[1:] else ""
        raise UserError(f"{faults[0]}{more}")


def missing(cfg: Config) -> list[str]:
    """Packages and checkpoints that are not there, and can't be fetched; a line each."""
    lines = list(_packages(cfg))
    for setting, text, wanted in checkpoints(cfg):
        try:
            whereabouts(text, wanted)
        except UserError as error:
            lines.append(f"{setting}: {error}")
    return lines


def to_fetch(cfg: Config) -> list[str]:
    """Checkpoints that the hub is asked for when the run begins, as ``setting = name``."""
    lines = []
    for setting, text, wanted in checkpoints(cfg):
        try:
            if whereabouts(text, wanted) == "hub":
                lines.append(f"{setting} = {text}")
        except UserError:
            continue
    return lines


def unfit(cfg: Config, tasks: Sequence[Task], *, trained: bool = True) -> list[str]:
    """What a data set's rows lack for the rewards or, if they are ``trained`` on, for the method; a line a lack."""
    if trained and cfg.method == "sft":  # which no reward sees
        return _lacking(tasks, lambda t: "" if t.target else "no target picture, which method sft trains on")
    lacking = [f"{name}: {line}" for name, one in scored_by(cfg).items() for line in _lacking(tasks, one.lacks)]
    if trained and isinstance(cfg, GroupConfig) and (subjects := cfg.weights.subjects) > 1:
        wrong = f"no list of {subjects} phrases as subject, one for each reference"
        lines = _lacking(tasks, lambda task: "" if len(task.phrases) == subjects else wrong)
        lacking += [f"weights.subjects: {line}" for line in lines]
    return lacking


def _lacking(tasks: Sequence[Task], lacks: Callable[[Task], str]) -> list[str]:
    without: dict[str, list[str]] = {}
    for task in tasks:
        if words := lacks(task):
            without.setdefault(words, []).append(task.id)
    return [
        f"{len(ids)} of {len(tasks)} rows, the first of them {ids[0]}, have {words}" for words, ids in without.items()
    ]


def scored_by(cfg: Config) -> dict[str, RewardSettings]:
    """Rewards and the guard's judges by the setting that names each."""
    named = {f"rewards.{name}": settings for name, settings in cfg.rewards.items()}
    return named | {f"guard.scorers.{name}": settings for name, settings in cfg.guard.scorers.items()}


def _packages(cfg: Config) -> Iterator[str]:
    for name, settings in _parts(cfg).items():
        yield from (f"{name}: {line}" for line in settings.missing())


def checkpoints(cfg: Config) -> Iterator[tuple[str, str, Wanted]]:
    """(setting, path or name on the hub, what of it) of every checkpoint that is not the package's own."""
    for name, settings in _parts(cfg).items():
        for key, wanted in settings.checkpoints().items():
            if (path := getattr(settings, key)) not in ("", *TOYBOX_POLICIES):
                yield f"{name}.{key}", path, wanted


def _parts(cfg: Config) -> dict[str, PolicySettings | RewardSettings]:
    """What loads models, by the setting that names each."""
    return {"policy": cfg.policy, **scored_by(cfg)}


def make_guard_tasks(cfg: Config) -> Batch | None:
    """The guard's held-out tasks; None where none are named. Raises UserError for a manifest that can't be read."""
    settings = cfg.guard
    if settings.source:
        source = make_manifest(cfg, settings.source)
        return source.batch(range(min(settings.tasks, len(source.tasks))))
    if cfg.data.source in TOYBOX_WORLDS:
        return toy_source(cfg.data.source, 0, "validation", cfg.data.dial).batch(range(settings.tasks))
    return None


def make_final_tasks(cfg: Config) -> Tasks | None:
    """The final comparison's held-out tasks; None where it is off or has none. Raises UserError as above."""
    settings = cfg.evaluation
    path = settings.source or ("" if cfg.data.source in TOYBOX_WORLDS else cfg.guard.source)
    if not settings.enabled or not (path or cfg.data.source in TOYBOX_WORLDS):
        return None
    if not path:
        return heldout_tasks(cfg)[1]
    source = make_manifest(cfg, path, limit=settings.tasks)
    suite = manifest_suite(source.path, limit=settings.tasks)
    return tasks_of(suite, source.batch(range(len(source.tasks))))


def unknown_words(cfg: Config, prompts: Sequence[str]) -> str:
    """What to say where the toy world's base is given words that it never learnt; "" for known ones and other bases."""
    if cfg.policy.path not in TOYBOX_POLICIES:
        return ""
    tokenizer = json.loads((asset("policy/tokenizer", cfg.policy.path) / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = {word for word in tokenizer["model"]["vocab"] if word.isalpha()}
    unknown = dict.fromkeys(
        word for prompt in prompts for word in re.findall(r"\w+", prompt.lower()) if word not in vocabulary
    )
    if not unknown:
        return ""
    return f"the toy model does not know {', '.join(unknown)}; it knows {' '.join(sorted(vocabulary))}"


def prompts_of(tasks: Sequence[Task]) -> tuple[list[str], list[str]]:
    """The prompts of tasks, and what messages call each."""
    return [task.prompt for task in tasks], [f"record {task.id}" for task in tasks]


def cut_lines(cut: Mapping[str, Sequence[int]], names: Sequence[str]) -> Iterator[str]:
    """How many of the prompts of these names are ``cut``, by which encoder, and which is the first."""
    for encoder, rows in cut.items():
        if rows:
            yield f"{len(rows)} of {len(names)} prompts are cut by {encoder}, the first of them {names[rows[0]]}'s"


def print_cut(cut: Mapping[str, Sequence[int]], names: Sequence[str]) -> None:
    """``cut_lines`` on stderr."""
    for line in cut_lines(cut, names):
        print(f"cgrpo: {line}", file=sys.stderr)
