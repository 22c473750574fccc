"""Customized-GRPO in one screen: the algorithm's functions and a policy, no trainer.

    python examples/minimal_loop.py

Trains the toybox policy for a few iterations on two home-made rewards - how blue and how bright a picture
is - that pull against each other, and prints their means.
"""

import functools

import torch

import cgrpo
from cgrpo.algorithm import credit_table, random_fraction, replay_logp, reward_weights, rollout
from cgrpo.data import GroupNoise, ToyboxSource

ITERATIONS, PROMPTS, GROUP, STEPS = 4, 2, 8, 6


def blueness(images_NHWC: torch.Tensor) -> torch.Tensor:
    """Blue minus the mean of red and green, in [-1, 1], one number a picture."""
    means_NC = images_NHWC.float().mean((1, 2)) / 255
    return means_NC[:, 2] - means_NC[:, :2].mean(1)


def brightness(images_NHWC: torch.Tensor) -> torch.Tensor:
    """Mean pixel value in [0, 1], one number a picture."""
    return images_NHWC.float().mean((1, 2, 3)) / 255


policy = cgrpo.load_policy("toybox", rank=16)
tasks = ToyboxSource(seed=0)
optimizer = torch.optim.AdamW(policy.trainable_parameters().values(), lr=1e-3)
sigmas = policy.sigmas(STEPS, shift=1.5)
weights_KR = reward_weights(cgrpo.sigmoid_weights(STEPS), ["identity", "prompt"])  # Eq. 12, TDW

for iteration in range(ITERATIONS):
    positions = range(PROMPTS)
    noise = GroupNoise(0, iteration, positions, GROUP, policy.latent_shape)
    cond = policy.encode(tasks.batch([iteration * PROMPTS + p for p in positions])).repeat(GROUP)
    window = random_fraction(STEPS, PROMPTS * GROUP, 0.6, generators=noise.window_generators)
    velocity = functools.partial(policy.velocity, cond=cond)
    roll = rollout(velocity, noise.initial(), sigmas, window, noise.step, "constant", 0.5)  # Eq. 13

    images_NHWC = policy.decode(roll.x_NLC)
    scores_PGR = torch.stack([blueness(images_NHWC), brightness(images_NHWC)], -1).view(PROMPTS, GROUP, 2)
    credit = credit_table(scores_PGR, weights_KR)  # Eq. 8, 10-12: SARS
    credit_M = credit.of_pairs(roll.sample_M, roll.step_M)

    for index_B in torch.arange(len(roll.sample_M)).split(48):
        bound = functools.partial(policy.velocity, cond=cond.select(roll.sample_M[index_B]))
        logp_B, _, _ = replay_logp(bound, roll, index_B, sigmas, "constant", 0.5)
        loss_B = cgrpo.clipped_surrogate(logp_B, roll.logp_M[index_B], credit_M[index_B], clip=1e-3)  # Eq. 7
        (loss_B.sum() / len(roll.sample_M)).backward()
    optimizer.step()
    optimizer.zero_grad()
    blue, bright = scores_PGR.mean((0, 1)).tolist()
    print(f"iteration {iteration}: blueness {blue:+.3f}, brightness {bright:.3f}")
