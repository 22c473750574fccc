"""Do the two rewards pull the policy the same way, and at which step? The premises of SARS and TDW, tested directly.

For every stochastic step (method grpo) or noise level (method forward) the policy's gradient is taken as training would
at its first update, with four credits in turn: identity's advantage alone, the prompt's alone, their plain sum at
weights 1:1, and SARS on it. Groups are dealt to blocks, and of all blocks' gradients only inner products are kept.

cosine     of the summed gradients: what one update over so many groups feels
expected   of the gradients' expectations: products of different blocks alone, in which the noise of one block's samples
           does not meet itself; NaN where the interval of one's squared length reaches down to 0
signal     squared length of a reward's expected gradient at a step over its sum over steps: where there is something to
           learn for it

Intervals are the jackknife's over blocks.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cgrpo.algorithm import awm_loss, clipped_surrogate, group_advantages, nft_loss, noised, replay_logp
from cgrpo.analysis.conflict import alpha_of, credit_1to1
from cgrpo.analysis.inputs import (
    AnalysisInputs,
    DrawnGroups,
    Estimate,
    Result,
    draw_estimates,
    draw_groups,
    estimate,
    grouped,
)
from cgrpo.config import Config
from cgrpo.data import derive
from cgrpo.errors import UserError
from cgrpo.evaluation.show.plots import IDENTITY, INK, MUTED, PROMPT, THIRD, legend, panels
from cgrpo.evaluation.show.table import Table, number
from cgrpo.training.forward.settings import ForwardConfig
from cgrpo.training.grpo.settings import GrpoConfig

CREDITS = ("identity", "prompt", "plain sum", "SARS")
BLOCKS = 8  # at most; as many gradients of each credit are held at once, on the CPU
LOW, HIGH = 0.02, 0.98  # noise levels of the forward process, as training draws them


@dataclass(frozen=True)
class PlaceGradients:
    """The gradients at one step or noise level, as the module says; ``shaped``: of the plain sum and SARS."""

    sigma: float
    cosine: Estimate
    expected: Estimate
    shaped: Estimate
    signal_identity: float
    signal_prompt: float


@dataclass(frozen=True)
class Gradients(Result):
    """``places`` from noise to picture: steps or levels, as ``where`` says."""

    groups: int
    where: str
    alpha: float
    places: tuple[PlaceGradients, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "groups": self.groups,
            "at": self.where,
            "alpha": self.alpha,
            "found": [asdict(one) for one in self.places],
        }

    def tables(self) -> list[Table]:
        head = [self.where, "sigma", "cosine", "expected", "identity: signal", "prompt: signal", "plain sum and SARS"]
        rows = [
            [
                str(k),
                number(one.sigma),
                str(one.cosine),
                str(one.expected),
                number(one.signal_identity, 2),
                number(one.signal_prompt, 2),
                str(one.shaped),
            ]
            for k, one in enumerate(self.places)
        ]
        note = (
            f"Cosine of identity's and the prompt's gradients over {self.groups} groups, and of their expectations (a "
            "dash where one of them is not told from 0), the share of each reward's squared expected gradient, and the "
            "cosine of the plain sum's gradient and SARS' "
            f"(weights 1:1, alpha {self.alpha:g})."
        )
        return [Table(f"The rewards' gradients by {self.where}", note, head, rows, "rrrrrrr")]

    def draw(self, name: str) -> Figure:
        titles = [f"Cosine of the gradients: {name}", "Where each reward's gradient is"]
        figure, (left, right) = panels(titles, (9.2, 3.2))
        places = range(len(self.places))
        draw_estimates(left, [one.cosine for one in self.places], THIRD, "identity and prompt")
        draw_estimates(left, [one.shaped for one in self.places], MUTED, "plain sum and SARS")
        expected = [one.expected.mean for one in self.places]
        left.plot(places, expected, "x", color=THIRD, markersize=6, label="identity and prompt, expected")
        left.axhline(0, color=INK, linewidth=0.8)
        left.set_ylim(-1.05, 1.05)
        for shift, colour, label, shares in (
            (-0.2, IDENTITY, "identity", [one.signal_identity for one in self.places]),
            (0.2, PROMPT, "prompt", [one.signal_prompt for one in self.places]),
        ):
            right.bar([k + shift for k in places], shares, 0.4, color=colour, label=label)
        for axes in (left, right):
            axes.set_xlabel(f"{self.where}, from noise to picture")
            legend(axes)
        return figure


def with_gradients(cfg: Config) -> GrpoConfig | ForwardConfig:
    """The configuration as one whose gradient is known here. Raises UserError."""
    run = grouped(cfg)
    if not isinstance(run, GrpoConfig | ForwardConfig):
        raise UserError(f"method {cfg.method!r}: this analysis knows the gradients of grpo and forward alone")
    return run


def measure_gradients(inputs: AnalysisInputs, groups: int = 24) -> Gradients:
    """Of ``groups`` groups, at least 2. Raises UserError as ``with_gradients`` does, and without both rewards."""
    cfg, policy = with_gradients(inputs.cfg), inputs.policy
    drawn = list(draw_groups(inputs, groups))
    pair, alpha = inputs.pair(), alpha_of(cfg)
    credits = [
        _credits(part.scores_PGR[..., pair], alpha).clamp(-cfg.training.clamp, cfg.training.clamp) for part in drawn
    ]
    sigmas = policy.sigmas(cfg.sampling.steps, cfg.sampling.shift)
    places: Sequence[float]
    if isinstance(cfg, ForwardConfig):
        where, places = "level", ((sigmas[:-1] + sigmas[1:]) / 2).clamp(LOW, HIGH).tolist()
        losses = [functools.partial(_forward_loss, inputs, cfg, sigma) for sigma in places]
    else:
        where, places = "step", sigmas[:-2].tolist()
        losses = [functools.partial(_replay_loss, inputs, cfg, sigmas, k) for k in range(len(places))]
    blocks = min(BLOCKS, groups)
    grams = [_gram(inputs, drawn, credits, loss, blocks) for loss in losses]
    return Gradients(groups, where, alpha, compare_gradients(torch.stack(grams), places))


def compare_gradients(gram_KBCBC: Tensor, sigmas: Sequence[float]) -> tuple[PlaceGradients, ...]:
    """From inner products of the gradients of blocks b, c and credits (in CREDITS' order) at each step or level."""
    signals = [[_across(gram, r, r) for r in (0, 1)] for gram in gram_KBCBC]
    whole = [sum(max(signal[r], 0.0) for signal in signals) for r in (0, 1)]
    share = [[max(s, 0.0) / w if w > 0 else math.nan for s, w in zip(pair, whole, strict=True)] for pair in signals]
    return tuple(
        PlaceGradients(
            sigma,
            jackknife(functools.partial(_cosine, inner=_summed, first=0, second=1), gram),
            _expected(gram),
            jackknife(functools.partial(_cosine, inner=_summed, first=2, second=3), gram),
            *share[k],
        )
        for k, (gram, sigma) in enumerate(zip(gram_KBCBC, sigmas, strict=True))
    )


def _expected(gram_BCBC: Tensor) -> Estimate:
    """Cosine of identity's and the prompt's expected gradients; NaN unless both squared lengths lie above 0."""
    lengths = [jackknife(functools.partial(_across, first=r, second=r), gram_BCBC) for r in (0, 1)]
    if not all(length.above() for length in lengths):
        return Estimate(math.nan, math.nan, math.nan, len(gram_BCBC))
    return jackknife(functools.partial(_cosine, inner=_across, first=0, second=1), gram_BCBC)


def jackknife(number_of: Callable[[Tensor], float], gram_BCBC: Tensor) -> Estimate:
    """``number_of`` all blocks, with the interval of leaving out one block at a time."""
    blocks = len(gram_BCBC)
    whole = number_of(gram_BCBC)
    if blocks < 3:
        return Estimate(math.nan, math.nan, whole, blocks)
    rest = [[c for c in range(blocks) if c != b] for b in range(blocks)]
    without = torch.tensor([number_of(gram_BCBC[keep][:, :, keep]) for keep in rest], dtype=torch.float64)
    spread = estimate(blocks * whole - (blocks - 1) * without)
    half = (spread.high - spread.low) / 2
    return Estimate(whole - half, whole + half, whole, blocks)


def _cosine(gram_BCBC: Tensor, inner: Callable[[Tensor, int, int], float], first: int, second: int) -> float:
    lengths = inner(gram_BCBC, first, first), inner(gram_BCBC, second, second)
    if min(lengths) <= 0:
        return math.nan
    return inner(gram_BCBC, first, second) / (lengths[0] * lengths[1]) ** 0.5


def _summed(gram_BCBC: Tensor, first: int, second: int) -> float:
    """Inner product of two credits' gradients, each the sum over blocks."""
    return gram_BCBC[:, first, :, second].sum().item()


def _across(gram_BCBC: Tensor, first: int, second: int) -> float:
    """The same of their expectations, but for a factor: of different blocks alone, so without bias."""
    products_BB = gram_BCBC[:, first, :, second]
    return (products_BB.sum() - products_BB.diagonal().sum()).item()


def _credits(scores_PG2: Tensor, alpha: float) -> Tensor:
    """[4, P, G] in CREDITS' order; a sample without both scores has none."""
    adv_PG2 = group_advantages(scores_PG2.float()) * ~scores_PG2.isnan().any(-1, keepdim=True)
    return torch.stack([*adv_PG2.unbind(-1), *credit_1to1(adv_PG2, alpha)])


LossOf = Callable[[Tensor], Tensor]
"""From credit [B] to loss [B], of one forward."""

Loss = Callable[[DrawnGroups, Tensor], LossOf | None]
"""Of samples [B] of the groups; None where these were not drawn with noise at the step."""


def _gram(inputs: AnalysisInputs, drawn: list[DrawnGroups], credits: list[Tensor], loss: Loss, blocks: int) -> Tensor:
    """Inner products [B, C, B, C] of the blocks' gradients, a mean over their samples."""
    parameters = list(inputs.policy.trainable_parameters().values())
    size, micro = sum(p.numel() for p in parameters), int(inputs.cfg.training.micro_batch)
    sums_BCD = torch.zeros(blocks, len(CREDITS), size)
    for part, credit_CPG in zip(drawn, credits, strict=True):
        group = credit_CPG.shape[-1]
        credit_CN, block_N = credit_CPG.flatten(1), torch.tensor(part.numbers).repeat_interleave(group) % blocks
        for block in block_N.unique().tolist():
            for sample_B in (block_N == block).nonzero()[:, 0].split(micro):
                loss_of = loss(part, sample_B)
                if loss_of is None:
                    continue
                for c, credit_N in enumerate(credit_CN):
                    total = loss_of(credit_N[sample_B]).sum()
                    again = c + 1 < len(credit_CN)
                    grads = torch.autograd.grad(total, parameters, retain_graph=again, allow_unused=True)
                    flat = [
                        p.new_zeros(p.numel()) if g is None else g.flatten()
                        for p, g in zip(parameters, grads, strict=True)
                    ]
                    sums_BCD[block, c] += torch.cat(flat).cpu().float()
    rows = sums_BCD.flatten(0, 1)
    return (rows @ rows.T).double().view(blocks, len(CREDITS), blocks, len(CREDITS))


def _replay_loss(
    inputs: AnalysisInputs, cfg: GrpoConfig, sigmas: Tensor, k: int, part: DrawnGroups, sample_B: Tensor
) -> LossOf | None:
    """GRPO's clipped surrogate at step ``k``, the policy being the one that sampled."""
    assert part.roll is not None
    roll, sampling = part.roll, cfg.sampling
    at_k = (roll.step_M == k).nonzero()[:, 0]
    if not len(at_k):
        return None
    index_B = at_k[sample_B.to(at_k.device)]
    velocity = functools.partial(inputs.policy.velocity, cond=part.cond.select(roll.sample_M[index_B]))
    logp_B, _, _ = replay_logp(velocity, roll, index_B, sigmas, sampling.kind, sampling.noise_level)
    old_B = logp_B.detach()
    return lambda credit_B: clipped_surrogate(logp_B, old_B, credit_B.to(logp_B), cfg.objective.clip)


def _forward_loss(
    inputs: AnalysisInputs, cfg: ForwardConfig, sigma: float, part: DrawnGroups, sample_B: Tensor
) -> LossOf:
    """The forward process's loss at a noise level, the policy being the old one; noise is shared as in training."""
    objective, group, policy = cfg.objective, cfg.training.group_size, inputs.policy
    numbers = [part.numbers[n // group] for n in sample_B.tolist()]
    own = [0 if objective.shared_noise else n % group for n in sample_B.tolist()]
    streams = [derive(inputs.seed, "level", f"{sigma:.4f}", number, g) for number, g in zip(numbers, own, strict=True)]
    x0_BLC = part.x0_NLC[sample_B.to(part.x0_NLC.device)]
    noise_BLC = torch.stack([torch.randn(policy.latent_shape, generator=stream) for stream in streams]).to(x0_BLC)
    sigma_B = torch.full((len(sample_B),), sigma).to(x0_BLC)
    x_BLC = noised(x0_BLC, noise_BLC, sigma_B)
    v_BLC = policy.velocity(x_BLC, sigma_B, part.cond.select(sample_B))
    old_BLC = v_BLC.detach()
    if objective.loss == "nft":
        given = (v_BLC, old_BLC, x_BLC, x0_BLC, sigma_B)
        return lambda credit_B: nft_loss(*given, credit_B.to(sigma_B), objective.beta, objective.normalise)
    return lambda credit_B: awm_loss(v_BLC, old_BLC, x0_BLC, noise_BLC, credit_B.to(sigma_B), objective.clip)
