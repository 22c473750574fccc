"""Which trainings a table needs. A training is known by what its numbers depend on, so tables share them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cgrpo.config import Config, load_config
from cgrpo.config.methods import keys
from cgrpo.errors import UserError
from cgrpo.fingerprint import of_settings
from cgrpo.reproduce.definition import Scale, Table, TableRow, worlds
from cgrpo.training.checkpoint import config_fingerprint

# Of a run that only a table asks for: nobody watches it. Its guard changes nothing, so only a table that shows the
# checks asks for some.
QUIET = ("logging.tracker=none",)


@dataclass(frozen=True)
class Job:
    """One training: ``recipe`` with ``settings``. ``key`` names it by content, ``label`` to a reader."""

    key: str
    label: str
    recipe: str
    settings: tuple[str, ...]
    seed: int
    config: Config


def job(recipe: str, settings: Sequence[str], seed: int, label: str, every: int = 0) -> Job:
    """``every``: iterations between two held-out checks, 0 for none.

    Raises UserError for settings that do not fit the recipe, or that choose a seed.
    """
    if any(_key(setting) == "training.seed" for setting in settings):
        raise UserError(
            f"{label}: training.seed: a table trains its rows with seeds 0, 1, ...; leave it out (--seeds N)"
        )
    whole = (*settings, f"training.seed={seed}", f"guard.every={every}", *QUIET)
    cfg = load_config(recipe, whole)
    return Job(content_key(cfg), f"{label}, seed {seed}", recipe, whole, seed, cfg)


def content_key(cfg: Config) -> str:
    """By everything that decides the held-out scores: the settings, the length, and what is evaluated."""
    settings, unused = cfg.model_dump(mode="json"), {"batch"}
    unused |= set() if cfg.evaluation.source else {"source", "tasks"}  # the toy world's own tasks
    unused |= set() if cfg.evaluation.copies else {"copies"}
    evaluation = {name: value for name, value in settings["evaluation"].items() if name not in unused}
    return of_settings([config_fingerprint(settings), settings["training"]["iterations"], evaluation])[:16]


def jobs_of(
    table: Table, scale: Scale, world: str, seeds: Sequence[int], settings: Sequence[str] = ()
) -> dict[str, list[Job]]:
    """The trainings of each row that asks for some, by the row's name, a seed each. Raises UserError.

    A row with ``best_of`` asks for one of no iterations, which is evaluated like any other. The row's settings come
    last, so that ``world`` and ``settings`` change what the rows have in common alone.
    """
    common = (*(_world(world) if scale == "toybox" else ()), *settings)
    jobs: dict[str, list[Job]] = {}
    for row in table.rows:
        settled = _best_of(row) if scale == "toybox" else ()
        if row.only in (None, scale) and (row.train or settled):
            recipe = row.recipe.get(scale) or table.recipe.get(scale)
            if recipe is None:
                raise UserError(f"table {table.name}, row {row.name}: recipe.{scale} is not said; name a recipe there")
            # Where nothing is trained, worlds that differ in training alone share their runs.
            fits = [s for s in common if not (settled and s.startswith("training."))]
            own = row.settings(scale)
            whole = (*[s for s in own if s.startswith("method=")], *_fitting(fits, recipe, own), *own, *settled)
            jobs[row.name] = [job(recipe, whole, seed, f"{row.name} ({world})", table.checks) for seed in seeds]
    _check_compared(table, jobs)
    return jobs


def _check_compared(table: Table, rows: Mapping[str, Sequence[Job]]) -> None:
    """Rows are compared on the same held-out tasks. Raises UserError."""
    evaluated = {name: _tasks(jobs[0].config) for name, jobs in rows.items() if jobs}
    for name, tasks in evaluated.items():
        first = next(iter(evaluated))
        if tasks != evaluated[first]:
            raise UserError(
                f"table {table.name}: rows {first} and {name} are evaluated on other tasks, and can't be compared; "
                "set evaluation.* alike in all rows"
            )


def _tasks(cfg: Config) -> dict[str, Any]:
    return cfg.evaluation.model_dump(mode="json", exclude={"batch", "best_of"})


def _best_of(row: TableRow) -> tuple[str, ...]:
    return ("training.iterations=0", f"evaluation.best_of={row.best_of}") if row.best_of else ()


def _world(name: str) -> tuple[str, ...]:
    if name not in worlds():
        raise UserError(f"no world {name!r}: give one of {', '.join(worlds())}")
    return worlds()[name]


def _fitting(common: Sequence[str], recipe: str, own: Sequence[str]) -> list[str]:
    """What of the common settings the row has: a baseline without sampling noise takes none, and one with another
    reward none of the common one's."""
    method = [s for s in own if s.startswith("method=")]
    names = keys(load_config(recipe, method).method)
    replaced = tuple(s.partition("type=")[0] for s in own if s.startswith("rewards.") and ".type=" in s)
    fits = [setting for setting in common if _is_setting(_key(setting), names)]
    return [setting for setting in fits if not (replaced and setting.startswith(replaced))]


def _key(setting: str) -> str:
    return setting.partition("=")[0].strip()


def _is_setting(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names) or key.startswith("rewards.")
