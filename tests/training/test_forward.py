"""The trainer on the forward process: its update is the losses' gradient, it resumes, it stops by itself."""

import json
import math

import pytest
import torch
from support.runs import GUARDED, JUDGED, distance, in_processes, interrupted, moved, state

from cgrpo.algorithm import awm_loss, credit_table, flow_matching_loss, integrate, nft_loss, shifted_sigmas, steps_at
from cgrpo.app.run import train
from cgrpo.build import make_policy, make_source
from cgrpo.errors import UserError
from cgrpo.rewards import make_rewards
from cgrpo.training.forward.loop import Forward
from cgrpo.training.loop import make_loop
from cgrpo.training.optimizer import EARLY, FIRST, Runaway
from cgrpo.training.runtime import Runtime


def trainer(cfg) -> Forward:
    made = make_loop(cfg, make_policy(cfg), make_rewards(cfg.rewards), make_source(cfg), Runtime())
    assert isinstance(made, Forward)
    return made


def shake(made: Forward) -> None:
    """Up matrices away from 0, so that every parameter has a gradient."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters:
            parameter += 0.02 * torch.randn(parameter.shape, generator=rng, dtype=parameter.dtype)


def watched(made: Forward, monkeypatch):
    """A list that gets the parts of the coming iterations."""
    parts, sample = [], made.sample
    monkeypatch.setattr(made, "sample", lambda *a: parts.append(sample(*a)) or parts[-1])
    return parts


def gradients(made: Forward, monkeypatch, update: int = 0) -> list[torch.Tensor]:
    """The gradient of one of the first iteration's updates, before clipping."""
    caught: list[torch.Tensor] = []
    step, calls = made.step, []

    def stop(accepts) -> float:
        calls.append(None)
        if len(calls) <= update:
            return step(accepts)
        caught.extend(p.grad.clone() for p in made.parameters)
        raise StopIteration

    monkeypatch.setattr(made, "step", stop)
    with pytest.raises(RuntimeError):
        next(made.run(0))
    return caught


def values(made: Forward) -> list[torch.Tensor]:
    return [p.detach().clone() for p in made.parameters]


@pytest.mark.parametrize("batch", [96, 1])  # both prompts sampled together, and one after the other
@pytest.mark.parametrize("loss", ["nft", "awm"])
@pytest.mark.parametrize("old", [0.0, 0.5])
def test_the_second_update_is_the_gradient_of_the_loss(small_forward, monkeypatch, watch_scores, batch, loss, old):
    """One pair at a time, each from its own noised picture; the old policy is the one before the first update."""
    exact = ("policy.dtype=float64", f"sampling.batch={batch}", f"objective.loss={loss}", f"objective.old={old}")
    made = trainer(small_forward(*exact, "objective.clip=0.5", "training.micro_batch=3"))
    shake(made)
    if old:
        made.old.weights = {name: p.detach() * 1.05 for name, p in made.policy.trainable_parameters().items()}
    parts, scores = watched(made, monkeypatch), watch_scores()
    sampling = values(made)
    old_weights = {name: value.clone() for name, value in made.old.weights.items()}
    found = gradients(made, monkeypatch, update=1)

    assert [part.rows for part in parts] == ([[0, 1]] if batch == 96 else [[0], [1]])
    credit = credit_table(scores[0], made.credit.weights_KR)
    now = values(made)

    def velocity(weights, x, sigma, cond):
        for parameter, value in zip(made.parameters, weights, strict=True):
            parameter.data = value.clone()
        return made.policy.velocity(x, sigma, cond)

    before = list(old_weights.values()) or sampling
    expected, pairs = [torch.zeros_like(p) for p in made.parameters], 2 * 4 * 2 // 2
    for part in parts:
        for m in range(len(part.sample_M)):
            n, s = int(part.sample_M[m]), part.sigma_M[m : m + 1]
            if n % 4 % 2 != 1:  # the second update's share
                continue
            x0, noise = part.x0_NLC[n : n + 1], part.noise_MLC[m : m + 1]
            x = (1 - s[:, None, None]) * x0 + s[:, None, None] * noise
            with torch.no_grad():
                old_v = velocity(before, x, s, part.cond.select([n]))
            v = velocity(now, x, s, part.cond.select([n]))
            k = int((made.sigmas[:-1] >= s).sum()) - 1
            earned = credit.credit_KPG[k, part.rows[n // 4], n % 4][None].double()
            if loss == "nft":
                value = nft_loss(v, old_v, x, x0, s, earned)
            else:
                value = awm_loss(v, old_v, x0, noise, earned, 0.5)
            for total, part_of_it in zip(
                expected, torch.autograd.grad(value.sum() / pairs, made.parameters), strict=True
            ):
                total += part_of_it
    size = max(g.abs().max() for g in expected)
    assert size > 0
    assert max((a - b).abs().max() for a, b in zip(found, expected, strict=True)) < 1e-9 * float(size)


def test_pictures_are_the_odes_from_a_noise_of_their_own(small_forward, monkeypatch):
    made = trainer(small_forward("policy.dtype=float64", "training.iterations=1"))
    parts = watched(made, monkeypatch)
    starts, policy = [], made.policy.velocity

    def velocity(x, sigma, cond):
        if sigma[0] == 1:
            starts.append(x.clone())
        return policy(x, sigma, cond)

    monkeypatch.setattr(made.policy, "velocity", velocity)
    before = values(made)
    next(made.run(0))
    for parameter, value in zip(made.parameters, before, strict=True):
        parameter.data = value
    (start,), (part,) = starts, parts
    assert len({tuple(row.flatten()[:3].tolist()) for row in start}) == len(start) == 8
    grid = shifted_sigmas(3, 1.5)
    again = integrate(lambda x, s: policy(x, s, part.cond), start, grid, 2)
    assert torch.equal(again, part.x0_NLC)
    assert not torch.equal(integrate(lambda x, s: policy(x, s, part.cond), start, grid, 1), part.x0_NLC)


@pytest.mark.parametrize("shared", [True, False])
def test_a_groups_samples_share_level_and_noise_or_not(small_forward, monkeypatch, shared):
    made = trainer(small_forward(f"objective.shared_noise={str(shared).lower()}", "objective.levels=3"))
    parts = watched(made, monkeypatch)
    next(made.run(0))
    part = parts[0]
    assert part.sample_M.tolist() == [*range(8)] * 3
    sigma_DPG, noise_DPG = part.sigma_M.view(3, 2, 4), part.noise_MLC.view(3, 2, 4, -1)
    assert (sigma_DPG[0] < sigma_DPG[1]).all() and (sigma_DPG[1] < sigma_DPG[2]).all()
    assert torch.equal(sigma_DPG[..., :1].expand_as(sigma_DPG), sigma_DPG) == shared
    assert torch.equal(noise_DPG[:, :, :1].expand_as(noise_DPG), noise_DPG) == shared
    different = 6 if shared else 24
    assert len(set(part.sigma_M.tolist())) == different
    assert len({tuple(row[:3].tolist()) for row in part.noise_MLC.flatten(1)}) == different


@pytest.mark.parametrize("settings", [(), ("objective.old=0.5",), ("objective.loss=awm",)])
def test_without_credit_nothing_moves(small_forward, settings):
    flat = (
        "rewards.identity.type=support.exact_rewards:constant",
        "rewards.prompt.type=support.exact_rewards:constant",
    )
    made = trainer(small_forward(*flat, *settings, "training.max_failed_groups=9"))
    shake(made)
    before = values(made)
    rows = [done.metrics for done in made.run(0)]
    assert len(rows) == 3 and all(row["gradient_norm"] == 0 for row in rows)
    # AdamW's weight decay alone: lr * 1e-4 a step.
    decay = (1 - 3e-4 * 1e-4) ** 6
    for a, b in zip(before, values(made), strict=True):
        assert torch.equal(a, b) or torch.allclose(a * decay, b, rtol=1e-6)


@pytest.mark.parametrize("loss", ["nft", "awm"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_first_update_lowers_the_error_of_what_was_good_and_raises_that_of_what_was_bad(
    small_forward, monkeypatch, loss, sign
):
    settings = ("policy.dtype=float64", "training.updates_per_rollout=1", f"objective.loss={loss}")
    made = trainer(small_forward(*settings, "training.learning_rate=1e-4", "training.iterations=1"))
    shake(made)
    parts = watched(made, monkeypatch)
    table = made.credit

    def all_alike(scores_PGR):
        credit = table(scores_PGR)
        credit.credit_KPG.fill_(0.8 * sign)
        return credit

    monkeypatch.setattr(made, "credit", all_alike)
    before = values(made)
    next(made.run(0))
    (part,), after = parts, values(made)

    def error(weights):
        for parameter, value in zip(made.parameters, weights, strict=True):
            parameter.data = value.clone()
        every = torch.arange(len(part.sample_M))
        with torch.no_grad():
            v = made.policy.velocity(part.noised(every), part.sigma_M, part.cond.select(part.sample_M))
        return flow_matching_loss(v, part.x0_NLC[part.sample_M], part.noise_MLC).mean().item()

    assert sign * (error(after) - error(before)) < 0


def test_a_sample_that_could_not_be_scored_has_no_say(small_forward, monkeypatch, watch_scores):
    """Without it in the micro-batches, or with it at credit 0 in the first update: the same gradient."""
    watch_scores(lambda scores_PGR: scores_PGR[0, 2].fill_(math.nan))  # in the first update's share

    def gradient(kl):
        made = trainer(small_forward("policy.dtype=float64", f"objective.kl={kl}"))
        shake(made)
        return gradients(made, monkeypatch)

    left_out, kept = gradient("0.0"), gradient("1e-300")  # with a KL term nothing is left out, and it weighs nothing
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(left_out, kept, strict=True))


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_credit_below_zero_can_weigh_less(small_forward, monkeypatch, weight):
    def gradient(setting, factor):
        made = trainer(small_forward("policy.dtype=float64", f"objective.negative={setting}"))
        shake(made)
        table = made.credit

        def weighted(scores_PGR):
            credit = table(scores_PGR)
            credit.credit_KPG.copy_(torch.where(credit.credit_KPG < 0, factor * credit.credit_KPG, credit.credit_KPG))
            return credit

        monkeypatch.setattr(made, "credit", weighted)
        return gradients(made, monkeypatch)

    found, expected, other = gradient(weight, 1.0), gradient(1.0, weight), gradient(1.0, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(found, other, strict=True))


def test_kl_pulls_towards_the_base(small_forward):
    def distance_from_base(kl: str) -> float:
        made = trainer(small_forward(f"objective.kl={kl}", "training.iterations=5", "training.learning_rate=0.005"))
        rows = [done.metrics for done in made.run(0)]
        assert rows[-1]["kl"] >= 0 and (kl == "0.0" or rows[-1]["kl"] > 0)
        return sum(
            p.square().sum().item() for name, p in made.policy.trainable_parameters().items() if "lora_B" in name
        )

    assert distance_from_base("10.0") < distance_from_base("0.0")


@pytest.mark.parametrize("size", [1, 64])
def test_the_micro_batch_only_bounds_memory(small_forward, tmp_path, size):
    exact = ("policy.dtype=float64", "training.iterations=2")
    a = train(small_forward(*exact), tmp_path / "a")
    b = train(small_forward(*exact, f"training.micro_batch={size}"), tmp_path / "b")
    assert distance(a, b) <= 1e-9


@pytest.mark.parametrize("spread", ["uniform", "steps", "logit-normal"])
def test_every_spread_of_levels_trains(small_forward, spread, monkeypatch):
    made = trainer(small_forward(f"objective.spread={spread}", "training.iterations=1"))
    parts = watched(made, monkeypatch)
    row = next(made.run(0)).metrics
    assert row["gradient_norm"] > 0 and row["old_gap"] > 0
    assert set(steps_at(parts[0].sigma_M, made.sigmas).tolist()) <= {0, 1, 2, 3}


# --- one run, however it is made ---------------------------------------------------------------------------------

ALL = (*GUARDED, *JUDGED, "training.average=0.6", "objective.old=0.5", "training.schedule=cosine")


def test_resumed_is_uninterrupted_bit_for_bit(small_forward, tmp_path, monkeypatch):
    settings = (*ALL, "training.iterations=4", "training.checkpoint_every=2", "training.learning_rate=0.005")
    whole = train(small_forward(*settings), tmp_path / "whole")
    interrupted(monkeypatch, 4, lambda: train(small_forward(*settings), tmp_path / "part"))
    again = train(small_forward(*settings), resume=tmp_path / "part")
    assert distance(whole, again) == 0 and moved(whole) > 1e-4
    states = state(whole, 4), state(again, 4)
    assert states[0].keys() == states[1].keys()
    assert {key.split(".")[1] for key in states[0] if key.startswith("state.")} == {"average", "old", "runaway"}
    assert states[0]["state.runaway.accepted"] == 8
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0] if "norms" not in key)
    assert states[0]["state.runaway.norms"].isfinite().sum() == 8
    assert torch.equal(states[0]["state.runaway.norms"][:8], states[1]["state.runaway.norms"][:8])
    assert (whole / "guard.jsonl").read_text() == (again / "guard.jsonl").read_text()


def test_two_processes_give_the_run_of_one(small_forward, small_arguments, tmp_path):
    settings = ("method=forward", "sampling.rollout_steps=3", "policy.dtype=float64", *ALL, "guard.every=3")
    one = train(small_forward(*settings[2:]), tmp_path / "one")
    given = [part for setting in settings for part in ("--set", setting)]
    two = in_processes(2, "none", "train", *small_arguments, *given, "--out", str(tmp_path / "two"))
    assert two.returncode == 0, two.stderr
    assert moved(one) > 1e-4 and distance(one, tmp_path / "two") <= 1e-8
    assert (one / "guard.jsonl").read_text() == (tmp_path / "two" / "guard.jsonl").read_text()


def test_two_processes_with_a_sharded_base_give_the_run_of_one(small_forward, small_arguments, tmp_path):
    """The second process earns no credit and only goes through the motions."""
    settings = (
        "method=forward",
        "sampling.rollout_steps=3",
        "policy.dtype=float64",
        "objective.old=0.5",
        "rewards.identity.type=support.exact_rewards:brightness_of_even_tasks",
        "rewards.prompt.type=support.exact_rewards:brightness_of_even_tasks",
    )
    one = train(small_forward(*settings[2:]), tmp_path / "one")
    given = [part for setting in (*settings, "training.parallel=fsdp2") for part in ("--set", setting)]
    two = in_processes(2, "none", "train", *small_arguments, *given, "--out", str(tmp_path / "two"))
    assert two.returncode == 0, two.stderr
    assert moved(one) > 1e-4 and distance(one, tmp_path / "two") <= 1e-8


# --- it stops by itself --------------------------------------------------------------------------------------------


def test_a_norm_far_above_the_median_is_left_out_and_not_remembered():
    watch = Runaway(limit=3.0, patience=2)
    assert all(watch.accepts(1.0 + 0.1 * n) for n in range(EARLY))  # whatever comes first is the measure
    assert watch.iteration_ends() == {"updates_left_out": 0}
    assert watch.usual == pytest.approx(1.4) and not watch.stopped  # torch's median: the lower of the two
    assert not watch.accepts(4.3) and watch.accepts(4.1)
    assert watch.iteration_ends() == {"updates_left_out": 1} and not watch.stopped
    for _ in range(2):
        assert not watch.stopped
        assert not watch.accepts(9.0) and not watch.accepts(9.0)
        assert watch.iteration_ends() == {"updates_left_out": 2}
    assert "above 3 times its early median (1.5)" in watch.stopped
    assert watch.accepted == EARLY + 1


def test_iterations_in_a_row_are_counted_and_no_credit_is_no_norm():
    watch = Runaway(limit=2.0, patience=2)
    assert all(watch.accepts(1.0) for _ in range(EARLY)) and watch.accepts(0.0) and watch.usual == 1.0
    watch.iteration_ends()
    for _ in range(3):
        assert not watch.accepts(5.0)
        watch.iteration_ends()
        assert watch.accepts(0.5)
        watch.iteration_ends()
    assert not watch.stopped


def test_early_norms_are_never_left_out():
    watch = Runaway(limit=1.5, patience=1)
    assert all(watch.accepts(10.0**n) for n in range(EARLY)) and not watch.accepts(1e9)


def test_a_slow_rise_is_seen_too():
    """5 % more with every update: a median of the latest hundred would be 0.09 of them, and never reached fourfold."""
    watch, norm = Runaway(limit=4.0, patience=1), 1.0
    for _ in range(FIRST):
        assert watch.accepts(1.0)
    while watch.accepts(norm):
        norm *= 1.05
        assert norm < 5
    watch.iteration_ends()
    assert 4.0 < norm < 4.3 and watch.usual == 1.0


def test_a_run_whose_norm_runs_away_ends_with_the_weights_of_before(small_forward, tmp_path, monkeypatch, capsys):
    loss, calls = Forward.loss, []

    def explode(self, *arguments, **more):
        calls.append(None)
        return loss(self, *arguments, **more) * (1e6 if self.runaway.accepted >= EARLY else 1.0)

    monkeypatch.setattr(Forward, "loss", explode)
    settings = ("training.iterations=20", "training.average=0.5", "training.runaway_patience=2")
    made = train(small_forward(*settings), tmp_path / "run")
    said = capsys.readouterr().err
    assert "cgrpo: stopped: for 2 iterations in a row the gradient's norm was above 4 times its early median" in said
    rows = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    assert [row["updates_left_out"] for row in rows] == [0] * 5 + [2] * 2
    summary = json.loads((made / "summary.json").read_text())
    assert summary["iterations"] == 7 and summary["stopped"].startswith("stopped:")
    assert "gradient&#39;s norm" in (made / "report.html").read_text().replace("'", "&#39;")
    good, last = state(made, 6), state(made, 7)
    assert all(torch.equal(good[key], last[key]) for key in good if key.startswith("adapter."))
    again = train(small_forward(*settings), resume=made)  # it has ended, and says so again
    assert "cgrpo: stopped: for 2 iterations" in capsys.readouterr().err
    assert len((again / "metrics.jsonl").read_text().splitlines()) == 7


@pytest.mark.parametrize(
    "setting",
    [
        "objective.beta=0",
        "objective.levels=0",
        "objective.old=1.0",
        "objective.loss=ppo",
        "objective.spread=even",
        "objective.kl=-1",
        "objective.negative=1.5",
        "sampling.order=3",
        "sampling.rollout_steps=0",
        "training.runaway=1.0",
        "training.runaway_patience=0",
    ],
)
def test_settings_out_of_range_are_one_line(small_forward, setting):
    with pytest.raises(UserError, match=setting.partition("=")[0]):
        small_forward(setting)
