"""What does each fill of the credit table reward? On the base's own groups, by judges that are never trained on.

python benchmarks/credit_judged.py [--groups 198] [--world conflict] [--keep FILE]

Draws groups as a training in that world does and scores them with its rewards and with the toy world's judges. For each
fill, averaged over its steps and filled an iteration's groups at a time as training does:

mean               the credit's: below 0 more is pushed away than is asked for
identity, prompt   the credit's slopes on the two rewards' own group advantages, over all samples
share              identity's of the two slopes
true identity,     mean correlation within groups of the credit with the judge's score, with its 95 % interval over
true prompt        groups: below 0, what the credit asks for is bad by the judge

The two rewards alone, first, say what each is worth by the judges. --keep writes the scores, [groups, samples, 4].
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from cgrpo.algorithm import group_advantages
from cgrpo.analysis.inputs import Estimate, draw_scores, estimate
from cgrpo.analysis.shaping import shaping_against_sum
from cgrpo.build import make_subject
from cgrpo.config import load_config
from cgrpo.reproduce import worlds
from cgrpo.toybox.judges import make_judges
from cgrpo.training.credit import CreditTable
from cgrpo.training.grpo.settings import GrpoConfig

EVEN = ("weights.type=constant", "weights.prompt=0.5")
FILLS = {
    "plain sum": ("shaping.type=none", *EVEN),
    "SARS": ("shaping.type=tanh", *EVEN),
    "SARS + TDW": ("shaping.type=tanh", "weights.type=sigmoid"),
    "harmonic mean": ("shaping.type=harmonic", *EVEN),
    "min": ("shaping.type=min",),
    "max": ("shaping.type=max",),
    "raw sum": ("shaping.type=raw-sum", *EVEN),
    "GDPO": ("shaping.type=gdpo", *EVEN),
    "after APEX": ("shaping.type=apex", *EVEN),
    "DyRef's focal weight": ("shaping.type=none", *EVEN, "shaping.focal=2.0"),
}


def drawn(world: str, groups: int) -> Tensor:
    """Scores [P, G, 4]: both rewards, both judges."""
    cfg = load_config("toybox", worlds()[world])
    with tqdm(total=groups, leave=False) as bar:
        subject = make_subject(cfg, None, torch.device("cpu"), split="train", seed=0, tick=bar.update)
        pair = {name: subject.rewards[name] for name in ("identity", "prompt")}
        return draw_scores(replace(subject, rewards=pair | make_judges()), groups)


def credit(scores_PG2: Tensor, settings: tuple[str, ...], world: str) -> Tensor:
    """[P, G], filled as training does, so many groups at a time; the mean over steps."""
    cfg = load_config("toybox", (*worlds()[world], *settings))
    assert isinstance(cfg, GrpoConfig)
    sigmas = torch.linspace(1, 0, cfg.sampling.steps + 1)  # no fill here weighs steps by noise
    filling = CreditTable(cfg, ["identity", "prompt"], sigmas, cfg.sampling.kind, cfg.sampling.noise_level)
    parts = scores_PG2.split(cfg.training.prompts_per_iteration)
    return torch.cat([filling(part).credit_KPG[:-1].mean(0) for part in parts]).double()


def within(credit_PG: Tensor, judge_PG: Tensor) -> Estimate:
    """Mean correlation within groups."""
    first_PG, second_PG = (x - x.mean(1, keepdim=True) for x in (credit_PG, judge_PG))
    product_P = (first_PG * second_PG).sum(1) / (first_PG.norm(dim=1) * second_PG.norm(dim=1))
    return estimate(product_P[~product_P.isnan()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=198)
    parser.add_argument("--world", default="conflict")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    scores_PG4 = drawn(options.world, options.groups).double()
    if options.keep:
        torch.save(scores_PG4, options.keep)
    pair_PG2, adv_PG2 = scores_PG4[..., :2], group_advantages(scores_PG4[..., :2])
    spread = pair_PG2.std(1).mean(0).tolist()
    told = f"identity {spread[0]:.3f}, prompt {spread[1]:.3f}"
    print(f"{len(pair_PG2)} groups, {options.world}; spread within groups: {told}")
    print(f"{'':22s} {'mean':>6s} {'identity':>9s} {'prompt':>8s} {'share':>6s}   {'true identity':26s} true prompt")
    for name, axis in (("identity's reward alone", 0), ("prompt's reward alone", 1)):
        print(f"{name:54s}  ", *(f"{within(adv_PG2[..., axis], scores_PG4[..., judge])!s:26s}" for judge in (2, 3)))
    for name, settings in FILLS.items():
        credit_PG = credit(pair_PG2.float(), settings, options.world)
        terms_N3 = torch.cat([torch.ones_like(adv_PG2[..., :1]), adv_PG2], -1).flatten(0, 1)
        slopes = torch.linalg.lstsq(terms_N3, credit_PG.reshape(-1, 1), driver="gelsd").solution[1:, 0].tolist()
        told = f"{name:22s} {credit_PG.mean():6.3f} {slopes[0]:9.3f} {slopes[1]:8.3f} {slopes[0] / sum(slopes):6.2f}  "
        print(told, *(f"{within(credit_PG, scores_PG4[..., judge])!s:26s}" for judge in (2, 3)))
    for table in shaping_against_sum(pair_PG2).tables():
        print(f"\n{table.note}\n{table.text()}")


if __name__ == "__main__":
    main()
