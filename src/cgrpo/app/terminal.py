"""How commands look in a terminal: colours where it has them, a run's header, tables and verdicts."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from cgrpo.config import Config
    from cgrpo.evaluation.show.table import Table

CODES = {"rose": "32", "fell": "31", "mixed": "33", "unknown": "33", "strong": "1", "muted": "2"}
SECONDS = {"iteration": 3.0, "rest": 80.0}  # of the default toy run on two slow cores: 720 samples x steps; the rest


def coloured(text: str, tone: str, stream: TextIO | None = None) -> str:
    """``text`` in the colour of ``tone`` where ``stream`` is a terminal that has some; see no-color.org."""
    stream = stream or sys.stdout
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb" or stream is None or not stream.isatty()
    return text if plain or tone not in CODES else f"\033[{CODES[tone]}m{text}\033[0m"


def print_table(table: Table, tones: Sequence[str] = ()) -> None:
    """A table with its head in bold and each row in the colour of its tone."""
    head, *rows = table.text().splitlines()
    print(coloured(head, "strong"))
    for row, tone in zip(rows, tones or [""] * len(rows), strict=True):
        print(coloured(row, tone))


def print_header(cfg: Config, name: str, folder: Path, *, resumed: bool) -> None:
    """What a run trains, on what, for how long, and where it writes, on stderr."""
    facts: Mapping[str, str] = {
        "Policy": f"{cfg.policy.path}, LoRA of rank {cfg.policy.rank}",
        "Data": cfg.data.source,
        **cfg.facts(),
        "Length": f"{cfg.training.iterations} iterations{_duration(cfg)}",
        "Output": f"{folder}{' (resumed)' if resumed else ''}",
    }
    print(coloured(f"{name}: {cfg.title()}", "strong", sys.stderr), file=sys.stderr)
    width = max(map(len, facts))
    for heading, words in facts.items():
        print(f"  {heading:{width}}  {words}", file=sys.stderr, flush=True)


def _duration(cfg: Config) -> str:
    """How long a run of the toy world takes; of other runs the bar says it, and `cgrpo plan` beforehand."""
    from cgrpo.config import GroupConfig
    from cgrpo.section import TOYBOX

    if cfg.policy.path != TOYBOX or not isinstance(cfg, GroupConfig):
        return ""
    samples = cfg.training.prompts_per_iteration * cfg.training.group_size * cfg.sampling.steps
    seconds = cfg.training.iterations * SECONDS["iteration"] * samples / 720 + SECONDS["rest"]
    minutes = max(1, round(seconds / 60))
    return f", about {minutes} minute{'s' * (minutes > 1)} on two slow CPU cores"
