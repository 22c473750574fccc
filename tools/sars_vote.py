"""Draws docs/images/sars-vote.png: how SARS votes on a group that holds copies, in theory and as measured.

The measurements are those of `cgrpo analyze copying` that lie in results/copying.

python tools/sars_vote.py
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from cgrpo.analysis.votes import vote
from cgrpo.evaluation.show.plots import IDENTITY, INK, PROMPT, THIRD, canvas, legend, save

ROOT, SIZE = Path(__file__).parents[1], 12
BASES = {"": "o", "majority-": "s"}
PROCESSES = {"forward": (IDENTITY, "forward process"), "grpo": (PROMPT, "GRPO")}

figure, axes = canvas("Drive beyond the plain sum's, by copies in a group of 12", (7.2, 3.8))
counts = range(1, SIZE)
axes.plot(counts, [vote(count, SIZE) for count in counts], color=THIRD, linewidth=2, label="SARS, theory")
one_sided = [vote(count, SIZE, "one-sided SARS") for count in counts]
axes.plot(counts, one_sided, color=INK, linewidth=2, dashes=(4, 2), label="one-sided SARS, theory")
for (base, marker), (process, (colour, words)) in itertools.product(BASES.items(), PROCESSES.items()):
    path = ROOT / "results" / "copying" / f"{base}{process}.json"
    measured = json.loads(path.read_text(encoding="utf-8"))["sars_drive_by_copies_in_group"]
    label = f"SARS, {words}, {base or 'minority '}base".replace("-", " ")
    for count, (drive, groups) in measured.items():
        size = 3 + 1.6 * groups**0.5
        axes.plot(int(count), drive, marker, color=colour, markersize=size, alpha=0.6, linewidth=0, label=label)
        label = "_"
axes.axhline(0, color=INK, linewidth=0.8)
axes.axvline(SIZE / 2, color=INK, linewidth=0.8, dashes=(2, 3))
axes.set_xticks(list(counts))
axes.set_xlabel("copies in the group; larger: of more groups")
axes.set_ylabel("100 x drive (above 0: more copies)")
legend(axes)
save(figure, ROOT / "docs" / "images" / "sars-vote.png")
