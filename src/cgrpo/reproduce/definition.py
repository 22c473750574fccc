"""A table as data: its rows (settings on top of a recipe), the paper's numbers, and what the paper says of them."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from cgrpo.config import Section
from cgrpo.errors import UserError
from cgrpo.files import reading
from cgrpo.section import first_fault
from cgrpo.text import is_blank, read_text

Scale = Literal["toybox", "full"]
SCALES: tuple[Scale, ...] = ("toybox", "full")
AXES = ("identity", "prompt")
FEWEST = 3  # seeds that a verdict needs
LEVEL = 0.01  # on judges between 0 and 1: two rows are level where the interval of their difference lies within this
# What the paper says, in a reader's order; a table's claims say which of these they are part of.
HEADLINES = {
    "degradation": "Competitive degradation: naive GRPO 1:1 gains identity and loses prompt following",
    "full": "The full method gains both, and follows prompts better than naive GRPO",
    "sars": "SARS helps: without it the full method is worse on both axes",
    "tdw": "TDW helps: without it the full method is worse on both axes",
    "inverted": "The inverted schedule collapses: below the base and the standard one",
    "alpha": "alpha = 0.5 is best: above 0 on both axes; 1.0 gains identity, loses prompt following",
    "bounds": "Bounds 0.7 : 0.3 are best: narrower lose both, wider gain identity and lose prompt following",
    "harmonic": "The harmonic mean lies below tanh on both axes",
    "rpo": "RPO copies the reference: identity up, prompt following down",
    "sft": "SFT is flat: level with the base",
    "copying": "Beyond the paper: where a base copies its reference, the full method ends it and naive does not",
}


Printed = Annotated[float | None, BeforeValidator(lambda value: None if value == "-" else value)]


class TableRow(Section):
    name: str
    set: tuple[str, ...] = ()
    """Settings on top of the table's recipe."""
    full: tuple[str, ...] | None = None
    """In place of ``set`` at full scale, where the rewards are other models."""
    recipe: dict[Scale, str] = Field(default_factory=dict)
    """Another recipe than the table's, by scale."""
    only: Scale | None = None
    """The one scale that it is for, where its settings fit no other."""
    train: bool = True
    """False: the base itself."""
    best_of: Annotated[int, Field(ge=2)] | None = None
    """The base again, drawing so many pictures a task, of which the rewards choose one; embedded scale alone."""
    paper: tuple[Printed, ...] = ()
    """The paper's numbers, in the table's columns; "-" where it has none."""

    def settings(self, scale: Scale) -> tuple[str, ...]:
        """On top of the recipe at that scale."""
        return self.set if scale == "toybox" or self.full is None else self.full


class Claim(Section):
    """What the paper says: on ``axis``, ``row`` lies above, below or level with ``against``.

    Identity and prompt are read by their judges; "copies" is the share of copies (evaluation.copies),
    "both_right" the pair world's share of pictures in which both subjects are right.
    """

    says: str
    row: str
    lies: Literal["above", "below", "level"]
    against: str
    axis: Literal["identity", "prompt", "copies", "both_right"]
    headline: str = ""
    """Which of HEADLINES it is part of."""


class Table(Section):
    name: str
    title: str
    source: str
    """Where it stands in the paper."""
    columns: tuple[str, ...]
    """The paper's."""
    recipe: dict[Scale, str]
    rows: Annotated[tuple[TableRow, ...], Field(min_length=1)]
    claims: tuple[Claim, ...] = ()
    worlds: Annotated[tuple[str, ...], Field(min_length=1)] = ("mild",)
    """The embedded worlds it is run in, unless told otherwise; the first is the headline."""
    checks: Annotated[int, Field(ge=0)] = 0
    """Iterations between two held-out checks of a row's runs, which their results keep; 0: none."""
    note: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError("two rows have one name")
        if any(map(is_blank, names)):
            raise ValueError("a row's name is blank")
        for row in self.rows:
            if row.best_of and row.train:
                raise ValueError(f"row {row.name}: best_of goes with train = false")
            if row.paper and len(row.paper) != len(self.columns):
                raise ValueError(f"row {row.name}: {len(row.paper)} numbers for {len(self.columns)} columns")
        for claim in self.claims:
            if claim.row == claim.against:
                raise ValueError(f"claim {claim.says!r}: {claim.row!r} against itself")
            for name in {claim.row, claim.against} - set(names):
                raise ValueError(f"claim {claim.says!r}: no row {name!r}")
            if claim.headline and claim.headline not in HEADLINES:
                raise ValueError(f"claim {claim.says!r}: no headline {claim.headline!r}, only {', '.join(HEADLINES)}")
        return self


def tables() -> dict[str, Path]:
    """The tables that the package carries, by name."""
    folder = Path(str(resources.files("cgrpo") / "recipes" / "tables"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_table(name: str) -> Table:
    """A table by name or from a TOML file. Raises UserError."""
    path = tables().get(name, Path(name))
    with reading(path, "", RecursionError):
        table = {"name": path.stem, **tomllib.loads(read_text(path))}
    try:
        return Table.model_validate(table)
    except ValidationError as error:
        raise UserError(f"table {path}: {first_fault(error, Table.model_fields)}") from None


def worlds() -> dict[str, tuple[str, ...]]:
    """The embedded worlds by name: settings that every run in one has."""
    file = resources.files("cgrpo.reproduce") / "worlds.toml"
    return {name: tuple(table["set"]) for name, table in tomllib.loads(file.read_text(encoding="utf-8")).items()}
