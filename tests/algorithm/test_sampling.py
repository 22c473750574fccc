"""Rollout and replay are one transition: what was sampled is what is replayed, pair by pair, to the last bit."""

import pytest
import torch

from cgrpo.algorithm import (
    all_steps,
    clipped_surrogate,
    evaluated_once,
    firsts,
    gaussian_logp,
    integrate,
    policy_kl,
    random_fraction,
    replay_logp,
    rollout,
    sde_transition,
    shared_lead,
    shifted_sigmas,
    sliding_window,
)

N, L, C, T = 6, 5, 4, 8
SIGMAS = shifted_sigmas(T)
KINDS = [("constant", 0.4), ("flow-grpo", 0.7), ("cps", 0.6)]


def draw(seed, *shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


X_NLC = draw(0, N, L, C)


def noise(k):
    return draw(100 + k, N, L, C)


def toy(theta_C, bias_N):
    """A nonlinear velocity that depends on x, sigma, a parameter and the sample's condition."""
    return lambda x_NLC, sigma_N: torch.sin(x_NLC * theta_C + 3 * sigma_N[:, None, None]) + bias_N[:, None, None]


THETA_C, BIAS_N = draw(1, C), draw(2, N)


def random_window(seed=0):
    generators = [torch.Generator().manual_seed(seed + n) for n in range(N)]
    return random_fraction(T, N, generators=generators)


@pytest.mark.parametrize(("kind", "level"), KINDS)
def test_ratio_is_exactly_one_before_the_first_update(kind, level):
    trace = rollout(toy(THETA_C, BIAS_N), X_NLC, SIGMAS, random_window(), noise, kind, level)
    M = len(trace.logp_M)
    assert M == N * 4
    order_M = torch.randperm(M, generator=torch.Generator().manual_seed(0))
    for size in (1, 7, M):
        for index_B in order_M.split(size):
            velocity = toy(THETA_C, BIAS_N[trace.sample_M[index_B]])
            logp_B, mean_BLC, std_B11 = replay_logp(velocity, trace, index_B, SIGMAS, kind, level)
            assert (logp_B - trace.logp_M[index_B]).exp().tolist() == [1.0] * len(index_B)
            assert mean_BLC.shape == (len(index_B), L, C) and std_B11.shape == (len(index_B), 1, 1)


def test_a_changed_policy_or_a_wrong_condition_moves_the_ratio():
    trace = rollout(toy(THETA_C, BIAS_N), X_NLC, SIGMAS, random_window(), noise)
    index_B = torch.arange(len(trace.logp_M))
    changed, _, _ = replay_logp(toy(THETA_C * 1.01, BIAS_N[trace.sample_M]), trace, index_B, SIGMAS)
    swapped, _, _ = replay_logp(toy(THETA_C, BIAS_N[trace.sample_M.flip(0)]), trace, index_B, SIGMAS)
    assert (changed - trace.logp_M).abs().max() > 1e-4
    assert (swapped - trace.logp_M).abs().max() > 1e-2


def test_trace_names_sample_and_true_step_of_every_trained_pair():
    window = random_window(seed=5)
    trace = rollout(toy(THETA_C, BIAS_N), X_NLC, SIGMAS, window, noise)
    pairs = list(zip(trace.step_M.tolist(), trace.sample_M.tolist(), strict=True))
    assert pairs == [tuple(pair) for pair in window.trained_NK.T.nonzero().tolist()]  # by step, then sample
    for m, (k, n) in enumerate(pairs):
        v = toy(THETA_C, BIAS_N[n : n + 1])(trace.before_MLC[m : m + 1], SIGMAS[k : k + 1])
        mean, std = sde_transition(trace.before_MLC[m : m + 1], v, SIGMAS[k], SIGMAS[k + 1])
        after = mean + std * noise(k)[n]
        torch.testing.assert_close(trace.after_MLC[m : m + 1], after)
        assert trace.logp_M[m].item() == pytest.approx(gaussian_logp(after, mean, std).item(), abs=1e-5)


def test_rollout_is_the_loop_written_out():
    window = sliding_window(T, N, start=2, size=3)
    velocity, x_NLC = toy(THETA_C, BIAS_N), X_NLC
    for k in range(T):
        v = velocity(x_NLC, SIGMAS[k].expand(N))
        if k in (2, 3, 4):
            mean, std = sde_transition(x_NLC, v, SIGMAS[k], SIGMAS[k + 1], "flow-grpo", 0.7)
            x_NLC = mean + std * noise(k)
        else:
            x_NLC = x_NLC + v * (SIGMAS[k + 1] - SIGMAS[k])
    trace = rollout(velocity, X_NLC, SIGMAS, window, noise, "flow-grpo", 0.7)
    torch.testing.assert_close(trace.x_NLC, x_NLC)
    assert trace.step_M.tolist() == [2] * N + [3] * N + [4] * N


def test_what_a_group_shares_is_followed_once():
    window, group = sliding_window(T, N, start=3, size=2), 2
    bias_P = BIAS_N[::group]
    start_NLC, bias_N = X_NLC[::group].repeat_interleave(group, 0), bias_P.repeat_interleave(group)
    seen = []

    def counted(x_PLC, sigma_P):
        seen.append(len(x_PLC))
        return toy(THETA_C, bias_P)(x_PLC, sigma_P)

    lead_NLC = shared_lead(counted, X_NLC[::group], SIGMAS, window).repeat_interleave(group, 0)
    assert seen == [N // group] * 3
    velocity = toy(THETA_C, bias_N)
    trace = rollout(velocity, lead_NLC, SIGMAS, window, noise, first=window.lead)
    long_way = rollout(velocity, start_NLC, SIGMAS, window, noise)
    for name in ("x_NLC", "sample_M", "step_M", "before_MLC", "after_MLC", "logp_M"):
        torch.testing.assert_close(getattr(trace, name), getattr(long_way, name), rtol=0, atol=1e-6)
    assert not trace.x_NLC[0].equal(trace.x_NLC[1])


def test_without_a_lead_nothing_is_followed():
    asked = []
    assert shared_lead(lambda x, s: asked.append(x), X_NLC, SIGMAS, random_window()).equal(X_NLC.float())
    assert asked == []


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("window", [all_steps(T, N), sliding_window(T, N, start=3, size=2)], ids=["all", "sliding"])
def test_inputs_that_a_group_shares_are_evaluated_once_with_the_same_gradient(window, dtype, limit):
    group, counts = 3, [3, 3, *[1] * (int(window.trained_NK.sum()) - N)]
    bias_P, theta_C, rows = BIAS_N[::group].to(dtype), THETA_C.to(dtype).requires_grad_(), []

    def bound(bias_N):
        velocity = toy(theta_C, bias_N)
        return lambda x, sigma: rows.append(len(x)) or velocity(x, sigma)

    start_NLC = X_NLC[::group].to(dtype).repeat_interleave(group, 0)
    lead_NLC = shared_lead(bound(bias_P), start_NLC[::group], SIGMAS, window).repeat_interleave(group, 0)
    each, shared = bound(bias_P.repeat_interleave(group)), evaluated_once(bound(bias_P), [group] * 2)
    plain = rollout(each, lead_NLC, SIGMAS, window, noise, first=window.lead)
    rows.clear()
    trace = rollout(each, lead_NLC, SIGMAS, window, noise, first=window.lead, start=shared)
    assert rows == [2] + [N] * (T - 1 - window.lead)
    for name in ("x_NLC", "sample_M", "step_M", "before_MLC", "after_MLC", "logp_M"):
        assert getattr(trace, name).equal(getattr(plain, name))

    bias_M = bias_P[trace.sample_M // group]
    index_B, credit_B = torch.arange(len(bias_M)), draw(9, len(bias_M), dtype=dtype)
    found = []
    for velocity in (bound(bias_M), evaluated_once(bound(firsts(bias_M, counts)), counts)):
        logp_B, _, _ = replay_logp(velocity, trace, index_B, SIGMAS)
        assert logp_B.equal(trace.logp_M)
        found += torch.autograd.grad((credit_B * logp_B).sum(), theta_C)
    assert rows[-2:] == [len(bias_M), len(bias_M) - N + 2]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=limit)


def test_ode_steps_draw_nothing_and_have_no_log_probability():
    asked = []
    trace = rollout(
        toy(THETA_C, BIAS_N), X_NLC, SIGMAS, sliding_window(T, N, 3, 2), lambda k: asked.append(k) or noise(k)
    )
    assert asked == [3, 4] == sorted(set(trace.step_M.tolist()))
    asked.clear()
    rollout(toy(THETA_C, BIAS_N), X_NLC, SIGMAS, random_window(), lambda k: asked.append(k) or noise(k))
    assert asked == list(range(T - 1))  # all but the last are stochastic, trained or not


def test_samples_do_not_depend_on_each_other():
    trace = rollout(toy(THETA_C, BIAS_N), X_NLC, SIGMAS, all_steps(T, N), noise)
    half = rollout(toy(THETA_C, BIAS_N[3:]), X_NLC[3:], SIGMAS, all_steps(T, 3), lambda k: noise(k)[3:])
    assert half.x_NLC.equal(trace.x_NLC[3:])
    assert half.logp_M.equal(trace.logp_M[trace.sample_M >= 3])


def test_sampling_leaves_no_graph_and_replay_does():
    theta_C = THETA_C.clone().requires_grad_()
    trace = rollout(toy(theta_C, BIAS_N), X_NLC, SIGMAS, all_steps(T, N), noise)
    assert not trace.x_NLC.requires_grad and not trace.logp_M.requires_grad
    assert not integrate(toy(theta_C, BIAS_N), X_NLC, SIGMAS).requires_grad
    index_B = torch.arange(len(trace.logp_M))
    logp_B, mean_BLC, std_B11 = replay_logp(toy(theta_C, BIAS_N[trace.sample_M]), trace, index_B, SIGMAS)
    assert mean_BLC.requires_grad and not std_B11.requires_grad
    # At ratio 1 the surrogate's gradient is -credit * dlogp/dtheta, pair by pair.
    credit_B = draw(9, len(index_B))
    (expected,) = torch.autograd.grad(-(credit_B * logp_B).sum(), theta_C, retain_graph=True)
    (found,) = torch.autograd.grad(clipped_surrogate(logp_B, trace.logp_M, credit_B).sum(), theta_C, retain_graph=True)
    torch.testing.assert_close(found, expected)
    kl_B = policy_kl(mean_BLC, mean_BLC.detach() + 0.1 * std_B11, std_B11)
    torch.testing.assert_close(kl_B, torch.full_like(kl_B, 0.005), atol=1e-6, rtol=0)


def test_a_step_along_the_gradient_makes_good_samples_likelier():
    theta_C = THETA_C.double().requires_grad_()
    x_NLC, bias_N, sigmas = X_NLC.double(), BIAS_N.double(), shifted_sigmas(T, dtype=torch.float64)
    trace = rollout(toy(theta_C, bias_N), x_NLC, sigmas, all_steps(T, N), noise)
    index_B = torch.arange(len(trace.logp_M))
    credit_B = torch.tensor([1.0, -1.0] * (N // 2), dtype=torch.float64)[trace.sample_M]
    logp_B, _, _ = replay_logp(toy(theta_C, bias_N[trace.sample_M]), trace, index_B, sigmas)
    (gradient,) = torch.autograd.grad(clipped_surrogate(logp_B, trace.logp_M, credit_B).mean(), theta_C)
    stepped = replay_logp(toy(theta_C - 1e-3 * gradient, bias_N[trace.sample_M]), trace, index_B, sigmas)[0]
    assert (credit_B * (stepped - trace.logp_M)).mean() > 0


def test_arithmetic_keeps_the_latents_precision():
    low = lambda x, sigma: toy(THETA_C, BIAS_N)(x, sigma).to(torch.bfloat16)  # noqa: E731
    for dtype, expected in [(torch.bfloat16, torch.float32), (torch.float32,) * 2, (torch.float64,) * 2]:
        seen = []
        velocity = lambda x, sigma: seen.append((x.dtype, sigma.dtype, sigma.shape)) or low(x, sigma)  # noqa: B023, E731
        trace = rollout(velocity, X_NLC.to(dtype), SIGMAS, all_steps(T, N), noise)
        assert {trace.x_NLC.dtype, trace.before_MLC.dtype, trace.after_MLC.dtype, trace.logp_M.dtype} == {expected}
        assert set(seen) == {(expected, expected, (N,))}
        assert integrate(low, X_NLC.to(dtype), SIGMAS).dtype == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: rollout(v, X_NLC, SIGMAS, all_steps(T + 1, N), noise), "window"),
        (lambda v: rollout(v, X_NLC, SIGMAS, sliding_window(T, N, 2, 2), noise, first=3), "first must be 0 .. 2"),
        (lambda v: rollout(v, X_NLC, SIGMAS, all_steps(T, N), lambda k: noise(k)[:1]), "noise"),
        (lambda v: rollout(v, X_NLC, SIGMAS, all_steps(T, N), noise, "ode"), "ode"),
        (lambda v: rollout(v, X_NLC[0], SIGMAS, all_steps(T, N), noise), r"\[N, L, C\]"),
        (lambda v: integrate(v, X_NLC, SIGMAS.flip(0)), "fall strictly"),
        (lambda v: integrate(v, X_NLC, SIGMAS[:-1]), "fall strictly"),
        (lambda v: integrate(v, X_NLC, 1000 * SIGMAS), "fall strictly"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(toy(THETA_C, BIAS_N))


def test_replay_refuses_the_ode():
    trace = rollout(toy(THETA_C, BIAS_N), X_NLC, SIGMAS, all_steps(T, N), noise)
    with pytest.raises(ValueError, match="ode"):
        replay_logp(toy(THETA_C, BIAS_N), trace, torch.arange(N), SIGMAS, "ode")
