"""RPO: pairs made once and kept, the update is the losses' gradient, resumed and spread runs are the run."""

import json

import pytest
import torch
from PIL import Image
from support.runs import GUARDED, JUDGED, distance, in_processes, moved

from cgrpo.algorithm import flow_matching_loss, harmonic_mean, noised, preference_loss
from cgrpo.app import pairs
from cgrpo.app.datasets import encode_tasks
from cgrpo.app.run import train
from cgrpo.build import make_policy, make_source
from cgrpo.config import load_config
from cgrpo.data import PairSource, derive
from cgrpo.errors import UserError
from cgrpo.rewards import make_rewards
from cgrpo.training.loop import make_loop
from cgrpo.training.preference.loop import Preference
from cgrpo.training.runtime import Runtime

BRIGHT = ("rewards.prompt.type=support.exact_rewards:brightness",)


@pytest.fixture
def settings(small_sft, tiny):
    """Of a small run; ``small_sft`` brings the rewards' folder and the policy."""
    shared = ["rewards.identity.type=support.exact_rewards:brightness", *BRIGHT, tiny]
    shared += ["training.iterations=3", "training.micro_batch=4", "training.checkpoint_every=1", "sampling.steps=4"]
    shared += ["policy.rank=4", "evaluation.enabled=false", "logging.tracker=none", "training.schedule=constant"]
    return [*shared, "preference.tasks=5", "preference.candidates=3", "preference.batch=2"]


def lines(folder):
    return [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]


def made(cfg, folder) -> PairSource:
    return pairs.pairs_of(cfg, folder, make_policy(cfg), make_rewards(cfg.rewards), make_source(cfg), Runtime())


def test_a_run_makes_its_pairs_learns_and_resumes_bit_for_bit(settings, tmp_path):
    settings = [*settings, *GUARDED, *JUDGED]
    whole = train(load_config("rpo", settings), tmp_path / "whole")
    rows = lines(whole / "pairs")
    assert len(rows) == 5 and [row["task"] for row in rows] == list(range(5))
    for row in rows:
        sides = [Image.open(whole / "pairs" / row[side]).convert("RGB") for side in ("winner", "loser")]
        bright = [sum(picture.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))) for picture in sides]
        assert bright[0] >= bright[1] and row["scores"]["identity"][0] > row["scores"]["identity"][1]
        assert Image.open(whole / "pairs" / row["references"][0]).size == (32, 32)
    metrics = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert metrics[0]["preference_loss"] == pytest.approx(0.693147, abs=1e-4)  # the policy is its reference still
    assert all(row["gradient_norm"] > 0 and row["similarity_loss"] > 0 for row in metrics)
    assert moved(whole) > 0 and "preference margin" in (whole / "report.html").read_text()

    part = train(load_config("rpo", [*settings, "training.iterations=2"]), tmp_path / "part")
    before = {path: path.stat().st_mtime_ns for path in (part / "pairs").iterdir()}
    again = train(load_config("rpo", settings), resume=part)
    assert distance(whole, again) == 0
    assert (whole / "guard.jsonl").read_text() == (again / "guard.jsonl").read_text()
    states = [(run / "checkpoints" / "step-3" / "state.safetensors").read_bytes() for run in (whole, again)]
    assert states[0] == states[1]
    assert before == {path: path.stat().st_mtime_ns for path in (part / "pairs").iterdir()}  # made once


def test_two_processes_with_a_sharded_base_give_the_run_of_one(settings, tmp_path):
    double = [*settings, "policy.dtype=float64"]
    one = train(load_config("rpo", double), tmp_path / "one")
    given = [part for setting in (*double, "training.parallel=fsdp2") for part in ("--set", setting)]
    two = in_processes(2, "none", "train", "rpo", *given, "--out", str(tmp_path / "two"))
    assert two.returncode == 0, two.stderr
    assert lines(one / "pairs") == lines(tmp_path / "two" / "pairs")
    assert moved(one) > 1e-5 and distance(one, tmp_path / "two") <= 1e-8


def test_making_goes_on_where_it_was_killed(settings, tmp_path, monkeypatch):
    cfg = load_config("rpo", settings)
    monkeypatch.setattr(pairs, "BLOCK", 2)
    made(cfg, tmp_path / "whole")
    keep, calls = pairs._keep, []

    def killed(folder, rows, state):
        calls.append(state["tasks"])
        if len(calls) == 2:  # between the two files
            (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
            raise KeyboardInterrupt
        keep(folder, rows, state)

    monkeypatch.setattr(pairs, "_keep", killed)
    with pytest.raises(KeyboardInterrupt):
        made(cfg, tmp_path / "part")
    assert len(lines(tmp_path / "part")) == 4
    assert made(cfg, tmp_path / "part").size == 5 and calls == [2, 4, 4, 5]
    assert lines(tmp_path / "part") == lines(tmp_path / "whole")
    for path in (tmp_path / "whole").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "part" / path.name).read_bytes()


def test_candidates_come_from_the_prompt_alone_and_the_frozen_base(settings, tmp_path, monkeypatch):
    cfg, seen = load_config("rpo", settings), []
    sample = pairs.sample_tasks
    monkeypatch.setattr(pairs, "sample_tasks", lambda *a: seen.append((a[2], a[5])) or sample(*a))
    policy = make_policy(cfg)
    with torch.no_grad():
        for parameter in policy.trainable_parameters().values():
            parameter += 0.1
    shaken = pairs.pairs_of(cfg, tmp_path / "shaken", policy, make_rewards(cfg.rewards), make_source(cfg), Runtime())
    assert all(batch.references == ((),) * 5 for batch, _ in seen) and [draw for _, draw in seen] == [0, 1, 2]
    made(cfg, tmp_path / "plain")
    assert lines(tmp_path / "shaken") == lines(tmp_path / "plain") and shaken.size == 5
    made(load_config("rpo", [*settings, "training.seed=1"]), tmp_path / "other")
    assert lines(tmp_path / "other") != lines(tmp_path / "plain")


def test_the_harmonic_mean_chooses(settings, tmp_path):
    made(load_config("rpo", [*settings, "rewards.prompt.type=support.exact_rewards:redness"]), tmp_path)
    scores = [row["scores"] for row in lines(tmp_path)]
    for row in scores:
        won, lost = (torch.tensor([row[name][side] for name in ("identity", "prompt")]) for side in (0, 1))
        assert harmonic_mean(*won[:, None]) > harmonic_mean(*lost[:, None])


@pytest.mark.parametrize("similarity", [1.0, 0.25, 0.0])
def test_the_update_is_the_losses_gradient(settings, tmp_path, monkeypatch, similarity):
    """Pair by pair, nothing shared with the trainer's batching; the policy already moved away from its reference."""
    more = ["policy.dtype=float64", f"preference.similarity={similarity}", "preference.beta=20"]
    cfg = load_config("rpo", [*settings, *more])
    source, policy = made(cfg, tmp_path), make_policy(cfg)
    trainer = make_loop(cfg, policy, make_rewards(cfg.rewards), source, Runtime())
    assert isinstance(trainer, Preference)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.parameters:
            parameter += 0.02 * torch.randn(parameter.shape, generator=rng, dtype=parameter.dtype)
    caught: list[torch.Tensor] = []
    monkeypatch.setattr(trainer, "step", lambda: caught.extend(p.grad.clone() for p in trainer.parameters) or 1.0)
    monkeypatch.setattr(trainer, "tasks", lambda number: [3, 1])
    metrics = next(iter(trainer.run(0))).metrics

    for parameter in trainer.parameters:
        parameter.grad = None
    total, parts = torch.zeros((), dtype=torch.float64), []
    for position, index in enumerate([3, 1]):
        batch, (winner,), (loser,) = source.preferences([index])
        stream = derive(cfg.training.seed, "preference noise", 0, position)
        noise = torch.randn((1, *policy.latent_shape), generator=stream).double()
        sigma = torch.sigmoid(torch.randn(1, generator=stream)).double()
        errors, frozen = [], []
        for picture in (winner, loser, batch.references[0][0].convert("RGB")):
            x0 = policy.encode_targets([picture]).double()
            x, cond = noised(x0, noise, sigma), policy.encode(batch)
            errors.append(flow_matching_loss(policy.velocity(x, sigma, cond), x0, noise))
            with policy.reference():
                frozen.append(flow_matching_loss(policy.velocity(x, sigma, cond), x0, noise).detach())
        parts.append(preference_loss(errors[0], frozen[0], errors[1], frozen[1], 20.0).item())
        total = total + (preference_loss(errors[0], frozen[0], errors[1], frozen[1], 20.0) + similarity * errors[2])[0]
    (total / 2).backward()
    assert metrics["preference_loss"] == pytest.approx(sum(parts) / 2, rel=1e-6)
    assert metrics["loss"] == pytest.approx(total.item() / 2, rel=1e-6)
    for found, parameter in zip(caught, trainer.parameters, strict=True):
        torch.testing.assert_close(found, parameter.grad, rtol=1e-5, atol=1e-9)


@pytest.fixture
def given(tmp_path):
    """A file of three pairs, pictures of several sizes."""
    for number, size in enumerate([(32, 32), (40, 20), (24, 48)]):
        for name in ("reference", "winner", "loser"):
            Image.effect_noise(size, 60).convert("RGB").save(tmp_path / f"{name}{number}.png")
    rows = [
        {
            "prompt": f"a toy {n}",
            "references": [f"reference{n}.png"],
            "winner": f"winner{n}.png",
            "loser": f"loser{n}.png",
        }
        for n in range(3)
    ]
    return tmp_path / "votes.jsonl", rows


def test_given_pairs_are_trained_on(settings, given, tmp_path):
    file, rows = given
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    cfg = load_config("rpo", [*settings, f"preference.pairs={file}"])
    folder = train(cfg, tmp_path / "run")
    assert not (folder / "pairs").exists() and moved(folder) > 0
    assert f"preference.pairs = {file}" in json.loads((folder / "materials.json").read_text())
    store = encode_tasks(
        load_config("rpo", [*settings, f"preference.pairs={file}", "guard.every=0"]), tmp_path / "encoded"
    )
    assert (store.texts_made, store.references_made) == (3, 3)
    Image.effect_noise((32, 32), 61).convert("RGB").save(tmp_path / "loser1.png", compress_level=0)
    with pytest.raises(UserError, match="preference.pairs"):
        train(load_config("rpo", [*settings, f"preference.pairs={file}", "training.iterations=4"]), resume=folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"loser": None}, "row 2: loser must be a picture file"),
        ({"winner": 7}, "row 2: winner must be a picture file"),
        ({"references": []}, "row 2: references"),
        ({"loser": "nowhere.png"}, "nowhere.png"),
    ],
)
def test_a_wrong_pair_is_told(settings, given, tmp_path, change, said):
    file, rows = given
    rows[1] = rows[1] | change
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(UserError) as caught:
        PairSource(file).preferences([0, 1, 2])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_mistakes_are_one_line(settings, tmp_path):
    for more, said in {
        ("preference.pairs=nowhere.jsonl",): "nowhere.jsonl: no such file",
        (
            "rewards.identity.type=support.exact_rewards:constant",
            "rewards.prompt.type=support.exact_rewards:constant",
        ): "no pair among",
    }.items():
        with pytest.raises(UserError, match=said):
            train(load_config("rpo", [*settings, *more]), tmp_path / "run")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="holds no pairs"):
        PairSource(tmp_path / "empty.jsonl")
    with pytest.raises(UserError, match="name a file"):
        cfg = load_config("rpo", settings)
        make_loop(cfg, make_policy(cfg), make_rewards(cfg.rewards), make_source(cfg), Runtime())
    with pytest.raises(UserError, match="chooses pairs but is left out"):
        load_config("rpo", [*settings, "rewards.identity.type=none"])
    load_config("rpo", [*settings, "rewards.identity.type=none", "preference.prompt=1"])
    load_config("rpo", [*settings, "rewards.identity.type=none", "preference.pairs=votes.jsonl"])


def test_pairs_of_other_settings_are_not_taken(settings, tmp_path):
    made(load_config("rpo", settings), tmp_path)
    with pytest.raises(UserError, match="pairs of other settings"):
        made(load_config("rpo", [*settings, "preference.candidates=2"]), tmp_path)
    made(load_config("rpo", [*settings, "training.learning_rate=0.5"]), tmp_path)  # they don't depend on it
    (tmp_path / "made.json").write_text("{")
    with pytest.raises(UserError, match="can't be read"):
        made(load_config("rpo", settings), tmp_path)
