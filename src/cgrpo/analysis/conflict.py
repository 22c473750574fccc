"""Do the rewards pull apart within a group, and what is a sample worth that only one of them likes? Figures 3 and 7.

A sample is in conflict where one reward's advantage is above 0 and the other's below. Two independent rewards have half
of the samples in conflict (the paper's 50.2 %), so what tells is the deviation from independence: the share that
comes of a group's own advantages when one reward's are dealt to its samples at random, worked out exactly.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cgrpo.algorithm import group_advantages, synergy
from cgrpo.analysis.inputs import PAIR, AnalysisInputs, Estimate, Result, draw_scores, estimate, grouped
from cgrpo.config import GroupConfig
from cgrpo.errors import UserError
from cgrpo.evaluation.show.plots import IDENTITY, INK, MUTED, PAPER, PROMPT, THIRD, legend, panels
from cgrpo.evaluation.show.table import Table, number

ALPHA = 0.5  # the paper's
NEAR = 0.25
QUADRANTS = ("both good", "identity alone", "prompt alone", "both bad")
NAIVE, SARS = MUTED, THIRD


@dataclass(frozen=True)
class Quadrant:
    """Samples by the signs of both advantages: their share, and their mean credit at weights 1:1.

    expected    the share that independent rewards would give
    naive, sars the credit as the plain sum, and with SARS' bonus
    """

    share: float
    expected: float
    naive: float
    sars: float


@dataclass(frozen=True)
class Conflict(Result):
    """Numbers over groups. Groups in which a reward is flat, or could not score every sample, are left out."""

    groups: int
    groups_left_out: int
    group_size: int
    alpha: float
    conflict_share: Estimate
    if_independent: float
    beyond_independence: Estimate
    correlation: Estimate
    kinds: Mapping[str, Quadrant]
    adv_N2: Tensor

    def tables(self) -> list[Table]:
        rows = [
            [
                name,
                f"{100 * one.share:.1f} %",
                f"{100 * one.expected:.1f} %",
                number(one.naive, signed=True),
                number(one.sars, signed=True),
                number(one.sars - one.naive, signed=True),
            ]
            for name, one in self.kinds.items()
        ]
        head = ["samples", "share", "if independent", "naive credit", "SARS credit", "difference"]
        note = (
            f"{self.groups} groups x {self.group_size} samples"
            + (f" ({self.groups_left_out} left out: a reward flat or missing)" if self.groups_left_out else "")
            + f". In conflict: {self.conflict_share}, independent rewards: {number(self.if_independent)}, beyond "
            f"that: {self.beyond_independence}; correlation within groups: {self.correlation}. Mean credit at "
            f"weights 1:1, alpha {self.alpha:g}."
        )
        return [Table("Samples by which rewards like them", note, head, rows, "lrrrrr")]

    def draw(self, name: str) -> Figure:
        figure, (left, right, curve) = panels(
            [f"Samples by kind: {name}", "Mean credit of each kind", "Credit where prompt's advantage is 1"],
            (13.2, 3.4),
        )
        places, quadrants = range(len(self.kinds)), list(self.kinds.values())
        shares = left.bar(places, [one.share for one in quadrants], 0.6, color=[THIRD, IDENTITY, PROMPT, MUTED])
        texts = [f"{100 * one.share:.1f} %" for one in quadrants]
        left.bar_label(shares, texts, label_type="center", color=PAPER, fontsize=9)
        expected = [one.expected for one in quadrants]
        left.hlines(expected, [p - 0.36 for p in places], [p + 0.36 for p in places], color=INK, label="if independent")
        left.set_ylim(top=1.3 * max(one.share for one in quadrants))
        legend(left)
        for shift, colour, label, credits in (
            (-0.2, NAIVE, "plain sum", [one.naive for one in quadrants]),
            (0.2, SARS, f"SARS, alpha {self.alpha:g}", [one.sars for one in quadrants]),
        ):
            right.bar([place + shift for place in places], credits, 0.4, color=colour, label=label)
        right.axhline(0, color=INK, linewidth=0.8)
        legend(right)
        for axes in (left, right):
            axes.set_xticks(list(places), [name.replace(" ", "\n", 1) for name in self.kinds])
        draw_cross_section(curve, self.alpha, near_one(self.adv_N2))
        return figure


def near_one(adv_N2: Tensor) -> Tensor:
    """Samples [M, 2] whose prompt advantage is within NEAR of 1."""
    return adv_N2[(adv_N2[:, 1] - 1).abs() < NEAR]


def draw_cross_section(axes: Axes, alpha: float, near_N2: Tensor) -> None:
    """Draw Figure 3: credit over identity's advantage where the prompt's is 1; samples that are near it as dots."""
    identity_N = torch.linspace(-2.5, 2.5, 201)
    line_1N2 = torch.stack([identity_N, torch.ones_like(identity_N)], -1)[None]
    plain_N, shaped_N = credit_1to1(line_1N2, alpha)
    axes.plot(identity_N.tolist(), plain_N[0].tolist(), color=NAIVE, dashes=(5, 3), linewidth=1.6, label="plain sum")
    axes.plot(identity_N.tolist(), shaped_N[0].tolist(), color=SARS, linewidth=2.2, label=f"SARS, alpha {alpha:g}")
    if len(near_N2):
        _, dots_N = credit_1to1(near_N2[None], alpha)
        label = f"{len(near_N2)} samples, prompt within {NEAR:g} of 1"
        axes.plot(near_N2[:, 0].tolist(), dots_N[0].tolist(), ".", color=IDENTITY, markersize=4, alpha=0.5, label=label)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_xlabel("identity's advantage")
    legend(axes)


def measure_conflict(inputs: AnalysisInputs, groups: int = 300) -> Conflict:
    """Draw ``groups`` groups as training does. Raises UserError for methods without groups, or without both rewards."""
    scores_PG2 = draw_scores(inputs, groups)[..., inputs.pair()]
    return conflict(scores_PG2, alpha_of(grouped(inputs.cfg)))


def alpha_of(cfg: GroupConfig) -> float:
    """The strength of the run's own SARS, the paper's where its credit has none."""
    return cfg.shaping.alpha if cfg.shaping.type == "tanh" else ALPHA


def conflict(scores_PG2: Tensor, alpha: float = ALPHA) -> Conflict:
    """From scores of identity and prompt [P, G, 2], NaN where there is none."""
    adv_PG2, left_out = telling_advantages(scores_PG2)
    group = adv_PG2.shape[1]
    good_PG2 = adv_PG2 > 0
    conflict_P = (adv_PG2.prod(-1) < 0).double().mean(1)
    above_P2, below_P2 = good_PG2.double().mean(1), (adv_PG2 < 0).double().mean(1)
    expected_P = above_P2[:, 0] * below_P2[:, 1] + below_P2[:, 0] * above_P2[:, 1]
    correlation_P = adv_PG2.prod(-1).sum(1) / (group - 1)
    plain_PG, shaped_PG = credit_1to1(adv_PG2, alpha)
    quadrants = {}
    for name, (identity, prompt) in zip(
        QUADRANTS, ((True, True), (True, False), (False, True), (False, False)), strict=True
    ):
        mine_PG = (good_PG2[..., 0] == identity) & (good_PG2[..., 1] == prompt)
        margin_P2 = torch.stack([_margin(good_PG2[..., r], wanted) for r, wanted in enumerate((identity, prompt))], -1)
        quadrants[name] = Quadrant(
            mine_PG.double().mean().item(),
            margin_P2.prod(-1).mean().item(),
            plain_PG[mine_PG].mean().item(),
            shaped_PG[mine_PG].mean().item(),
        )
    return Conflict(
        len(adv_PG2),
        left_out,
        group,
        alpha,
        estimate(conflict_P),
        expected_P.mean().item(),
        estimate(conflict_P - expected_P),
        estimate(correlation_P),
        quadrants,
        adv_PG2.flatten(0, 1),
    )


def telling_advantages(scores_PG2: Tensor) -> tuple[Tensor, int]:
    """Advantages of the groups in which every sample has both scores and neither is flat, and how many are not.

    Raises UserError where there is no such group.
    """
    adv_PG2 = group_advantages(scores_PG2.double())
    telling_P = ~scores_PG2.isnan().any(-1).any(-1) & (adv_PG2 != 0).any(1).all(-1)
    if not telling_P.any():
        share_2 = scores_PG2.isnan().double().mean((0, 1)).tolist()
        missing = ", ".join(f"{share:.0%} of {name}" for share, name in zip(share_2, PAIR, strict=True))
        raise UserError(
            f"in each of {len(scores_PG2)} groups a reward is flat or missing (missing: {missing})",
            "give more --groups, or look at the rewards with cgrpo rewards score",
        )
    return adv_PG2[telling_P], int((~telling_P).sum())


def credit_1to1(adv_PG2: Tensor, alpha: float, recentre: bool = False) -> tuple[Tensor, Tensor]:
    """The plain sum at weights 1:1 [P, G], and the same with SARS' bonus; neither clamped."""
    plain_PG = adv_PG2.mean(-1)
    return plain_PG, plain_PG + synergy(adv_PG2, alpha, "tanh", recentre)


def _margin(good_PG: Tensor, wanted: bool) -> Tensor:
    return (good_PG == wanted).double().mean(1)
