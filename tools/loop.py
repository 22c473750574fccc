"""Draws docs/images/loop.png, a group of samples of one prompt with their scores, advantages and credit, by the program
itself, and docs/images/toy.png, its reference.

python tools/loop.py
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch

import cgrpo
from cgrpo.algorithm import credit_table, random_fraction, reward_weights, rollout
from cgrpo.build import make_policy
from cgrpo.data import GroupNoise, ToyboxSource
from cgrpo.evaluation.show.sheets import grid
from cgrpo.rewards import make_rewards
from cgrpo.rewards.base import to_pictures
from cgrpo.training.grpo.settings import GrpoConfig

GROUP, TASK = 6, 2
IMAGES = Path(__file__).parents[1] / "docs" / "images"

cfg = cgrpo.load_config("toybox")
assert isinstance(cfg, GrpoConfig)
policy, rewards, steps = make_policy(cfg), make_rewards(cfg.rewards), cfg.sampling.steps
batch = ToyboxSource(0, "validation", cfg.data.dial).batch([TASK])
noise = GroupNoise(0, 0, [0], GROUP, policy.latent_shape)
velocity = functools.partial(policy.velocity, cond=policy.encode(batch).repeat(GROUP))
window = random_fraction(steps, GROUP, 0.6, generators=noise.window_generators)
sigmas = policy.sigmas(steps, cfg.sampling.shift)
roll = rollout(velocity, noise.initial(), sigmas, window, noise.step, "constant", cfg.sampling.noise_level)
images_NHWC, samples = policy.decode(roll.x_NLC), batch.repeat(GROUP)
scores_PGR = torch.stack([reward(images_NHWC, samples) for reward in rewards.values()], -1)[None]
advantage_GR = cgrpo.group_advantages(scores_PGR)[0]
credit = credit_table(scores_PGR, reward_weights(cgrpo.sigmoid_weights(steps), list(rewards)))

first, last = (credit.of_pairs(torch.arange(GROUP), torch.full((GROUP,), k)) for k in (0, steps - 2))
notes = [""] + [
    "\n".join(
        [
            *(f"{name} {scores_PGR[0, g, r]:.2f}" for r, name in enumerate(rewards)),
            "advantages " + " ".join(f"{advantage_GR[g, r]:+.1f}" for r in range(len(rewards))),
            f"credit, early {first[g]:+.1f}",
            f"credit, late {last[g]:+.1f}",
        ]
    )
    for g in range(GROUP)
]
row = [batch.references[0][0], *to_pictures(images_NHWC)]
columns = ["reference", *(f"sample {g + 1}" for g in range(GROUP))]
sheet = grid([row], batch.prompts, columns, [notes], size=row[-1].size)
sheet.save(IMAGES / "loop.png", optimize=True)
row[0].save(IMAGES / "toy.png", optimize=True)
