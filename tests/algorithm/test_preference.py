"""RPO: which picture wins, the loss by hand, and that the preferred mode of a known distribution gains."""

import math

import pytest
import torch

from cgrpo.algorithm import (
    flow_matching_loss,
    harmonic_mean,
    integrate,
    noised,
    preference_loss,
    shifted_sigmas,
    winner_and_loser,
)

NAN = math.nan


def test_the_harmonic_mean_by_hand():
    identity, prompt = torch.tensor([0.5, 0.2, 0.6]), torch.tensor([0.5, 0.8, 0.6])
    torch.testing.assert_close(harmonic_mean(identity, prompt), torch.tensor([0.5, 0.32, 0.6]))  # 2 / (5 + 1.25)
    # 1 / (0.75 / 0.8 + 0.25 / 0.2) = 1 / 2.1875
    assert harmonic_mean(identity, prompt, 0.75)[1].item() == pytest.approx(0.457143, abs=1e-6)
    assert harmonic_mean(identity, prompt, 1.0).tolist() == pytest.approx(prompt.tolist())
    assert harmonic_mean(identity, prompt, 0.0).tolist() == pytest.approx(identity.tolist())


def test_a_score_not_above_zero_is_the_worst():
    identity, prompt = torch.tensor([0.0, -0.3, 0.5, NAN, -1.0]), torch.tensor([9.0, 9.0, -2.0, 9.0, NAN])
    found = harmonic_mean(identity, prompt)
    assert found[:3].tolist() == [0, 0, 0] and found[3:].isnan().all()
    assert harmonic_mean(identity, prompt, 1.0)[:2].tolist() == [9.0, 9.0]  # a score without weight says nothing


def test_winner_and_loser_by_hand():
    score_PG = torch.tensor([[0.3, 0.9, 0.1], [0.2, NAN, 0.4], [0.5, NAN, NAN], [0.5, 0.5, 0.5], [NAN, NAN, NAN]])
    winner_P, loser_P, pair_P = winner_and_loser(score_PG)
    assert pair_P.tolist() == [True, True, False, False, False]
    assert winner_P[:2].tolist() == [1, 2] and loser_P[:2].tolist() == [2, 0]


def test_the_loss_by_hand():
    won, lost = torch.tensor([0.50, 0.48, 0.52]), torch.tensor([0.60, 0.60, 0.58])
    reference = torch.tensor([0.50] * 3), torch.tensor([0.60] * 3)
    found = preference_loss(won, reference[0], lost, reference[1], beta=100.0)
    # 50 * 0, 50 * -0.02, 50 * 0.04: ln 2, ln(1 + e^-1), ln(1 + e^2)
    torch.testing.assert_close(found, torch.tensor([0.693147, 0.313262, 2.126928]), atol=1e-5, rtol=0)


def test_its_gradient_lowers_the_winners_error_and_raises_the_losers():
    won, lost = torch.tensor([0.5], requires_grad=True), torch.tensor([0.6], requires_grad=True)
    nothing = torch.tensor([0.7], requires_grad=True)
    preference_loss(won, nothing, lost, nothing - 0.1, beta=8.0).sum().backward()
    # sigmoid(4 * ((0.5 - 0.7) - (0.6 - 0.6))) = sigmoid(-0.8) = 0.310026, times beta / 2
    assert won.grad.item() == pytest.approx(4 * 0.310026, abs=1e-5) == -lost.grad.item()
    assert nothing.grad is None  # the reference is frozen


def test_a_common_change_of_both_errors_is_no_preference():
    errors = torch.rand(4, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        preference_loss(errors[0], errors[1], errors[2], errors[3]),
        preference_loss(errors[0] + 0.3, errors[1], errors[2] + 0.3, errors[3]),
    )


class TwoModes:
    """The exact velocity of two Gaussians at +-2, std 0.5, the right one with probability sigmoid(logit)."""

    def __init__(self, logit: float):
        self.logit = torch.tensor(logit, dtype=torch.float64, requires_grad=True)

    def __call__(self, x, sigma):
        s = sigma.reshape(-1, 1, 1).to(x)
        variance = (1 - s).square() * 0.25 + s.square()
        gaps = [x - (1 - s) * mode for mode in (2.0, -2.0)]
        logs = torch.stack([-gap.square() / (2 * variance) for gap in gaps])
        share = (logs + torch.stack([self.logit, 0 * self.logit]).reshape(2, 1, 1, 1)).softmax(0)
        # E[noise - x0 | x] of each mode, by regression of the two on x
        slope = (s - (1 - s) * 0.25) / variance
        ends = [slope * gap - mode for gap, mode in zip(gaps, (2.0, -2.0), strict=True)]
        return share[0] * ends[0] + share[1] * ends[1]


def share_right(policy: TwoModes) -> float:
    noise = torch.randn(4000, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return (integrate(policy, noise, shifted_sigmas(40, 1.0, dtype=torch.float64)) > 0).double().mean().item()


def test_the_preferred_mode_gains():
    """Pairs of a sample of the right mode (won) and one of the left (lost): the policy makes more of the right."""
    base, policy, rng = TwoModes(0.0), TwoModes(0.0), torch.Generator().manual_seed(0)
    assert share_right(base) == pytest.approx(0.5, abs=0.03)
    optimizer = torch.optim.Adam([policy.logit], lr=0.05)
    losses = []
    for _ in range(60):
        draws = torch.randn(3, 128, 1, 1, dtype=torch.float64, generator=rng)
        won, lost, noise = 2 + 0.5 * draws[0], -2 + 0.5 * draws[1], draws[2]
        sigma = torch.rand(128, dtype=torch.float64, generator=rng)
        errors = [
            flow_matching_loss(model(noised(x0, noise, sigma), sigma), x0, noise)
            for x0 in (won, lost)
            for model in (policy, base)
        ]
        loss = preference_loss(*errors, beta=2.0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(2)) and losses[-1] < 0.6
    assert policy.logit > 0.5 and share_right(policy) > 0.65


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: harmonic_mean(torch.ones(3), torch.ones(2)), "one shape"),
        (lambda: harmonic_mean(torch.ones(3), torch.ones(3), 1.5), "weight"),
        (lambda: winner_and_loser(torch.ones(3)), "P, G"),
        (lambda: preference_loss(*(torch.ones(n) for n in (2, 2, 2, 3))), "one shape"),
        (lambda: preference_loss(*[torch.ones(2)] * 4, beta=0), "beta"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
