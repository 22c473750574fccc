"""Can the pair world's rewards and judges be trusted? How well each ranks pictures with one known fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cgrpo.data import ToyboxSource, derive
from cgrpo.evaluation.metrics import Scorer
from cgrpo.evaluation.statistics.paired import auc
from cgrpo.evaluation.toybox_check import as_pictures
from cgrpo.policies.base import Policy
from cgrpo.rewards import scored
from cgrpo.rewards.base import to_tensor
from cgrpo.toybox import pair
from cgrpo.toybox.pair import PairCase, PairPrompts
from cgrpo.toybox.world import Subjects

Scene = tuple[Subjects, Subjects, PairPrompts, Tensor]
"""What to draw: the subjects in the prompt's order, the prompt, and which of the two are shown [B, 2]."""


def _wrong_looks(scene: Scene) -> Scene:
    first, second, prompts, shown_B2 = scene
    every_B = torch.ones(len(first), dtype=torch.bool)
    return pair.looks_of(first, second, every_B), pair.looks_of(second, first, every_B), prompts, shown_B2


def _wrong_places(scene: Scene) -> Scene:
    first, second, prompts, shown_B2 = scene
    return first, second, replace(prompts, relation_B=prompts.relation_B ^ 1), shown_B2


def _dropped(scene: Scene) -> Scene:
    first, second, prompts, shown_B2 = scene
    return first, second, prompts, shown_B2 & torch.tensor([False, True])


def _doubled(scene: Scene) -> Scene:
    _, second, prompts, shown_B2 = scene
    return second, second, prompts, shown_B2


def _leaked(scene: Scene) -> Scene:
    first, second, prompts, shown_B2 = scene
    every_B = torch.ones(len(first), dtype=torch.bool)
    return pair.colours_of(first, second, every_B), second, prompts, shown_B2


FAULTS: dict[str, tuple[str, Callable[[Scene], Scene]]] = {
    "looks swapped": ("identity", _wrong_looks),
    "places swapped": ("prompt", _wrong_places),
    "one dropped": ("identity", _dropped),
    "one doubled": ("identity", _doubled),
    "colours leaked": ("identity", _leaked),
}
"""By name: the axis that must suffer, and the fault; all one-sided faults are in the subject that is named first."""


def pair_ranking(
    source: ToyboxSource, count: int, scorers: dict[str, Scorer], policy: Policy
) -> dict[str, dict[str, float]]:
    """AUC of every reward and judge between right pictures and those of each fault on its axis.

    Both go through the policy's autoencoder, as generated pictures do. A score of one subject is taken for the one
    with the fault. "reference pasted" is the picture of one reference: the other subject and the prompt must suffer.
    """
    cases, batch = source.cases(range(count)), source.batch(range(count))
    truth = _scene(cases)
    right = _pictures(truth, policy, 0)
    judged = {name: one for name, one in scorers.items() if one.role != "guard"}
    right_N = {name: scored(name, one.score, right, batch) for name, one in judged.items()}
    pasted = to_tensor([references[case.named[1]] for references, case in zip(batch.references, cases, strict=True)])
    wrong = {
        name: (axis, _pictures(fault(truth), policy, n)) for n, (name, (axis, fault)) in enumerate(FAULTS.items(), 1)
    }
    wrong["reference pasted"] = (
        "",
        policy.decode(policy.encode_targets(as_pictures(pasted.permute(0, 3, 1, 2) / 255))),
    )
    table: dict[str, dict[str, float]] = {}
    for name, (axis, pictures) in wrong.items():
        table[name] = {}
        for scorer, one in judged.items():
            if axis and one.score.axis != axis:
                continue
            rows = _rows_with_fault(scorer, cases)
            wrong_N = scored(scorer, one.score, pictures, batch)
            table[name][scorer] = auc(right_N[scorer][rows], wrong_N[rows])
    return table


def _scene(cases: Sequence[PairCase]) -> Scene:
    couples = [case.in_prompt() for case in cases]
    first, second = (Subjects.join([couple[number] for couple in couples]) for number in range(2))
    prompts = PairPrompts.join([case.prompt for case in cases])
    return first, second, prompts, torch.ones(len(cases), 2, dtype=torch.bool)


def _rows_with_fault(scorer: str, cases: Sequence[PairCase]) -> list[int]:
    """The rows in which the subject that ``scorer`` scores is the one that the prompt names first."""
    subjects = {f"{part}_{number + 1}{end}": number for part, end in (("subject", "_readback"), ("identity", ""))
                for number in range(2)}  # fmt: skip
    return [n for n, case in enumerate(cases) if scorer not in subjects or case.named[0] == subjects[scorer]]


def _pictures(scene: Scene, policy: Policy, number: int) -> Tensor:
    first, second, prompts, shown_B2 = scene
    drawn, _ = pair.draw(first, second, prompts, derive("pair pictures", number), shown_B2)
    return policy.decode(policy.encode_targets(as_pictures(drawn)))
