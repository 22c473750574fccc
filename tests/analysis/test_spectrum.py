"""Waves whose band, energy and settled share are known."""

import math

import pytest
import torch
from support.still import Endless
from support.toy_policy import ToyPolicy

from cgrpo.analysis import AnalysisInputs, measure_spectrum
from cgrpo.analysis.spectrum import band_numbers
from cgrpo.config import load_config


def wave(period: int, height: float) -> torch.Tensor:
    return height * torch.cos(2 * math.pi * torch.arange(32) / period).expand(32, 32)


def picture(grey: torch.Tensor) -> torch.Tensor:
    return (128 + grey).round().to(torch.uint8)[..., None].expand(-1, -1, 3)


def test_two_waves_by_hand():
    """The final picture has a wave of 16 pixels (low) and one of 4 (high); a cutoff of 0.25 parts them at 8 pixels.

    First there is half the low wave: energy 1/4, and half is missing: settled 1 - 1/4. Then the low wave and minus the
    high one: high energy 1, settled 1 - 2^2.
    """
    steps = [wave(16, 40) / 2, wave(16, 40) - wave(4, 40), wave(16, 40) + wave(4, 40)]
    found = band_numbers(torch.stack([picture(grey) for grey in steps])[:, None], 0.25)
    assert found.shape == (1, 3, 2, 2)
    assert found[0, :, 0].flatten().tolist() == pytest.approx([0.25, 0.75, 1, 1, 1, 1], abs=0.02)
    assert found[0, :, 1].flatten().tolist() == pytest.approx([0, 0, 1, -3, 1, 1], abs=0.02)


def test_a_wave_along_the_other_axis_and_the_mean_count_as_little():
    bright = picture(wave(4, 40).T + 50)
    found = band_numbers(torch.stack([picture(wave(4, 40).T), bright])[:, None], 0.25)
    assert found[0, 0, 1].tolist() == pytest.approx([1, 1], abs=0.02)
    assert found[0, :, 0].isnan().all() or found[0, 1, 0, 0] == 1  # nothing but rounding is low


@pytest.mark.parametrize("method", ["grpo", "forward", "sft"])
def test_of_any_method(method: str):
    """The toy policy's velocity points to its one picture but for a factor, so the end is settled at 1."""
    cfg = load_config("toybox", (f"method={method}", "sampling.steps=5"))
    found = measure_spectrum(AnalysisInputs(cfg, ToyPolicy(), {}, Endless()), tasks=3)
    assert [band[-1].mean for band in found.settled.values()] == [1, 1] and len(found.sigmas) == 5
    assert found.strip_KHWC.shape == (5, 32, 32, 3)
    assert found.draw("x").get_axes() is not None and len(found.tables()[0].rows) == 5
