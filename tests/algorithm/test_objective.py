"""Eq. 7 branch by branch, its gradient, the KL term and the flow-matching loss."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from cgrpo.algorithm import clipped_surrogate, flow_matching_loss, policy_kl


@pytest.mark.parametrize(
    ("ratio", "credit", "loss"),
    [
        (1.0, 2.0, -2.0),
        (1.1, 2.0, -2.2),  # inside the range
        (1.5, 2.0, -2.4),  # good sample, already likelier: clipped at 1.2
        (0.5, 2.0, -1.0),  # good sample, became unlikelier: not clipped
        (1.5, -2.0, 3.0),  # bad sample, became likelier: not clipped
        (0.5, -2.0, 1.6),  # bad sample, already unlikelier: clipped at 0.8
    ],
)
def test_clip_branches_by_hand(ratio, credit, loss):
    logp = torch.tensor([math.log(ratio) - 3.0], requires_grad=True)
    found = clipped_surrogate(logp, torch.tensor([-3.0]), torch.tensor([credit]), clip=0.2)
    assert found.item() == pytest.approx(loss, abs=1e-5)
    (gradient,) = torch.autograd.grad(found.sum(), logp)
    clipped = ratio in (0.5, 1.5) and (ratio > 1) == (credit > 0)
    assert gradient.item() == pytest.approx(0.0 if clipped else -ratio * credit, abs=1e-5)


def test_gradient_at_ratio_one_is_minus_credit_times_that_of_logp():
    theta = torch.randn(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    credit = torch.tensor([1.0, -2.0, 0.0, 5.0, -0.3], dtype=torch.float64)
    logp = torch.sin(theta) * theta
    (gradient,) = torch.autograd.grad(clipped_surrogate(logp, logp.detach(), credit).sum(), theta)
    (score,) = torch.autograd.grad((torch.sin(theta) * theta).sum(), theta)
    torch.testing.assert_close(gradient, -credit * score)


def test_loss_is_per_pair():
    logp = torch.zeros(2, 3)
    assert clipped_surrogate(logp, logp, torch.ones(2, 3)).tolist() == (-torch.ones(2, 3)).tolist()


def test_policy_kl_is_the_kl_of_the_two_gaussians():
    generator = torch.Generator().manual_seed(0)
    mean, reference = torch.randn(2, 3, 4, 5, generator=generator)
    std = torch.tensor([0.1, 0.7, 2.0]).reshape(3, 1, 1)
    expected = kl_divergence(Normal(mean, std.expand_as(mean)), Normal(reference, std.expand_as(mean)))
    torch.testing.assert_close(policy_kl(mean, reference, std), expected.mean(dim=(1, 2)))
    assert not policy_kl(mean, mean, std).any()


def test_flow_matching_loss_by_hand():
    x0, noise = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[4.0, 2.0], [1.0, -1.0]])
    # targets (3, 0) and (1, -1)
    assert flow_matching_loss(noise - x0, x0, noise).tolist() == [0.0, 0.0]
    assert flow_matching_loss(torch.zeros(2, 2), x0, noise).tolist() == [4.5, 1.0]
    assert flow_matching_loss(torch.zeros(2, 2, dtype=torch.bfloat16), x0, noise).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clipped_surrogate(torch.ones(2), torch.ones(2), torch.ones(1)), "one shape"),
        (lambda: clipped_surrogate(torch.ones(2), torch.ones(2), torch.ones(2), clip=0), "clip"),
        (lambda: clipped_surrogate(torch.ones(2), torch.ones(2), torch.ones(2), clip=1), "clip"),
        (lambda: policy_kl(torch.ones(2, 3), torch.ones(2, 4), torch.tensor(1.0)), "one shape"),
        (lambda: policy_kl(torch.ones(2, 3), torch.ones(2, 3), torch.tensor(0.0)), "std"),
        (lambda: flow_matching_loss(torch.ones(2, 3), torch.ones(2, 3), torch.ones(3)), "one shape"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
