"""Is a base in danger of learning to copy its reference? Told from groups of samples, before any training.

A picture is a copy where ``CopyPaste`` lies above a threshold. Three numbers decide what training makes of copies: how
many there are, how much of their variance lies within groups (what differs between groups alone is never credited),
and the *drive* of a credit function, the mean over a group's samples of (is a copy - share of copies) * credit. To
first order the drive is by how much the log-odds of copying rise; 0 leaves the share as it is.

A base without a copy has no drive. So the reference itself is planted in every group too, in place of one sample: its
credit says what training would do to the first copy that exploration finds.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from cgrpo.algorithm import group_advantages
from cgrpo.analysis.inputs import PAIR, AnalysisInputs, Estimate, Result, draw_groups, estimate, grouped
from cgrpo.analysis.votes import CREDIT_FUNCTIONS, bonus_drive, credit_by, vote
from cgrpo.errors import UserError
from cgrpo.evaluation.show.plots import INK, MUTED, PROMPT, THIRD, legend, panels
from cgrpo.evaluation.show.table import Table, number
from cgrpo.rewards import scored
from cgrpo.rewards.base import to_pictures, to_tensor
from cgrpo.rewards.measures import CopyPaste

THRESHOLD = 0.9
EARLY = 0.3  # share of the steps that "early" means: where a picture's layout, and so a copy, is decided
SAMPLED = "found, all steps"
FEW = 0.005  # a smaller share of copies gives no drive worth an interval


@dataclass(frozen=True)
class CopyGroups:
    """What was drawn of P groups of G samples.

    scores_PG2   identity and prompt, NaN where one could not be scored
    near_PG      ``CopyPaste``: 1 is the reference itself, NaN where a task has none
    planted_P2   the two scores of the reference itself, in the picture's place
    """

    scores_PG2: Tensor
    near_PG: Tensor
    planted_P2: Tensor


@dataclass(frozen=True)
class Treatment:
    """How a credit function treats copies.

    credit   a copy's mean credit over all steps, in groups that hold copies and others
    drive    100 times the drive, over all steps
    early    the same over the first steps, where weights that change over the steps count differently
    planted  the mean credit of the reference itself, planted in each group, over the first steps
    """

    credit: Estimate
    drive: Estimate
    early: Estimate
    planted: Estimate

    @property
    def direction(self) -> Literal["more", "fewer", "unclear"]:
        """What training makes of copies at first: by the drive, or where there are none by a planted one's credit."""
        drive = self.planted if math.isnan(self.early.mean) else self.early
        return "more" if drive.above() else "fewer" if drive.below() else "unclear"


@dataclass(frozen=True)
class Copying(Result):
    """Numbers over groups.

    share       of samples that are copies
    border      of samples just below the threshold: above 0.02 the threshold cuts through a mode
    within      share of the variance of "is a copy" that lies within groups; NaN without a copy, or with nothing else
    mixed       share of groups with copies and others; ``all_copies``: of groups with nothing else
    identity, prompt   mean advantage of copies in mixed groups
    nearness    ``CopyPaste`` of every sample
    by_count    100 times SARS' drive beyond the plain sum, by the number of copies in a group: (mean, groups)
    """

    groups: int
    group_size: int
    threshold: float
    share: Estimate
    border: float
    within: float
    mixed: float
    all_copies: float
    identity: float
    prompt: float
    treatments: Mapping[str, Treatment]
    nearness: Tensor
    by_count: Mapping[int, tuple[float, int]]

    @property
    def verdict(self) -> str:
        """In words, for whoever is about to train."""
        more = [name for name, treatment in self.treatments.items() if treatment.direction == "more"]
        pushed = f"Credit functions that train towards copies: {', '.join(more) or 'none'}."
        if self.share.mean <= FEW:
            return (
                f"The base hardly ever copies its reference ({100 * self.share.mean:.1f} % of samples). {pushed} "
                + ("Watch the share of copies while training." if more else "Copying is no danger here.")
            )
        most = "; most samples are copies, and SARS votes with the majority of a group" if self.share.mean > 0.5 else ""
        held = "" if self.within > 0.2 else " Little of it varies within groups, so training sees little of it."
        return f"The base copies: {100 * self.share.mean:.0f} % of its samples{most}.{held} {pushed}"

    def as_dict(self) -> dict[str, Any]:
        plain = {
            name: getattr(self, name)
            for name in ("groups", "group_size", "threshold", "border", "within", "mixed", "all_copies")
        }
        return {
            "verdict": self.verdict,
            **plain,
            "share": asdict(self.share),
            "advantage_of_copies": {"identity": self.identity, "prompt": self.prompt},
            "credit_functions": {
                name: {"direction": treatment.direction, **asdict(treatment)}
                for name, treatment in self.treatments.items()
            },
            "sars_drive_by_copies_in_group": {str(count): drive for count, drive in self.by_count.items()},
        }

    def tables(self) -> list[Table]:
        rows = [
            [name, str(t.credit), str(t.drive), str(t.early), str(t.planted), t.direction]
            for name, t in self.treatments.items()
        ]
        head = ["credit function", "credit of a copy", "drive x 100", "early steps", "planted copy", "copies become"]
        note = (
            f"{self.verdict} {self.groups} groups x {self.group_size} samples, copies: {self.share} (measure above "
            f"{self.threshold:g}; {100 * self.border:.1f} % lie just below), groups with copies and others: "
            f"{100 * self.mixed:.0f} %, variance within groups: {number(self.within, 2)}. A copy's mean advantage "
            f"there: identity {number(self.identity, signed=True)}, prompt {number(self.prompt, signed=True)}."
        )
        return [Table("Does the base learn to copy its reference?", note, head, rows, "lrrrrl")]

    def draw(self, name: str) -> Figure:
        figure, (left, middle, right) = panels(
            [
                f"How near samples are to their reference: {name}",
                "Credit of a copy",
                "SARS' vote, by copies in a group",
            ],
            (13.2, 3.4),
        )
        left.hist(self.nearness[~self.nearness.isnan()].tolist(), 40, range=(0.4, 1.0), color=MUTED)
        left.axvline(self.threshold, color=PROMPT, linewidth=1.2, label=f"copies: above {self.threshold:g}")
        left.set_xlabel("1 - mean absolute difference")
        legend(left)
        names = list(self.treatments)
        for shift, colour, label in ((-0.2, THIRD, SAMPLED), (0.2, MUTED, "planted, early steps")):
            credits = [t.credit if label == SAMPLED else t.planted for t in self.treatments.values()]
            places = [place + shift for place in range(len(names))]
            bars = [0 if math.isnan(one.mean) else one.mean for one in credits]
            middle.barh(places, bars, 0.4, color=colour, label=label)
        middle.set_yticks(range(len(names)), names)
        middle.invert_yaxis()
        middle.axvline(0, color=INK, linewidth=0.8)
        legend(middle)
        counts = range(1, self.group_size)
        right.plot(counts, [vote(n, self.group_size) for n in counts], color=THIRD, linewidth=1.6, label="two modes")
        measured = {count: mean for count, (mean, _) in self.by_count.items()}
        right.plot(list(measured), list(measured.values()), "o", color=INK, markersize=5, label="measured")
        right.axhline(0, color=INK, linewidth=0.8)
        right.set_xlabel(f"copies of {self.group_size}")
        legend(right)
        return figure


def measure_copying(inputs: AnalysisInputs, groups: int = 96, threshold: float = 0.0) -> Copying:
    """Draw ``groups`` groups as training does. ``threshold`` 0: the run's evaluation.copies, or THRESHOLD.

    Raises UserError for methods without groups, or without the rewards identity and prompt.
    """
    cfg, columns = grouped(inputs.cfg), inputs.pair()
    threshold = threshold or cfg.evaluation.copies or THRESHOLD
    batch, size = inputs.tasks(groups), cfg.training.group_size
    rows: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
    for drawn in draw_groups(inputs, groups):
        tasks = batch.select(drawn.numbers)
        images_NHWC = inputs.policy.decode(drawn.x0_NLC).cpu()
        near_PG = CopyPaste()(images_NHWC, tasks.repeat(size)).view(-1, size)
        pasted_NHWC = to_tensor(
            [_stretched(tasks.references[p], to_pictures(images_NHWC[:1])[0]) for p in range(len(tasks))]
        )
        planted_PR = torch.stack(
            [scored(name, reward, pasted_NHWC, tasks) for name, reward in inputs.rewards.items()], -1
        )
        for place, group in enumerate(drawn.numbers):
            rows[group] = (drawn.scores_PGR[place][:, columns], near_PG[place], planted_PR[place][columns])
    parts = (torch.stack([rows[group][part] for group in range(groups)]).double() for part in range(3))
    return copying(CopyGroups(*parts), cfg.sampling.steps, threshold)


def _stretched(references: tuple[Any, ...], like: Image.Image) -> Image.Image:
    """The first reference in the size of a generated picture; that picture itself where a task has none."""
    return references[0].convert("RGB").resize(like.size) if references else like


def copying(drawn: CopyGroups, steps: int, threshold: float = THRESHOLD) -> Copying:
    """From scores and nearness; ``steps`` of the credit table. Groups of tasks without a reference are left out.

    Raises UserError where no sample has a reference and both scores.
    """
    referenced_P = ~drawn.near_PG.isnan().any(1)
    drawn = CopyGroups(drawn.scores_PG2[referenced_P], drawn.near_PG[referenced_P], drawn.planted_P2[referenced_P])
    if drawn.scores_PG2.isnan().any(-1).all():
        raise UserError(
            f"of {len(referenced_P)} groups no sample has a reference and the scores of {' and '.join(PAIR)}"
        )
    copy_PG = (drawn.near_PG > threshold).double()
    share_P = copy_PG.mean(1)
    share = share_P.mean().item()
    mixed_P = (share_P > 0) & (share_P < 1)
    variance = share * (1 - share)
    within = copy_PG.var(1).mean().item() / variance if variance else math.nan
    planted_PG2 = drawn.scores_PG2.clone()
    planted_PG2[:, -1] = drawn.planted_P2
    advantage = group_advantages(drawn.scores_PG2)[mixed_P][copy_PG[mixed_P] > 0]
    identity, prompt = advantage.mean(0).tolist() if len(advantage) else (math.nan, math.nan)
    count, size = copy_PG.shape
    return Copying(
        count,
        size,
        threshold,
        estimate(share_P),
        ((drawn.near_PG > threshold - 0.05) & (drawn.near_PG <= threshold)).double().mean().item(),
        within,
        mixed_P.double().mean().item(),
        (share_P == 1).double().mean().item(),
        identity,
        prompt,
        {
            name: _treatment(
                credit_by(drawn.scores_PG2, function, steps), credit_by(planted_PG2, function, steps), copy_PG
            )
            for name, function in CREDIT_FUNCTIONS.items()
        },
        drawn.near_PG.flatten(),
        _by_count(drawn.scores_PG2, copy_PG),
    )


def _treatment(credit_KPG: Tensor, planted_KPG: Tensor, copy_PG: Tensor) -> Treatment:
    share_P1 = copy_PG.mean(1, keepdim=True)
    early = max(1, round(EARLY * len(credit_KPG)))
    drive_KP = 100 * ((copy_PG - share_P1) * credit_KPG).mean(-1)
    if share_P1.mean() <= FEW:
        drive_KP = torch.full_like(drive_KP, math.nan)
    mixed_P = (share_P1[:, 0] > 0) & (share_P1[:, 0] < 1)
    of_copies_KP = (copy_PG * credit_KPG).sum(-1) / copy_PG.sum(-1)
    return Treatment(
        estimate(of_copies_KP.mean(0)[mixed_P]),
        estimate(drive_KP.mean(0)),
        estimate(drive_KP[:early].mean(0)),
        estimate(planted_KPG[:early, :, -1].mean(0)),
    )


def _by_count(scores_PG2: Tensor, copy_PG: Tensor) -> dict[int, tuple[float, int]]:
    bonus_P = bonus_drive(scores_PG2, copy_PG)
    count_P = copy_PG.sum(1).long()
    return {
        count: (bonus_P[count_P == count].mean().item(), int((count_P == count).sum()))
        for count in range(1, copy_PG.shape[1])
        if (count_P == count).any()
    }
