"""A training step against the bare model's own forwards and backwards of the same shapes.

    python benchmarks/step_time.py [--repeats 7] [--set key=value]...

Each repeat runs one whole training iteration (encode, sample, reward, update) and, interleaved with it, the
bare transformer: as many forwards of the rollout's batch and forward-backwards of the micro-batches as the
iteration did. The ratio of the medians is printed; the reward networks are reported apart.
"""

import argparse
import statistics
import time

import torch

from cgrpo.build import make_policy, make_source
from cgrpo.config import load_config
from cgrpo.rewards import make_rewards
from cgrpo.training.grpo.loop import GRPO
from cgrpo.training.grpo.settings import GrpoConfig
from cgrpo.training.runtime import Runtime


def bare(trainer: GRPO, pairs: int) -> float:
    """Seconds of the transformer alone: the rollout's forwards, the update's forward-backwards."""
    cfg, policy = trainer.cfg, trainer.policy
    samples = cfg.training.group_size * cfg.training.prompts_per_iteration
    cond = policy.encode(trainer.source.batch(range(cfg.training.prompts_per_iteration))).repeat(
        cfg.training.group_size
    )
    x_NLC = torch.randn(samples, *policy.latent_shape)
    start = time.perf_counter()
    with torch.no_grad():
        for _ in range(cfg.sampling.steps):
            policy.velocity(x_NLC, torch.full((samples,), 0.5), cond)
    for part in range(cfg.training.updates_per_rollout):
        share = range(part, pairs, cfg.training.updates_per_rollout)
        for index in torch.tensor(share).split(cfg.training.micro_batch):
            rows = index % samples
            policy.velocity(x_NLC[rows], torch.full((len(rows),), 0.5), cond.select(rows)).square().mean().backward()
    trainer.optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    options = parser.parse_args()
    count = options.repeats + 1  # the first is a warm-up
    cfg = load_config("toybox", [*options.settings, f"training.iterations={count}"])
    if not isinstance(cfg, GrpoConfig):
        raise SystemExit("this times method grpo alone: leave the setting of another out")
    trainer = GRPO(cfg, make_policy(cfg), make_rewards(cfg.rewards), make_source(cfg), Runtime())
    samples = cfg.training.group_size * cfg.training.prompts_per_iteration
    pairs = samples * max(1, int(cfg.sampling.window.fraction * (cfg.sampling.steps - 1)))
    steps, floors, rewards = [], [], []
    for done in trainer.run(0):
        numbers = done.metrics
        steps.append(numbers["seconds/total"] - numbers["seconds/reward"])
        rewards.append(numbers["seconds/reward"])
        floors.append(bare(trainer, pairs))
    step, floor, reward = (statistics.median(values[1:]) for values in (steps, floors, rewards))
    print(f"threads {torch.get_num_threads()}, {samples} samples, {pairs} trained pairs, {options.repeats} repeats")
    print(f"step without rewards {step:.3f} s, bare model {floor:.3f} s, ratio {step / floor:.3f}")
    print(f"decode and rewards {reward:.3f} s")


if __name__ == "__main__":
    main()
