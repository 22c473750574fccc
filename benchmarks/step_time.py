"""A training step against the bare model's own forwards and backwards, with and without what a group shares.

    python benchmarks/step_time.py [--repeats 7] [--exactness | --slow-reward] [--set key=value]...

Each repeat runs, interleaved: one training iteration; one that evaluates each input by itself, as if nothing were
shared; and the bare transformer through as many rows as each of both takes. Medians, and their ratios. On a CPU the
seconds are this process's own, so that other programs do not count.
--exactness: instead, the first update's gradient with sharing against the one without, in float64 and float32.
--slow-reward: instead, how long an iteration waits for a reward that sleeps as long as the rollout took, one prompt
per part: scored in the background, and in the foreground.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from unittest.mock import patch

import torch
from diffusers.models import embeddings
from diffusers.models.transformers import transformer_flux
from torch import Tensor

from cgrpo.algorithm import rollout
from cgrpo.build import make_policy, make_source
from cgrpo.config import load_config, override
from cgrpo.policies.base import Policy
from cgrpo.rewards import FunctionReward, make_rewards
from cgrpo.training import loop as loops
from cgrpo.training.grpo import loop
from cgrpo.training.grpo.loop import GRPO, Sampled
from cgrpo.training.grpo.settings import GrpoConfig
from cgrpo.training.runtime import Runtime

if not torch.cuda.is_available():
    loops.now = time.process_time

Rows = list[tuple[int, bool]]
"""Of every evaluation of the velocity: its rows, and whether it is for a gradient."""


class Plain(GRPO):
    """The same without sharing: every sample's first step, and every pair, is evaluated by itself."""

    def sample(self, *arguments) -> Sampled:
        with patch.object(loop, "rollout", lambda *given: rollout(*given[:8])):
            part = super().sample(*arguments)
        return replace(part, input_M=torch.arange(len(part.sample_M)))


def make(kind: type[GRPO], cfg: GrpoConfig, policy: Policy) -> GRPO:
    return kind(cfg, policy, make_rewards(cfg.rewards), make_source(cfg), Runtime())


@contextmanager
def watching(policy: Policy) -> Iterator[tuple[Rows, list[float]]]:
    """The rows of what is evaluated within, and the seconds of decoding."""
    rows, seconds, velocity, decode = [], [], policy.velocity, policy.decode

    def counted(x_NLC, sigma_N, cond):
        rows.append((len(x_NLC), torch.is_grad_enabled()))
        return velocity(x_NLC, sigma_N, cond)

    def timed(x_NLC):
        start = loops.now()
        images_NHWC = decode(x_NLC)
        seconds.append(loops.now() - start)
        return images_NHWC

    with patch.object(policy, "velocity", counted), patch.object(policy, "decode", timed):
        yield rows, seconds


def bare(trainer: GRPO, rows: Rows) -> float:
    """Seconds of the transformer alone for these rows."""
    policy, prompts = trainer.policy, trainer.cfg.training.prompts_per_iteration
    most = max(n for n, _ in rows)
    cond = policy.encode(trainer.source.batch(range(prompts))).repeat(-(-most // prompts))
    x_NLC = torch.randn(most, *policy.latent_shape)
    start = loops.now()
    for n, graded in rows:
        with torch.set_grad_enabled(graded):
            v_NLC = policy.velocity(x_NLC[:n], torch.full((n,), 0.5), cond.select(slice(n)))
            if graded:
                v_NLC.square().mean().backward()
    trainer.optimizer.zero_grad(set_to_none=True)
    return loops.now() - start


def times(cfg: GrpoConfig, repeats: int) -> None:
    policy = make_policy(cfg)
    trainers = {"shared": make(GRPO, cfg, policy), "plain": make(Plain, cfg, policy)}
    runs = {name: trainer.run(0) for name, trainer in trainers.items()}
    steps, floors, whole = ({name: [] for name in trainers} for _ in range(3))
    counts: dict[str, Rows] = {}
    for _ in range(repeats + 1):  # the first is a warm-up
        for name, trainer in trainers.items():
            with watching(policy) as (rows, decoding):
                numbers = next(runs[name]).metrics
            whole[name].append(numbers["seconds/total"])
            steps[name].append(numbers["seconds/total"] - numbers["seconds/reward"] - sum(decoding))
            floors[name].append(bare(trainer, rows))
            counts[name] = rows
    print(f"threads {torch.get_num_threads()}, {repeats} repeats, medians")
    for name in trainers:
        step, floor, total = (statistics.median(table[name][1:]) for table in (steps, floors, whole))
        forwards, both = (sum(n for n, graded in counts[name] if graded is which) for which in (False, True))
        print(
            f"{name}: rows {forwards} forward, {both} forward and backward; iteration {total:.3f} s, without "
            f"decoding and rewards {step:.3f} s, bare model {floor:.3f} s, ratio {step / floor:.3f}"
        )
    ratios = [a / b for a, b in zip(whole["shared"][1:], whole["plain"][1:], strict=True)]
    print(f"iteration, shared / plain: {statistics.median(ratios):.3f}")
    naive = statistics.median(a / b for a, b in zip(steps["shared"][1:], floors["plain"][1:], strict=True))
    print(f"shared step / bare model without sharing: {naive:.3f}")


def exactness(settings: list[str]) -> None:
    for dtype, rotary in (("float64", False), ("float64", True), ("float32", True)):
        cfg = load_config("toybox", [*settings, f"policy.dtype={dtype}"])
        assert isinstance(cfg, GrpoConfig)
        with patch.object(transformer_flux, "apply_rotary_emb", rotary_of(rotary)):
            one, other = (gradient(make(kind, cfg, make_policy(cfg))) for kind in (GRPO, Plain))
        error = float((one - other).abs().max() / other.abs().max())
        print(f"{dtype}, {'stock' if rotary else 'exact'} rotary embedding: {error:.1e} of the largest entry")


def rotary_of(stock: bool):
    """diffusers' rotary embedding, which rounds to float32, or the same in the tensors' own precision."""
    if stock:
        return embeddings.apply_rotary_emb

    def exact(x: Tensor, freqs: tuple[Tensor, Tensor], sequence_dim: int = 2) -> Tensor:
        cos, sin = (f.to(x)[None, :, None, :] if sequence_dim == 1 else f.to(x)[None, None] for f in freqs)
        real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
        return x * cos + torch.stack([-imaginary, real], -1).flatten(3) * sin

    return exact


def slow_reward(cfg: GrpoConfig) -> None:
    alone = ["rewards.identity.type=none", "weights.type=constant", "weights.prompt=1.0"]
    changed = override(cfg, [*alone, f"sampling.batch={cfg.training.group_size}"])
    assert isinstance(changed, GrpoConfig)
    cfg, policy = changed, make_policy(changed)
    for background in (True, False):
        parts: list[float] = []  # seconds that the sampling of each part took, until its pictures are scored

        def asleep(pictures, batch, parts=parts) -> Tensor:
            for _ in range(len(pictures) // cfg.training.group_size):
                time.sleep(parts.pop(0))
            return torch.rand(len(pictures))

        reward = FunctionReward(asleep, "prompt", background)
        trainer = GRPO(cfg, policy, {"prompt": reward}, make_source(cfg), Runtime())

        def timed(*arguments, sample=trainer.sample, parts=parts) -> Sampled:
            start = loops.now()
            part = sample(*arguments)
            parts.append(loops.now() - start)
            return part

        waits = []
        with patch.object(trainer, "sample", timed):
            for done in trainer.run(0):
                wait = done.metrics["seconds/reward"]
                waits.append(wait / (done.metrics["seconds/total"] - wait))
        each = ", ".join(f"{wait:.1%}" for wait in waits[1:])
        how = "background" if background else "foreground"
        print(f"{how}: waits {statistics.median(waits[1:]):.1%} of the rest of an iteration ({each})")


def gradient(trainer: GRPO) -> Tensor:
    """The first update's gradient, at an adapter that is not the fresh one."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.parameters:
            parameter += 0.02 * torch.randn(parameter.shape, generator=rng, dtype=parameter.dtype)
    found: list[Tensor] = []

    def step() -> float:
        found.append(torch.cat([p.grad.flatten() for p in trainer.parameters if p.grad is not None]))
        raise InterruptedError

    with patch.object(trainer, "step", step), suppress(InterruptedError):
        next(trainer.run(0))
    return found[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--exactness", action="store_true")
    parser.add_argument("--slow-reward", action="store_true")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    options = parser.parse_args()
    cfg = load_config("toybox", [*options.settings, f"training.iterations={options.repeats + 1}"])
    if not isinstance(cfg, GrpoConfig):
        raise SystemExit("this times method grpo alone: leave the setting of another out")
    if options.exactness:
        exactness(options.settings)
    elif options.slow_reward:
        loops.now = time.perf_counter  # sleeping counts
        slow_reward(cfg)
    else:
        times(cfg, options.repeats)


if __name__ == "__main__":
    main()
