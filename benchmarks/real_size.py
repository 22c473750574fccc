"""The stages of a GPU benchmark, one after another until the time is over; one json line a figure, written at once.

    python benchmarks/real_size.py --out OUT [--seconds 420] [--tiny] [--stages NAME...]

Each stage is a process of its own (``python -m stages.NAME``), so that one that is killed, hangs, or lacks a package
leaves what it and the others measured. OUT/figures.jsonl gets a line ``{"stage": ..., ...}`` per figure, and per stage
one with its seconds and how it ended; OUT/NAME.log what it printed. Models, sizes and settings: stages/model.py
and stages/klein.py.
Weights and conditions are random: no checkpoint is needed, and time does not depend on their values.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

STAGES = {  # in order of worth -> seconds that it may take: about twice of what an H100 should need
    "chip": 40,
    "flux": 150,
    "attention": 60,
    "compiled": 150,
    "klein": 90,
    "toybox": 120,
    "rewards": 100,
    "processes": 60,
    "int8": 60,
    "exact": 60,
    "whole": 150,
}
LEAST = 15  # seconds under which no stage is begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=420, help="for everything, --spent included")
    parser.add_argument("--spent", type=float, default=0, help="seconds already gone by")
    parser.add_argument("--tiny", action="store_true", help="small models: the same road on any CPU")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), metavar="NAME")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    lines, end = options.out / "figures.jsonl", time.monotonic() + options.seconds - options.spent
    write(lines, {"stage": "install", "ended": "done", "seconds": options.spent})
    for name in options.stages:
        left = end - time.monotonic()
        if left < LEAST:
            write(lines, {"stage": name, "ended": "not begun", "why": f"{max(left, 0):.0f} s were left"})
            continue
        limit = left if options.tiny else min(left, STAGES[name])
        write(lines, run(name, lines, options.out, limit, options.tiny))
    return 0 if any("ended" not in row for row in read(lines)) else 1


def run(name: str, lines: Path, out: Path, limit: float, tiny: bool) -> dict:
    """One stage in its own process; how it ended."""
    command = [sys.executable, "-m", f"stages.{name}", str(lines), *(["--tiny"] if tiny else [])]
    start, log = time.monotonic(), out / f"{name}.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=Path(__file__).parent, stdout=file, stderr=file)
        try:
            code = process.wait(limit)
            ended = "done" if code == 0 else f"failed ({code})"
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            ended = f"stopped after {limit:.0f} s"
    found: dict = {"stage": name, "ended": ended, "seconds": round(time.monotonic() - start, 1)}
    if ended != "done":
        found["why"] = (log.read_text(errors="replace").strip().splitlines() or [""])[-1][-300:]
    print(json.dumps(found), flush=True)
    return found


def write(lines: Path, row: dict) -> None:
    """Append a line; a line that a killed process left torn is closed first."""
    torn = lines.exists() and lines.stat().st_size and not lines.read_bytes().endswith(b"\n")
    with lines.open("a") as file:
        file.write(("\n" if torn else "") + json.dumps(row) + "\n")


def read(lines: Path) -> list[dict]:
    """The whole lines of a file; torn ones are passed over."""
    rows = []
    for line in lines.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


if __name__ == "__main__":
    sys.exit(main())
