"""Draws docs/images/sars-vote.png: how SARS votes on a group of samples that holds copies, in theory and as measured.

The measurements are those of `cgrpo analyze copying` that lie in results/copying.

python tools/sars_vote.py
"""

from __future__ import annotations

import json
from pathlib import Path

from cgrpo.analysis.votes import vote
from cgrpo.evaluation.show.plots import IDENTITY, INK, PROMPT, THIRD, canvas, legend, save

ROOT, SIZE = Path(__file__).parents[1], 12
MEASURED = {"forward": (IDENTITY, "measured, forward process"), "grpo": (PROMPT, "measured, GRPO")}

figure, axes = canvas("SARS' drive beyond the plain sum's, by copies in a group of 12", (7.2, 3.8))
counts = range(1, SIZE)
theory = [vote(count, SIZE) for count in counts]
axes.plot(counts, theory, color=THIRD, linewidth=2, label="theory: two modes far apart")
for name, (colour, label) in MEASURED.items():
    found = json.loads((ROOT / "results" / "copying" / f"{name}.json").read_text(encoding="utf-8"))
    for count, (drive, groups) in found["sars_drive_by_copies_in_group"].items():
        axes.plot(int(count), drive, "o", color=colour, markersize=3 + 1.6 * groups**0.5, alpha=0.75, label=label)
        label = "_"
axes.axhline(0, color=INK, linewidth=0.8)
axes.axvline(SIZE / 2, color=INK, linewidth=0.8, dashes=(2, 3))
axes.set_xticks(list(counts))
axes.set_xlabel("copies in the group; a larger dot is of more groups")
axes.set_ylabel("100 x drive (above 0: more copies)")
legend(axes)
save(figure, ROOT / "docs" / "images" / "sars-vote.png")
