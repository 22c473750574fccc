"""docs/notes/results.md from the finished trainings under results/runs. Called by generate.py.

A training's file gets there from `cgrpo reproduce NAME --out DIR`: DIR/results/*.json.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from cgrpo.reproduce import (
    Results,
    Scoreboard,
    board_tables,
    every_claim,
    headlines,
    jobs_of,
    load_table,
    scoreboard,
    tables,
    worlds,
)

HERE = Path(__file__).parent
STORED = HERE.parent / "results"
FIRST = ("table2", "rivals")  # the others follow by name
SEEDS = {"table2": 5, "rivals": 5, "copy": 5}  # others have three


def boards() -> list[Scoreboard]:
    """Every table in every world of which something was trained."""
    results = Results(STORED / "runs")
    found = []
    for name in (*FIRST, *(name for name in tables() if name not in FIRST)):
        table = load_table(name)
        for world in (world for world in worlds() if world in table.worlds):
            jobs = jobs_of(table, "toybox", world, range(SEEDS.get(name, 3)))
            if any(results.find(job.key) for row in jobs.values() for job in row):
                found.append(scoreboard(table, world, jobs, results))
    return found


def page() -> str:
    """The page's text."""
    found = boards()
    text = (HERE / "results.template.md").read_text(encoding="utf-8")
    told = [
        f"### {table.title}\n\n{table.note}\n\n{_bare(table.markdown())}"
        for b in found
        if b.table.name != "table1"  # its trained rows are Table 2's
        for table in board_tables(b)[-1:]
    ]
    for place, table in (("{headlines}", headlines(found)), ("{claims}", every_claim(found))):
        text = text.replace(place, f"{table.note}\n\n{_bold(_bare(table.markdown()))}")
    return text.replace("{tables}", "\n".join(told)).replace("{table8}", _table8())


def _table8() -> str:
    """What `cgrpo reproduce table8` measured on a quiet machine."""
    found = json.loads((STORED / "table8.json").read_text(encoding="utf-8"))
    rule = ["---", *["---:"] * (len(found["head"]) - 1)]
    lines = ["| " + " | ".join(cells) + " |" for cells in (found["head"], rule, *found["rows"])]
    return f"`{found['command']}` on {found['machine']}. {found['note']}\n\n" + "\n".join(lines)


def _bold(markdown: str) -> str:
    """Verdicts first and bold, so that a reader sees them before the numbers."""
    return re.sub(r"\| (holds|does not hold|in part|level|unclear|too few seeds)(?=: )", r"| **\1**", markdown)


NARROW = {"identity_readback": "identity judge", "prompt_readback": "prompt judge", "copy_paste": "copy paste"}


def _bare(markdown: str) -> str:
    """The rows alone, under heads that may be broken over two lines."""
    head, *rows = (line for line in markdown.splitlines() if line.startswith("|"))
    for name, words in NARROW.items():
        head = head.replace(f"| {name} ", f"| {words} ")
    return "\n".join([head, *rows]) + "\n"
