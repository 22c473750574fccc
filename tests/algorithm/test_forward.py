"""Forward-process RL: every formula by hand, and where it leads by law."""

import math

import pytest
import torch

from cgrpo.algorithm import (
    awm_loss,
    constant_weights,
    draw_levels,
    flow_matching_loss,
    nft_loss,
    noised,
    optimality,
    shifted_sigmas,
    sigmoid_weights,
    steps_at,
    velocity_gap,
)


def generators(count, seed=0):
    return [torch.Generator().manual_seed(seed + n) for n in range(count)]


def column(*values):
    """N samples of one number each, as x_NLC."""
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1)


# --- levels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", ["uniform", "steps", "logit-normal"])
def test_each_level_lies_in_its_own_share_of_the_distribution(spread):
    grid = shifted_sigmas(5, 2.0)
    sigma_PL = draw_levels(generators(500), 4, spread, grid)
    assert sigma_PL.shape == (500, 4) and sigma_PL.min() >= 0.02 and sigma_PL.max() <= 0.98
    assert (sigma_PL.diff(dim=1) > 0).all()
    quarters = {
        "uniform": [0.26, 0.5, 0.74],
        # 5 steps of 2s / (1 + s) at s = 0, .2, .4, .6, .8, 1: a quarter is 1.25 steps, so a quarter on from .2 to .4
        "steps": [1 / 3 + 0.25 * (0.8 / 1.4 - 1 / 3), (0.8 / 1.4 + 0.75) / 2, 0.75 + 0.75 * (1.6 / 1.8 - 0.75)],
        "logit-normal": [1 / (1 + math.exp(0.674490)), 0.5, 1 / (1 + math.exp(-0.674490))],
    }[spread]
    for border, below, above in zip(quarters, sigma_PL.T, sigma_PL.T[1:], strict=False):
        assert below.max() <= border + 1e-5 and below.max() > border - 0.01
        assert above.min() >= border - 1e-5 and above.min() < border + 0.01


def test_levels_are_a_function_of_their_generator_alone():
    both = draw_levels(generators(2), 3)
    assert torch.equal(both[1:], draw_levels(generators(1, seed=1), 3))
    assert not torch.equal(both[0], both[1])


def test_uniform_levels_fill_their_range_evenly():
    sigma = draw_levels(generators(4000), 1, "uniform", low=0.1, high=0.9).flatten()
    assert sigma.mean().item() == pytest.approx(0.5, abs=0.01) and sigma.var().item() == pytest.approx(
        0.64 / 12, rel=0.05
    )


def test_levels_drawn_by_steps_give_a_schedule_the_average_that_it_has_over_steps():
    """Levels drawn evenly in sigma do not: a shifted grid has wide steps at its end."""
    grid, weights_K = shifted_sigmas(10, 3.0), sigmoid_weights(10)

    def average(spread):
        sigma = draw_levels(generators(400), 20, spread, grid, low=1e-4, high=0.9999).flatten()
        return weights_K[steps_at(sigma, grid)].mean().item()

    assert average("steps") == pytest.approx(weights_K.mean().item(), abs=1e-3)
    assert abs(average("uniform") - weights_K.mean().item()) > 0.05


def test_the_step_of_a_level_is_the_one_that_passes_through_it():
    grid = torch.tensor([1.0, 0.8, 0.5, 0.0])
    levels = torch.tensor([1.0, 0.9, 0.81, 0.8, 0.6, 0.5, 0.3, 0.001])
    assert steps_at(levels, grid).tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    for outside in (0.0, 1.1):
        with pytest.raises(ValueError, match="levels must lie"):
            steps_at(torch.tensor([outside]), grid)


def test_noised_is_on_the_straight_line():
    x = noised(column(2, 2, 2), column(-1, -1, -1), torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64))
    assert x.flatten().tolist() == [2, 1.25, -1]


@pytest.mark.parametrize(
    "arguments",
    [dict(levels=0), dict(levels=1, low=0.0), dict(levels=1, low=0.5, high=0.5), dict(levels=1, high=1.0)],
)
def test_levels_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="need levels"):
        draw_levels(generators(1), **arguments)


def test_shapes_and_names_that_do_not_fit_are_refused():
    one, two, s = column(1), column(1, 2), torch.ones(1)
    with pytest.raises(ValueError, match="unknown spread"):
        draw_levels(generators(1), 1, "even")
    with pytest.raises(ValueError, match="needs the grid"):
        draw_levels(generators(1), 1, "steps")
    with pytest.raises(ValueError, match="one shape"):
        noised(one, two, s)
    with pytest.raises(ValueError, match="one shape"):
        nft_loss(one, two, one, one, s, s)
    with pytest.raises(ValueError, match="one shape"):
        awm_loss(one, one, one, one, torch.ones(2))
    with pytest.raises(ValueError, match="beta"):
        nft_loss(one, one, one, one, s, s, beta=0.0)
    with pytest.raises(ValueError, match="one shape"):
        velocity_gap(one, two)


# --- losses by hand ----------------------------------------------------------------------------------------------


def test_optimality_by_hand():
    credit = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.2, 1.0, 5.0])
    assert optimality(credit).tolist() == pytest.approx([0, 0, 0.25, 0.5, 0.6, 1, 1])


def test_nft_by_hand():
    """x = 1, sigma = 1/2, x0 = 0, old velocity 1, new 2, beta 1/2: v+ = 1.5 and v- = 0.5 point to 0.25 and 0.75."""
    half = torch.tensor([0.5], dtype=torch.float64)

    def loss(credit, beta=0.5, normalise=False):
        given = torch.tensor([credit], dtype=torch.float64)
        return nft_loss(column(2), column(1), column(1), column(0), half, given, beta, normalise).item()

    assert loss(0.5) == pytest.approx(0.75 * 0.0625 + 0.25 * 0.5625)
    assert loss(9.0) == pytest.approx(0.0625) and loss(-9.0) == pytest.approx(0.5625)
    assert loss(0.5, normalise=True) == pytest.approx(0.75 * 0.25 + 0.25 * 0.75)  # each over its own size
    assert loss(1.0, beta=1.0) == pytest.approx(0.0)  # v+ is the new velocity, which points to the picture
    assert loss(-1.0, beta=2.0) == pytest.approx(1.0 + 0.5 * 0.5 + 1.0)  # v- = 3 * 1 - 2 * 2 = -1 points to 1.5


def test_nft_means_over_the_latent_and_keeps_samples_apart():
    torch.manual_seed(0)
    old, new, x, x0 = torch.randn(4, 3, 5, 2, dtype=torch.float64)
    sigma, credit = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64), torch.tensor([0.3, -2.0, 0.0])
    together = nft_loss(new, old, x, x0, sigma, credit)
    for n in range(3):
        r = min(max(0.5 + credit[n].item() / 2, 0), 1)
        expected = 0.0
        for share, u in ((r, new[n]), (1 - r, 2 * old[n] - new[n])):
            gap = x[n] - sigma[n] * u - x0[n]
            expected += share * (gap**2).mean().item() / gap.abs().mean().item()
        assert together[n].item() == pytest.approx(expected, rel=1e-6)


def test_awm_by_hand():
    """x0 = 0, noise = 1, old velocity 0 (error 1), new 1/2 (error 1/4): rho = e^(3/4), clipped for a gain only."""

    def loss(new, credit, clip=0.5):
        return awm_loss(column(new), column(0), column(0), column(1), torch.tensor([credit]), clip).item()

    assert loss(0.5, 2.0) == pytest.approx(-2 * 1.5)
    assert loss(0.5, -2.0) == pytest.approx(2 * math.exp(0.75))
    assert loss(-1.0, -2.0) == pytest.approx(2 * 0.5)  # error 4, rho = e^-3: far enough away
    assert loss(-1.0, 2.0) == pytest.approx(-2 * math.exp(-3))
    assert loss(0.0, 3.0) == pytest.approx(-3)


def test_velocity_gap_by_hand():
    gap = velocity_gap(torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]]), torch.tensor([[[0.0, 4.0]], [[0.0, 0.0]]]))
    assert gap.tolist() == [2.5, 0.0]


# --- what the gradient does ------------------------------------------------------------------------------------


def problem():
    torch.manual_seed(1)
    x0, noise = torch.randn(2, 6, 4, 3, dtype=torch.float64)
    sigma = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    x = noised(x0, noise, sigma)
    old = noise - x0 + 0.3 * torch.randn(6, 4, 3, dtype=torch.float64)
    return x0, noise, sigma, x, old


def gradient(kind, old, credit, at=None, **settings):
    x0, noise, sigma, x, _ = problem()
    v = (old if at is None else at).clone().requires_grad_()
    if kind == "nft":
        loss = nft_loss(v, old, x, x0, sigma, credit, **settings)
    else:
        loss = awm_loss(v, old, x0, noise, credit, **settings)
    return torch.autograd.grad(loss.sum(), v)[0]


@pytest.mark.parametrize("kind", ["nft", "awm"])
def test_without_credit_the_old_policy_is_stationary(kind):
    *_, old = problem()
    assert gradient(kind, old, torch.zeros(6)).abs().max() < 1e-15


@pytest.mark.parametrize("settings", [dict(normalise=True), dict(normalise=False), dict(beta=0.3), dict(beta=2.0)])
def test_nft_pulls_back_to_the_old_policy_whatever_the_credit(settings):
    """The curvature of the loss without ``normalise``: 2 (beta sigma)^2 over the latent's size, for any credit."""
    _, _, sigma, _, old = problem()
    away = torch.full_like(old, 0.1)
    pull = gradient("nft", old, torch.zeros(6), old + away, **settings)
    assert (pull > 0).all()
    if settings.get("normalise") is False:
        for credit in (-1.0, 0.0, 0.7):
            given = torch.full((6,), credit)
            change = gradient("nft", old, given, old + away, **settings) - gradient("nft", old, given, **settings)
            expected = 2 * 0.1 * sigma.square()[:, None, None] / old[0].numel()
            torch.testing.assert_close(change, expected.expand_as(change))


@pytest.mark.parametrize("beta", [0.25, 1.0, 3.0])
def test_nfts_gradient_at_the_old_policy_is_the_credit_times_what_it_misses(beta):
    x0, noise, sigma, _, old = problem()
    credit = torch.tensor([1.0, 0.5, 0.0, -0.25, -1.0, 4.0])
    size = old[0].numel()
    expected = (
        2 * beta * credit.clamp(-1, 1)[:, None, None] * sigma.square()[:, None, None] * (old - (noise - x0)) / size
    )
    torch.testing.assert_close(gradient("nft", old, credit, beta=beta, normalise=False), expected.double())


def test_awms_gradient_at_the_old_policy_is_the_credit_times_flow_matchings():
    x0, noise, _, _, old = problem()
    credit = torch.tensor([1.0, 0.5, 0.0, -0.25, -1.0, 4.0])
    v = old.clone().requires_grad_()
    expected = torch.autograd.grad((credit * flow_matching_loss(v, x0, noise)).sum(), v)[0]
    torch.testing.assert_close(gradient("awm", old, credit), expected)


@pytest.mark.parametrize("kind", ["nft", "awm"])
@pytest.mark.parametrize("credit", [0.8, -0.8])
def test_a_step_lowers_the_error_of_what_was_good_and_raises_that_of_what_was_bad(kind, credit):
    x0, noise, _, _, old = problem()
    after = old - 0.1 * gradient(kind, old, torch.full((6,), credit))
    change = flow_matching_loss(after, x0, noise) - flow_matching_loss(old, x0, noise)
    assert (change < 0).all() if credit > 0 else (change > 0).all()


def test_normalised_errors_have_a_gradient_of_one_size_at_every_level():
    """Per unit of sigma * what the velocity misses: an error twice as large does not pull twice as hard."""
    x0, noise, sigma, _, old = problem()
    missed = old - (noise - x0)
    for scale in (1.0, 2.0, 10.0):
        pull = gradient("nft", noise - x0 + scale * missed, torch.ones(6))
        expected = 2 * sigma[:, None, None] * missed / missed.abs().mean((1, 2), keepdim=True) / missed[0].numel()
        torch.testing.assert_close(pull, expected)


def test_the_old_policy_is_a_constant_of_the_loss():
    """The velocity given as the old one, too, has the gradient of the new one alone."""
    x0, noise, sigma, x, old = problem()
    same, credit = old.clone().requires_grad_(), torch.ones(6)
    for kind, loss in (
        ("nft", nft_loss(same, same, x, x0, sigma, credit)),
        ("awm", awm_loss(same, same, x0, noise, credit)),
    ):
        found = torch.autograd.grad(loss.sum(), same)[0]
        torch.testing.assert_close(found, gradient(kind, old, credit), atol=1e-15, rtol=1e-9)
        assert found.abs().max() > 0


def test_rounded_velocities_are_compared_in_full_precision():
    x0, noise, sigma, x, old = problem()
    loss = nft_loss(old.bfloat16(), old.bfloat16(), x.float(), x0.float(), sigma.float(), torch.ones(6))
    assert loss.dtype == torch.float32
    assert awm_loss(old.bfloat16(), old.bfloat16(), x0.float(), noise.float(), torch.ones(6)).dtype == torch.float32


# --- law: Gaussian data with a known reward --------------------------------------------------------------------

MU, TAU, SLOPE = 1.5, 0.5, 0.08


def posterior(x, s, points=4001):
    """Pictures on a grid with their probabilities, given x at level s, for data N(MU, TAU^2)."""
    x0 = torch.linspace(MU - 8 * TAU, MU + 8 * TAU, points, dtype=torch.float64)
    log = -((x0 - MU) / TAU).square() / 2 - ((x - (1 - s) * x0) / s).square() / 2
    return x0, log.softmax(0)


def best_velocity(x, s, credit_of, loss, iterations=60):
    """The velocity at (x, s) that minimises the loss's mean over the posterior, by Newton's method on a parabola."""
    x0, p = posterior(x, s)
    noise = (x - (1 - s) * x0) / s
    old = (p * (noise - x0)).sum()
    v = old.clone()
    for _ in range(iterations):
        v = v.detach().requires_grad_()
        slope = torch.autograd.grad((p * loss(v, old, x0, noise, credit_of(x0))).sum(), v, create_graph=True)[0]
        curvature = torch.autograd.grad(slope, v)[0]
        v = v - slope.detach() / curvature
    return v.item(), old.item()


def spread(value, like):
    return value.expand(len(like)).reshape(-1, 1, 1)


@pytest.mark.parametrize("s", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_nft_leads_to_two_over_beta_times_the_covariance_of_optimality_and_velocity(s, beta):
    """For credit SLOPE * (x0 - MU), r has half that slope, and Cov(x0, noise - x0 | x) = -Var(x0 | x) / s."""
    x = 0.7

    def loss(v, old, x0, noise, credit):
        def wide(t):
            return t.reshape(-1, 1, 1)

        at = torch.full_like(x0, s)
        given = (spread(v, x0), spread(old, x0), spread(torch.tensor(x), x0).double(), wide(x0))
        return nft_loss(*given, at, credit, beta, normalise=False)

    found, old = best_velocity(x, s, lambda x0: SLOPE * (x0 - MU), loss, iterations=1)
    variance = TAU**2 * s**2 / ((1 - s) ** 2 * TAU**2 + s**2)
    assert found - old == pytest.approx(2 / beta * (SLOPE / 2) * -variance / s, rel=1e-6)
    # In terms of the picture that it points to: up the reward.
    assert -s * (found - old) == pytest.approx(SLOPE * variance / beta, rel=1e-6)


def test_a_constant_reward_moves_nothing_but_a_constant_credit_is_no_reward():
    """Credit is relative: the same credit for all pictures leaves E[noise - x0 | x] where it is."""

    def loss(v, old, x0, noise, credit):
        at = torch.full_like(x0, 0.4)
        x = noised(x0, noise, at).reshape(-1, 1, 1)
        return nft_loss(spread(v, x0), spread(old, x0), x, x0.reshape(-1, 1, 1), at, credit, 1.0, False)

    for constant in (-0.6, 0.0, 0.6):
        found, old = best_velocity(0.7, 0.4, lambda x0, c=constant: torch.full_like(x0, c), loss, iterations=1)
        assert found == pytest.approx(old, abs=1e-9)


@pytest.mark.parametrize("s", [0.2, 0.7])
def test_both_losses_set_out_in_the_direction_of_the_reward(s):
    x0, p = posterior(0.7, s)
    noise = (0.7 - (1 - s) * x0) / s
    old = (p * (noise - x0)).sum()
    credit = SLOPE * (x0 - MU)
    variance = TAU**2 * s**2 / ((1 - s) ** 2 * TAU**2 + s**2)
    for kind in ("nft", "awm"):
        v = old.clone().requires_grad_()
        wide = [spread(v, x0), spread(old, x0)]
        if kind == "nft":
            at = torch.full_like(x0, s)
            loss = nft_loss(*wide, spread(torch.tensor(0.7), x0).double(), x0.reshape(-1, 1, 1), at, credit, 1.0, False)
        else:
            loss = awm_loss(*wide, x0.reshape(-1, 1, 1), noise.reshape(-1, 1, 1), credit)
        slope = torch.autograd.grad((p * loss).sum(), v)[0].item()
        # E[credit * (v_old - (noise - x0))] = -Cov(credit, noise - x0 | x) = SLOPE * Var / s; NFT's carries sigma^2.
        assert slope == pytest.approx(2 * SLOPE * variance / s * (s**2 if kind == "nft" else 1), rel=1e-6)


def test_weights_at_levels_are_the_tables_at_their_steps():
    grid = shifted_sigmas(4, 1.0)
    assert constant_weights(4, 0.3)[steps_at(torch.tensor([0.9, 0.1]), grid)].tolist() == pytest.approx([0.3, 0.3])
    weights_K = sigmoid_weights(4)
    assert weights_K[steps_at(torch.tensor([0.76, 0.75, 0.01]), grid)].tolist() == weights_K[[0, 1, 3]].tolist()
