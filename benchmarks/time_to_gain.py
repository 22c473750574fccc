"""What a sweep's rows say: gains with intervals, the front of identity and prompt, and how soon both judges gain.

    python benchmarks/time_to_gain.py ROWS.jsonl... [--plots DIR]

ROWS are those of benchmarks/sweep.py (commit b7c3047), of one kind of machine where seconds are to be compared. Gains
are changes of the held-out judges against the base, with the 95 % interval over training seeds and subjects together.
"until" counts to the first evaluation (on the validation split, as often as the list said) at which both judges have
gained that much. Seconds are of training alone, whatever ran beside.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import torch

from cgrpo.evaluation.statistics.paired import TwoLevel, two_level

JUDGES = {"identity": "identity_readback", "prompt": "prompt_readback"}
GAINS = (0.03, 0.05, 0.08)

Rows = dict[str, list[dict[str, Any]]]


def read(files: list[Path]) -> Rows:
    """All rows by the trainings' name."""
    found: Rows = {}
    for line in itertools.chain.from_iterable(file.read_text().splitlines() for file in files):
        row = json.loads(line)
        if "validation" in row:
            found.setdefault(row["name"], []).append(row)
    return found


def gain(rows: list[dict[str, Any]], split: str, metric: str) -> TwoLevel | None:
    """Of a metric after the last iteration; None where no seed was evaluated on the split."""
    ended = [row for row in rows if row["done"] and split in row]
    if not ended:
        return None
    return two_level(torch.tensor([row[split][metric]["by_subject"] for row in ended], dtype=torch.float64))


def until(rows: list[dict[str, Any]], least: float) -> list[dict[str, Any] | None]:
    """By seed, the first evaluation at which both judges have gained ``least``; None where none has."""
    found = []
    for seed in sorted({row["seed"] for row in rows}):
        mine = sorted((row for row in rows if row["seed"] == seed), key=lambda row: row["iterations"])
        both = (row for row in mine if all(row["validation"][name]["difference"] >= least for name in JUDGES.values()))
        found.append(next(both, None))
    return found


def table(rows: Rows) -> str:
    """Markdown: gains on both splits."""
    head = [
        "training",
        "seeds",
        "iterations",
        *(f"{split}: {axis}" for split in ("validation", "test") for axis in JUDGES),
    ]
    lines = [head, ["---"] * len(head)]
    for name, mine in rows.items():
        ended = [row for row in mine if row["done"]]
        if ended:
            iterations = "/".join(map(str, sorted({row["iterations"] for row in ended})))
            cells = [
                _shown(gain(mine, split, metric)) for split in ("validation", "test") for metric in JUDGES.values()
            ]
            lines.append([name, str(len(ended)), iterations, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def times(rows: Rows) -> str:
    """Markdown: iterations, pictures and seconds until both judges have gained that much, a seed after another."""
    head = ["training", *(f"+{least:g} / +{least:g}" for least in GAINS)]
    lines = [head, ["---"] * len(head)]
    for name, mine in rows.items():
        if any(not row["done"] for row in mine):
            lines.append([name, *(_reached(until(mine, least)) for least in GAINS)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _reached(found: list[dict[str, Any] | None]) -> str:
    seen = [row for row in found if row]
    if not seen:
        return "not reached" if len(found) == 1 else f"not reached ({len(found)} seeds)"
    iterations = ", ".join(str(row["iterations"]) if row else "never" for row in found)
    each = seen[0]["config"]["training"]
    pictures = [row["iterations"] * each["prompts_per_iteration"] * each["group_size"] for row in seen]
    seconds = [row["seconds"] for row in seen]
    spans = (
        " to ".join(dict.fromkeys(f"{of(values):{form}}" for of in (min, max)))
        for values, form in ((pictures, ","), (seconds, ".0f"))
    )
    return "iteration {}; {} pictures; {} s".format(iterations, *spans)


def _shown(found: TwoLevel | None) -> str:
    return "" if found is None else f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def draw(rows: Rows, folder: Path) -> None:
    """front.png: where trainings end on validation; gain.png: the lesser of both judges' gains over iterations."""
    from cgrpo.evaluation.show.plots import IDENTITY, MUTED, PROMPT, THIRD, Spot, canvas, draw_plane, legend, save

    spots = [Spot((0.0, 0.0), MUTED, "s", note="base")]
    for name, mine in rows.items():
        found = [gain(mine, "validation", metric) for metric in JUDGES.values()]
        if found[0] and found[1] and min(found[0].mean, found[1].mean) > -0.1:
            colour = THIRD if name.startswith("GRPO") else PROMPT if "plain" in name or "naive" in name else IDENTITY
            spots.append(Spot((found[0].mean, found[1].mean), colour, note=name.removeprefix("forward: ")))
    figure, axes = canvas("Gains on validation, means over seeds", (11, 6.5))
    draw_plane(axes, spots, "identity judge", "prompt judge", 0.22)
    folder.mkdir(parents=True, exist_ok=True)
    save(figure, folder / "front.png")

    figure, axes = canvas("The lesser of both judges' gains", (9, 5))
    for name, mine in rows.items():
        if any(not row["done"] for row in mine):
            steps = sorted({row["iterations"] for row in mine})
            lesser = [_lesser([row for row in mine if row["iterations"] == step]) for step in steps]
            axes.plot([0, *steps], [0.0, *lesser], marker="o", label=name)
    axes.set_xlabel("iteration")
    axes.set_ylim(max(-0.05, axes.get_ylim()[0]), None)  # a collapse is cut off
    legend(axes)
    save(figure, folder / "gain.png")


def _lesser(rows: list[dict[str, Any]]) -> float:
    return sum(min(row["validation"][name]["difference"] for name in JUDGES.values()) for row in rows) / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("--plots", type=Path, help="a folder for front.png and gain.png")
    given = parser.parse_args()
    rows = read(given.rows)
    print(table(rows), times(rows), sep="\n\n")
    if given.plots:
        draw(rows, given.plots)


if __name__ == "__main__":
    main()
