"""Is SARS more than a larger plain sum? Its credit against the plain sum's on a run's own advantages, at weights 1:1.

slope, shift  of the line that tells SARS' credit from the plain sum's, over all samples; AdamW does not feel a slope
r2            the share of SARS' credit that the line tells: what is left, 1 - r2, is all that SARS can do beyond a
              scaled and shifted plain sum
cosine        of the two credits as vectors over all samples: what an optimizer feels that divides by its gradient's
              size, as AdamW does; a mean shift turns the credit, too, since samples that all get more or less do
              move the policy
turned        share of the samples whose credit has another sign
reordered     share of the pairs of a group's samples that SARS puts in another order
clamped       share of credits beyond +-1, where the forward process's loss no longer grows with the credit

A line for SARS as the paper has it, one with the group's mean bonus taken out (``shaping.recentre``), and, for scale, a
plain sum that is multiplied by SARS' slope.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cgrpo.analysis.conflict import ALPHA, alpha_of, credit_1to1, telling_advantages
from cgrpo.analysis.inputs import AnalysisInputs, Result, draw_scores, grouped
from cgrpo.evaluation.show.plots import IDENTITY, INK, MUTED, PROMPT, THIRD, legend, panels
from cgrpo.evaluation.show.table import Table, number


@dataclass(frozen=True)
class Fit:
    """A credit against the plain sum; the module says what each number is."""

    slope: float
    shift: float
    r2: float
    cosine: float
    turned: float
    reordered: float
    clamped: float


@dataclass(frozen=True)
class Shaping(Result):
    """``bonus_on_identity`` and ``bonus_on_prompt``: the bonus's own slopes on the two advantages."""

    groups: int
    groups_left_out: int
    group_size: int
    alpha: float
    correlation: float
    bonus_on_identity: float
    bonus_on_prompt: float
    credits: Mapping[str, Fit]
    adv_PG2: Tensor

    def tables(self) -> list[Table]:
        head = ["credit", "slope", "mean shift", "R2", "cosine", "turned", "reordered", "beyond 1"]
        rows = [
            [
                name,
                *(number(value) for value in (fit.slope, fit.shift, fit.r2, fit.cosine)),
                *(f"{100 * share:.1f} %" for share in (fit.turned, fit.reordered, fit.clamped)),
            ]
            for name, fit in self.credits.items()
        ]
        note = (
            f"Against the plain sum, on {self.groups} groups x {self.group_size} samples, alpha {self.alpha:g}, "
            f"correlation {number(self.correlation)}. The bonus alone regresses to {number(self.bonus_on_identity)} x "
            f"identity + {number(self.bonus_on_prompt)} x prompt."
        )
        return [Table("SARS against the plain sum", note, head, rows, "lrrrrrrr")]

    def draw(self, name: str) -> Figure:
        figure, (left, right) = panels([f"Credit of each sample: {name}", "What the line leaves over"], (9.2, 3.6))
        plain_PG, shaped_PG = credit_1to1(self.adv_PG2, self.alpha)
        fit = self.credits["SARS"]
        rest_PG = shaped_PG - fit.shift - fit.slope * plain_PG
        conflict_PG = self.adv_PG2.prod(-1) < 0
        ends = [plain_PG.min().item(), plain_PG.max().item()]
        for mine_PG, colour, label in ((~conflict_PG, IDENTITY, "rewards agree"), (conflict_PG, PROMPT, "in conflict")):
            for axes, values_PG in ((left, shaped_PG), (right, rest_PG)):
                x, y = plain_PG[mine_PG].tolist(), values_PG[mine_PG].tolist()
                axes.plot(x, y, ".", color=colour, markersize=3, alpha=0.35, label=label)
        left.plot(ends, ends, color=MUTED, dashes=(5, 3), linewidth=1.2, label="the plain sum")
        line = [fit.shift + fit.slope * x for x in ends]
        words = f"slope {number(fit.slope, 2)}, R2 {number(fit.r2, 2)}"
        left.plot(ends, line, color=THIRD, linewidth=2, label=words)
        right.axhline(0, color=INK, linewidth=0.8)
        left.set_ylabel("SARS")
        for axes in (left, right):
            axes.set_xlabel("plain sum")
        legend(left)
        return figure


def measure_shaping(inputs: AnalysisInputs, groups: int = 300) -> Shaping:
    """Draw ``groups`` groups as training does. Raises UserError for methods without groups, or without both rewards."""
    scores_PG2 = draw_scores(inputs, groups)[..., inputs.pair()]
    return shaping_against_sum(scores_PG2, alpha_of(grouped(inputs.cfg)))


def shaping_against_sum(scores_PG2: Tensor, alpha: float = ALPHA) -> Shaping:
    """From scores of identity and prompt [P, G, 2], NaN where there is none."""
    adv_PG2, left_out = telling_advantages(scores_PG2)
    plain_PG, shaped_PG = credit_1to1(adv_PG2, alpha)
    _, recentred_PG = credit_1to1(adv_PG2, alpha, recentre=True)
    fits = {"SARS": fit_line(plain_PG, shaped_PG), "SARS, recentred": fit_line(plain_PG, recentred_PG)}
    fits["plain sum, scaled alike"] = fit_line(plain_PG, plain_PG * fits["SARS"].slope)
    terms_N3 = torch.cat([torch.ones_like(adv_PG2[..., :1]), adv_PG2], -1).flatten(0, 1)
    bonus_N1 = (shaped_PG - plain_PG).reshape(-1, 1)
    _, on_identity, on_prompt = torch.linalg.lstsq(terms_N3, bonus_N1, driver="gelsd").solution[:, 0].tolist()
    correlation = (adv_PG2.prod(-1).sum(1) / (adv_PG2.shape[1] - 1)).mean().item()
    numbers = (len(adv_PG2), left_out, adv_PG2.shape[1], alpha, correlation, on_identity, on_prompt)
    return Shaping(*numbers, fits, adv_PG2)


def fit_line(plain_PG: Tensor, credit_PG: Tensor) -> Fit:
    """``credit_PG`` predicted by shift + slope * ``plain_PG`` with least squares, over all samples alike."""
    x, y = plain_PG.flatten(), credit_PG.flatten()
    across, up = x - x.mean(), y - y.mean()
    slope = (across @ up / (across @ across)).item()
    rest = (up - slope * across).square().sum() / up.square().sum()
    order_PGG = _order(plain_PG) * _order(credit_PG)
    pairs = order_PGG.shape[-1] * (order_PGG.shape[-1] - 1) * len(order_PGG)
    return Fit(
        slope,
        (y.mean() - slope * x.mean()).item(),
        1 - rest.item(),
        torch.nn.functional.cosine_similarity(x, y, dim=0).item(),
        (x * y < 0).double().mean().item(),
        (order_PGG < 0).sum().item() / max(pairs, 1),
        (y.abs() > 1).double().mean().item(),
    )


def _order(values_PG: Tensor) -> Tensor:
    """+1 where the first of two samples of a group is worth more, -1 where the second is: [P, G, G]."""
    return (values_PG[:, :, None] - values_PG[:, None]).sign()
