"""Samplers are tested by law: for Gaussian data the velocity is known, and so is where every sampler must arrive.

Data N(mu, tau^2), noise N(0, 1): x at sigma is N((1 - sigma) mu, (1 - sigma)^2 tau^2 + sigma^2), and the velocity is
E[noise - data | x], linear in x. So one step maps a Gaussian to a Gaussian, and mean and variance can be followed
exactly, without drawing; a few runs with real draws go through rollout() itself.
"""

import math

import pytest
import torch

from cgrpo.algorithm import (
    all_steps,
    integrate,
    random_fraction,
    rollout,
    sde_transition,
    shifted_sigmas,
    sliding_window,
)

MU, TAU = 1.5, 0.5


def velocity(x_NLC, sigma_N):
    s = sigma_N[:, None, None]
    spread = (1 - s).square() * TAU**2 + s.square()
    centred = (x_NLC - (1 - s) * MU) / spread
    return s * centred - (MU + (1 - s) * TAU**2 * centred)


def law(steps, kinds, level, shift=3.0):
    """Mean and variance after each step, followed exactly; kinds[k] is the kind of step k."""
    sigmas = shifted_sigmas(steps, shift, torch.float64)
    probes = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1)  # an affine map is known from two points
    mean, variance, path = 0.0, 1.0, []
    for k, kind in enumerate(kinds):
        after, std = sde_transition(
            probes, velocity(probes, sigmas[k].expand(2)), sigmas[k], sigmas[k + 1], kind, level
        )
        offset, slope = after[0].item(), (after[1] - after[0]).item()
        mean, variance = offset + slope * mean, slope**2 * variance + std.flatten()[0].item() ** 2
        path.append((mean, variance))
    return sigmas, path


def sde_then_ode(kind, steps):
    return [kind] * (steps - 1) + ["ode"]


@pytest.mark.parametrize(("kind", "level"), [("ode", 0.4), ("constant", 0.4), ("constant", 1.0), ("flow-grpo", 0.7)])
def test_every_step_has_the_marginal_of_the_flow(kind, level):
    sigmas, path = law(2000, sde_then_ode(kind, 2000), level)
    for k in (400, 1000, 1600, 1900, 1999):
        s = sigmas[k + 1].item()
        assert path[k][0] == pytest.approx((1 - s) * MU, abs=0.01), k
        assert math.sqrt(path[k][1]) == pytest.approx(math.sqrt((1 - s) ** 2 * TAU**2 + s**2), abs=0.01), k


@pytest.mark.parametrize(("kind", "level"), [("ode", 0.4), ("constant", 0.7)])
def test_error_halves_when_steps_double(kind, level):
    def error(steps):
        mean, variance = law(steps, sde_then_ode(kind, steps), level, shift=1.0)[1][-1]
        return abs(math.sqrt(variance) - TAU) + abs(mean - MU)

    errors = [error(steps) for steps in (100, 200, 400, 800)]
    orders = [math.log2(coarse / fine) for coarse, fine in zip(errors, errors[1:], strict=False)]
    assert all(0.85 < order < 1.15 for order in orders), orders


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("shift", [1.0, 1.5])
def test_integrate_converges_with_its_order_to_the_exact_map(order, shift):
    x_NLC = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(9, 1, 1)
    exact_NLC = MU + TAU * x_NLC  # quantiles stay quantiles
    errors = [
        (integrate(velocity, x_NLC, shifted_sigmas(steps, shift, 0, torch.float64), order) - exact_NLC)
        .abs()
        .max()
        .item()
        for steps in (50, 100, 200, 400)
    ]
    orders = [math.log2(coarse / fine) for coarse, fine in zip(errors, errors[1:], strict=False)]
    assert all(order - 0.15 < found < order + 0.25 for found in orders), orders


def test_the_second_order_by_hand_on_an_uneven_grid():
    """v = 6 * sigma: Euler from 1 to 0.6 falls by 2.4; then the line through (1, 6) and (0.6, 3.6) is v itself."""
    grid = torch.tensor([1.0, 0.6, 0.5, 0.0], dtype=torch.float64)
    calls = []

    def line(x_NLC, sigma_N):
        calls.append(sigma_N.tolist())
        return 6 * sigma_N[:, None, None].expand_as(x_NLC)

    zero = torch.zeros(1, 1, 1, dtype=torch.float64)
    assert integrate(line, zero, grid, 2).item() == pytest.approx(-2.4 - 3 * (0.6**2))
    assert calls == [[1.0], [0.6], [0.5]]  # no more forwards than Euler
    assert integrate(line, zero, grid).item() == pytest.approx(-2.4 - 0.36 - 1.5)
    with pytest.raises(ValueError, match="order"):
        integrate(line, zero, grid, 3)


DRAWS = 20_000


def draws(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda k=0: torch.randn(4, DRAWS, 1, generator=generator)


@pytest.mark.parametrize(
    ("kind", "level", "window"),
    [
        ("constant", 0.4, all_steps(100, 4)),
        ("constant", 0.8, sliding_window(100, 4, start=30, size=40)),
        ("flow-grpo", 0.7, all_steps(100, 4)),
        ("flow-grpo", 0.7, sliding_window(100, 4, start=0, size=25)),
        (
            "constant",
            0.6,
            random_fraction(100, 4, 0.1, generators=[torch.Generator().manual_seed(n) for n in range(4)]),
        ),
    ],
)
def test_rollouts_arrive_at_the_data(kind, level, window):
    sigmas = shifted_sigmas(100)
    trace = rollout(velocity, draws(1)(), sigmas, window, draws(2), kind, level)
    assert trace.x_NLC.mean().item() == pytest.approx(MU, abs=0.02)
    assert trace.x_NLC.std().item() == pytest.approx(TAU, abs=0.02)
    kinds = [kind if stochastic else "ode" for stochastic in window.stochastic_K.tolist()]
    mean, variance = law(100, kinds, level)[1][-1]  # and exactly where 100 steps lead, to the error of the draws
    assert trace.x_NLC.mean().item() == pytest.approx(mean, abs=4 * TAU / math.sqrt(4 * DRAWS))
    assert trace.x_NLC.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / (4 * DRAWS)))


def test_the_ode_arrives_at_the_data():
    x_NLC = integrate(velocity, draws(1)(), shifted_sigmas(100))
    assert x_NLC.mean().item() == pytest.approx(MU, abs=0.02)
    assert x_NLC.std().item() == pytest.approx(TAU, abs=0.02)


def test_log_probability_of_what_was_drawn_is_the_gaussians_entropy():
    trace = rollout(velocity, draws(1)(), shifted_sigmas(100), all_steps(100, 4), draws(2))
    gaps = -shifted_sigmas(100).diff()
    expected_M = -0.5 - (0.4 * gaps[trace.step_M].sqrt() * math.sqrt(2 * math.pi)).log()
    torch.testing.assert_close(trace.logp_M, expected_M, atol=4 * math.sqrt(0.5 / DRAWS), rtol=0)
