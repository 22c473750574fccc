"""The trainer: its update is the algorithm's gradient, its checks fire, its numbers are what they say."""

import json
from threading import Event

import pytest
import torch

from cgrpo.algorithm import Window, credit_table, replay_logp
from cgrpo.app.run import train
from cgrpo.build import make_policy, make_source
from cgrpo.config import load_config, recipes
from cgrpo.errors import UserError
from cgrpo.evaluation.statistics.comparison import compare_methods
from cgrpo.policies.adapters.layers import set_adapter_state
from cgrpo.rewards import make_rewards
from cgrpo.scores import read_scores
from cgrpo.section import TOYBOX_POLICIES
from cgrpo.training.grpo.loop import GRPO
from cgrpo.training.runtime import Runtime


def trainer(cfg) -> GRPO:
    return GRPO(cfg, make_policy(cfg), make_rewards(cfg.rewards), make_source(cfg), Runtime())


def shake(made: GRPO) -> None:
    """Up matrices away from 0, so that every parameter has a gradient."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters:
            parameter += 0.02 * torch.randn(parameter.shape, generator=rng, dtype=parameter.dtype)


def gradients(made: GRPO, monkeypatch) -> list[torch.Tensor]:
    """The gradient of the first update, before clipping."""
    caught: list[torch.Tensor] = []

    def stop() -> float:
        caught.extend(p.grad.clone() for p in made.parameters)
        raise StopIteration

    monkeypatch.setattr(made, "step", stop)
    with pytest.raises(RuntimeError):
        next(made.run(0))
    return caught


def counting(made: GRPO, monkeypatch) -> list[tuple[int, bool]]:
    """The rows of every evaluation of the velocity, and whether it is for a gradient."""
    rows, velocity = [], made.policy.velocity

    def counted(x_NLC, sigma_N, cond):
        rows.append((len(x_NLC), torch.is_grad_enabled()))
        return velocity(x_NLC, sigma_N, cond)

    monkeypatch.setattr(made.policy, "velocity", counted)
    return rows


@pytest.mark.parametrize(
    ("batch", "window"),
    [(96, "fraction"), (1, "fraction"), (96, "all")],  # both prompts sampled together, one after the other
)
def test_the_update_is_minus_the_gradient_of_equation_7(small, monkeypatch, watch_scores, batch, window):
    settings = ("policy.dtype=float64", "training.updates_per_rollout=1", f"sampling.window.type={window}")
    made = trainer(small(*settings, f"sampling.batch={batch}"))
    shake(made)
    parts, sample, scores = [], made.sample, watch_scores()
    monkeypatch.setattr(made, "sample", lambda *a: parts.append(sample(*a)) or parts[-1])
    rows = counting(made, monkeypatch)
    found = gradients(made, monkeypatch)
    if window == "all":  # 2 prompts x 4 samples: the first of 4 steps is a row per prompt, in the rollout and in replay
        assert [n for n, graded in rows if not graded] == [2, 8, 8, 8]
        assert [n for n, graded in rows if graded] == [5, 5, 5, 3]  # 2 + 8 + 8, in micro-batches of 5

    assert [part.rows for part in parts] == ([[0, 1]] if batch == 96 else [[0], [1]])
    credit = credit_table(scores[0], made.credit.weights_KR)
    total, pairs = 0.0, sum(len(part.roll.sample_M) for part in parts)
    for part in parts:
        for m in range(len(part.roll.sample_M)):  # one pair at a time, nothing shared with the trainer's batching
            n, k = int(part.roll.sample_M[m]), int(part.roll.step_M[m])
            bound = lambda x, s, n=n, part=part: made.policy.velocity(x, s, part.cond.select([n]))  # noqa: E731
            logp, _, _ = replay_logp(bound, part.roll, torch.tensor([m]), made.sigmas, "constant", 0.5)
            total = total + credit.credit_KPG[k, part.rows[n // 4], n % 4] * logp[0] / pairs
    expected = torch.autograd.grad(-total, made.parameters)
    size = max(g.abs().max() for g in expected)
    assert size > 0
    # The stock rotary embedding rounds gradients to float32, and a shared backward rounds a group's sum.
    limit = 1e-7 if window == "all" else 1e-9
    assert max((a - b).abs().max() for a, b in zip(found, expected, strict=True)) < limit * float(size)


def test_ratio_is_one_before_the_first_update_and_moves_after(small):
    rows = [done.metrics for done in trainer(small("training.learning_rate=0.003")).run(0)]
    assert all(row["ratio_drift"] < 1e-4 for row in rows)
    assert rows[-1]["ratio_spread"] > rows[-1]["ratio_drift"]


def test_a_policy_that_replays_otherwise_than_it_sampled_is_stopped(small):
    made = trainer(small())
    velocity = made.policy.velocity
    made.policy.velocity = lambda x, s, cond: velocity(x, s, cond) * (1.5 if torch.is_grad_enabled() else 1.0)
    with pytest.raises(UserError, match="rollout and replay disagree"):
        next(made.run(0))


def test_skipping_samples_without_credit_is_exact(small, monkeypatch, watch_scores):
    watch_scores(lambda scores_PGR: scores_PGR[0].fill_(0.5))  # no spread in the first group, no credit

    def gradient(kl: str) -> list[torch.Tensor]:
        made = trainer(small("policy.dtype=float64", f"objective.kl={kl}"))
        shake(made)
        return gradients(made, monkeypatch)

    skipped, kept = gradient("0.0"), gradient("1e-300")  # KL on: nothing is skipped, and it weighs nothing
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(skipped, kept, strict=True))


def test_kl_pulls_towards_the_base(small):
    def distance(kl: str) -> float:
        made = trainer(small(f"objective.kl={kl}", "training.iterations=6", "training.learning_rate=0.01"))
        rows = [done.metrics for done in made.run(0)]
        assert rows[-1]["kl"] >= 0 and (kl == "0.0" or rows[-1]["kl"] > 0)
        return sum(
            p.square().sum().item() for name, p in made.policy.transformer.named_parameters() if "lora_B" in name
        )

    assert distance("10.0") < distance("0.0")


@pytest.mark.parametrize("kind", ["all", "fraction", "sliding"])
@pytest.mark.parametrize("sde", ["constant", "flow-grpo", "cps"])
def test_every_window_and_sampler_trains(small, kind, sde):
    cfg = small(
        f"sampling.window.type={kind}", "sampling.window.size=2", f"sampling.kind={sde}", "training.iterations=2"
    )
    rows = [done.metrics for done in trainer(cfg).run(0)]
    assert all(row["gradient_norm"] > 0 and row["ratio_drift"] < 1e-4 for row in rows)


def test_a_group_takes_the_steps_before_its_window_once(small, monkeypatch):
    cfg = small("sampling.window.type=sliding", "sampling.window.size=2", "training.iterations=2", "sampling.steps=5",
                "training.prompts_per_iteration=2", "sampling.batch=96")  # fmt: skip
    made = trainer(cfg)
    rows = counting(made, monkeypatch)
    list(made.run(0))
    group = cfg.training.group_size
    # The window's first step is still taken from what the group shares.
    assert [n for n, graded in rows if not graded] == [2] + [2 * group] * 4 + [2, 2] + [2 * group] * 3


def test_a_micro_batch_takes_pairs_of_any_steps(small, monkeypatch):
    """So a sharded base is gathered once per micro-batch and pass, and not once per step."""
    cfg = small("sampling.window.type=all", "sampling.steps=7", "training.micro_batch=5", "training.iterations=1",
                "training.prompts_per_iteration=1", "shaping.type=none")  # fmt: skip
    made = trainer(cfg)
    rows = counting(made, monkeypatch)
    list(made.run(0))
    # Each of 2 updates trains 2 samples at 6 steps; they share the first.
    assert [n for n, graded in rows if graded] == [5, 5, 1] * 2


def test_steps_taken_once_give_the_pictures_of_steps_taken_by_each(small, monkeypatch):
    cfg = small("sampling.window.type=sliding", "sampling.window.size=2", "training.iterations=3", "sampling.steps=5",
                "training.prompts_per_iteration=2", "training.learning_rate=1e-9", "sampling.batch=96")  # fmt: skip
    once = [done.images_NHWC for done in trainer(cfg).run(0)]
    monkeypatch.setattr(Window, "lead", 0)
    each = [done.images_NHWC for done in trainer(cfg).run(0)]
    for a, b in zip(once, each, strict=True):
        assert (a.int() - b.int()).abs().max() <= 1  # pictures of 8 bits, from batches of other shapes
    assert not once[2][0].equal(once[2][1])


def test_an_adapter_that_does_not_move_is_noticed(small, tmp_path, monkeypatch):
    monkeypatch.setattr(GRPO, "step", lambda self: 1.0)
    with pytest.raises(UserError, match="did not move"):
        train(small(), tmp_path / "run")


@pytest.mark.parametrize(
    "recipe",
    [  # one of each method draws its report
        pytest.param(name, marks=pytest.mark.drawn) if name in ("toybox", "sft", "forward", "rpo") else name
        for name in recipes()
        if load_config(name).policy.path in TOYBOX_POLICIES
    ],
)
def test_every_recipe_runs_for_two_steps(recipe, tmp_path):
    _, count = load_config(recipe).share()
    short = [f"{count}=1", "training.iterations=2", "sampling.steps=4", "logging.tracker=none"]
    short += ["preference.tasks=2"] if load_config(recipe).method == "preference" else []
    short += ["training.group_size=6"] if load_config(recipe).method in ("grpo", "forward") else []
    cfg = load_config(recipe, (*short, "evaluation.subjects=3", "evaluation.prompts_per_subject=2"))
    run = train(cfg, tmp_path / "run", name=recipe)
    summary = json.loads((run / "summary.json").read_text())
    metrics = {"identity", "prompt", "identity_readback", "prompt_readback", "copy_paste"}
    metrics |= {"copies"} if cfg.evaluation.copies else set()
    metrics |= {"subject_1_readback", "subject_2_readback", "both_right"} if recipe.startswith("pair") else set()
    assert summary["metrics"].keys() == metrics
    for row in summary["metrics"].values():
        assert row.keys() == {"role", "axis", "base", "trained", "difference", "low", "high"}
        assert row["low"] <= row["difference"] <= row["high"]
        assert abs(row["trained"] - row["base"] - row["difference"]) < 1e-9
    rows = read_scores(run)
    assert len(rows) == len(metrics) * 2 * 6 and {row.method for row in rows} == {"base", "trained"}
    again = {(d.column.removesuffix(" (one)"), d.group): d for d in compare_methods(rows).differences}
    for group, metrics in ({"all": summary["metrics"]} | summary["by_prompt"]).items():
        for name, row in metrics.items():
            found = again[name, group]
            assert (found.low, found.high) == pytest.approx((row["low"], row["high"]), abs=1e-5)
    for name in ("config.json", "environment.json", "metrics.jsonl", "benchmark.json", "report.html", "comparison.png"):
        assert (run / name).stat().st_size > 0
    assert (run / "adapter" / "pytorch_lora_weights.safetensors").exists()
    assert len(list((run / "samples").glob("*.png"))) == 2


def test_prompt_only_and_identity_only_watch_the_other_reward():
    for recipe, column in (("prompt-only", 1), ("identity-only", 0)):
        made = trainer(load_config(recipe, ["logging.tracker=none"]))
        assert list(made.rewards) == ["identity", "prompt"]
        assert made.credit.weights_KR[:, column].eq(1).all() and made.credit.weights_KR[:, 1 - column].eq(0).all()


def test_the_papers_naive_runs_weigh_identity_to_prompt_as_it_says():
    for recipe, ratio in (("naive", 1.0), ("naive-prompt", 1.5)):
        w_identity, w_prompt = trainer(load_config(recipe)).credit.weights_KR[0].tolist()
        assert abs(w_prompt / w_identity - ratio) < 1e-6


def test_a_single_reward_trains_alone(small):
    alone = ("rewards.identity.type=none", "weights.type=constant", "weights.prompt=1.0", "training.iterations=1")
    made = trainer(small(*alone))
    row = next(made.run(0)).metrics
    assert list(made.rewards) == ["prompt"] and row["gradient_norm"] > 0


def test_the_saved_adapter_is_the_trained_one(small, tmp_path):
    from support.policies import read_adapter

    from cgrpo.app.sample import open_policy
    from cgrpo.policies.adapters.layers import adapter_state

    run = train(small(), tmp_path / "run")
    _, policy = open_policy(run, load_config())
    state, header = read_adapter(run / "adapter")
    assert header["rank"] == "4"
    assert all(torch.equal(value, state[key]) for key, value in adapter_state(policy.transformer).items())
    set_adapter_state(policy.transformer, state)


def test_a_reward_in_the_background_scores_while_the_next_group_is_sampled(small):
    """Each waits for the other: it can only end where they overlap."""
    made = trainer(small("sampling.batch=4", "rewards.identity.background=true", "training.iterations=1"))
    reward, sample, scoring, sampled = made.rewards["identity"], made.sample, Event(), Event()
    score = reward.function

    def wait(pictures, batch):
        scoring.set()
        assert sampled.wait(60)
        return score(pictures, batch)

    def sample_and_wait(number, rows, cond):
        assert rows == [0] or scoring.wait(60)
        part = sample(number, rows, cond)
        if rows == [1]:
            sampled.set()
        return part

    reward.function, made.sample = wait, sample_and_wait
    assert next(made.run(0)).metrics["reward/identity/failed"] == 0


def test_scores_of_the_background_are_those_of_the_foreground(small, manifest, watch_scores):
    """The parts' prompts are not in order: references of equal sizes are sampled together."""
    seen, rows = watch_scores(), []
    for background in ("false", "true"):
        settings = (f"data.source={manifest}", "training.prompts_per_iteration=5", "training.iterations=2")
        made = trainer(small(*settings, "sampling.steps=2", f"rewards.prompt.background={background}"))
        sample = made.sample
        made.sample = lambda *given, sample=sample: rows.extend(given[1]) or sample(*given)
        list(made.run(0))
    assert rows[:5] != sorted(rows[:5])
    assert len(seen) == 4 and all(seen[n].equal(seen[n + 2]) for n in (0, 1))


def test_a_third_reward_carries_its_own_weight(small):
    """Beside the two that share the weight: constant over the steps, and part of the credit."""
    third = ("rewards.style.type=support.exact_rewards:redness", "weights.others.style=0.25")
    made = trainer(small(*third))
    assert list(made.rewards) == ["identity", "prompt", "style"]
    assert made.credit.weights_KR[:, 2].eq(0.25).all() and made.credit.weights_KR[:, :2].sum(1).allclose(torch.ones(4))
    row = next(made.run(0)).metrics
    assert row["gradient_norm"] > 0 and row["reward/style/seconds"] >= 0
    watched = trainer(small(third[0]))
    assert watched.credit.weights_KR[:, 2].eq(0).all()
    for setting in ("weights.others.stile=0.25", "weights.others.prompt=0.25", "weights.others.style=-1"):
        with pytest.raises(UserError, match=r"weights.others"):
            small(third[0], setting)


@pytest.mark.parametrize(
    "function,how", [("never", "NaN for whole groups"), ("constant", "no group two different scores")]
)
def test_a_reward_that_says_nothing_stops_the_run(small, function, how):
    made = trainer(small(f"rewards.style.type=support.exact_rewards:{function}", "training.max_failed_groups=2"))
    run = made.run(0)
    next(run)
    with pytest.raises(UserError, match=f"'style'.*{how}.*2 iterations"):
        next(run)
