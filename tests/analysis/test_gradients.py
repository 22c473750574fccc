"""Cosines from inner products worked out by hand, and rewards whose gradients must agree or oppose."""

import math

import pytest
import torch
from support.still import Component, Endless
from support.toy_policy import ToyPolicy

from cgrpo.analysis import AnalysisInputs, measure_gradients
from cgrpo.analysis.gradients import compare_gradients
from cgrpo.config import load_config
from cgrpo.errors import UserError

SMALL = ("sampling.steps=4", "training.group_size=6", "training.micro_batch=5", "policy.width=32", "policy.height=32")


class Brightness(Component):
    """Of the upper half; of the lower one at place 1. ``sign`` -1: darkness."""

    def __init__(self, place: int = 0, sign: int = 1):
        super().__init__(place)
        self.sign = sign

    def __call__(self, images, batch):
        half = images.shape[1] // 2
        rows = slice(half * self.place, half * (self.place + 1))
        return self.sign * images[:, rows].float().mean((1, 2, 3))


def subject(*settings: str, **rewards) -> AnalysisInputs:
    return AnalysisInputs(load_config("toybox", (*SMALL, *settings)), ToyPolicy(), rewards, Endless())


def gram(vectors_BCD: torch.Tensor) -> torch.Tensor:
    rows = vectors_BCD.double().flatten(0, 1)
    return (rows @ rows.T).view(*vectors_BCD.shape[:2], *vectors_BCD.shape[:2])


def test_cosines_by_hand():
    """Blocks (3, 0) and (0, 3) for identity, (0, 1) and (1, 0) for the prompt; sums (3, 3) and (1, 1): cosine 1.

    Across blocks identity's own product is 2 * (3, 0)(0, 3) = 0: its expectation is not told from 0.
    """
    identity, prompt = torch.tensor([[3.0, 0], [0, 3]]), torch.tensor([[0.0, 1], [1, 0]])
    vectors = torch.stack([identity, prompt, identity + prompt, identity - prompt], 1)
    (at,) = compare_gradients(gram(vectors)[None], [0.5])
    assert at.cosine.mean == pytest.approx(1) and math.isnan(at.expected.mean) and math.isnan(at.cosine.low)
    assert math.isnan(at.signal_identity)
    assert at.shaped.mean == pytest.approx(1)  # (4, 4) and (2, 2)


def test_noise_of_one_block_does_not_meet_itself():
    """True gradients (1, 1) and (1, -1) are orthogonal; both see the same noise, which makes them look alike."""
    generator = torch.Generator().manual_seed(0)
    noise = 3 * torch.randn(8, 1, 2, generator=generator).repeat(1, 4, 1)
    noise = noise - noise.mean(0) + torch.tensor([0.4, 0.4])
    true = torch.tensor([[1.0, 1], [1, -1], [1, 0], [1, 0]])
    (at,) = compare_gradients(gram(true + noise)[None], [0.5])
    assert (
        at.cosine.mean != pytest.approx(at.expected.mean, abs=0.01) and at.cosine.low < at.cosine.mean < at.cosine.high
    )
    shares = compare_gradients(torch.stack([gram(true.repeat(8, 1, 1)), gram(2 * true.repeat(8, 1, 1))]), [1.0, 0.5])
    assert [at.signal_identity for at in shares] == pytest.approx([0.2, 0.8])  # squared lengths 1 : 4
    assert [at.expected.mean for at in shares] == pytest.approx([0, 0], abs=1e-9)


@pytest.mark.parametrize("method", ["grpo", "forward"])
def test_twins_agree_and_opposites_oppose(method: str):
    for sign in (1, -1):
        ask = subject(f"method={method}", identity=Brightness(), prompt=Brightness(sign=sign))
        found = measure_gradients(ask, groups=4)
        assert len(found.places) == (3 if method == "grpo" else 4)
        assert [at.cosine.mean for at in found.places] == pytest.approx([sign] * len(found.places), abs=1e-4)
    assert found.draw("x").axes and found.tables()[0].rows and found.as_dict()["at"] in ("step", "level")


def test_steps_without_noise_have_no_gradient():
    """A window of one step, at the first place: elsewhere nothing was drawn, and nothing is trained."""
    window = ("sampling.window.type=sliding", "sampling.window.size=1")
    found = measure_gradients(subject(*window, identity=Brightness(), prompt=Brightness(1)), groups=3)
    assert [math.isnan(at.cosine.mean) for at in found.places] == [False, True, True]


def test_other_methods_are_refused():
    ask = AnalysisInputs(load_config("toybox", ["method=sft"]), ToyPolicy(), {}, Endless())
    with pytest.raises(UserError, match="draws no groups"):
        measure_gradients(ask, groups=2)
