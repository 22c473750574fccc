"""Rewards for equivalence tests: exact functions of a picture's bytes, whatever the batch."""

import numpy as np
import torch


def brightness(pictures, batch):
    return [float(np.asarray(picture, dtype=np.float64).mean() / 255) for picture in pictures]


def redness(pictures, batch):
    arrays = [np.asarray(picture, dtype=np.float64) / 255 for picture in pictures]
    return [float(a[..., 0].mean() - a[..., 1:].mean()) for a in arrays]


def raises(pictures, batch):
    raise RuntimeError("the scorer is out of order")


def interrupted(pictures, batch):
    """Ctrl-C in the middle of an iteration."""
    raise KeyboardInterrupt


def never(pictures, batch):
    return [float("nan")] * len(pictures)


def sometimes(pictures, batch):
    """NaN for the first picture of every call."""
    return [float("nan"), *brightness(pictures[1:], batch)]


def brightness_of_even_tasks(pictures, batch):
    """The same score for all pictures of an odd task, which then earn no credit."""
    scores = brightness(pictures, batch)
    odd = [name.startswith("train") and int(name.split("-")[1]) % 2 for name in batch.ids]
    return [0.5 if flat else score for flat, score in zip(odd, scores, strict=True)]


def constant(pictures, batch):
    return [0.5] * len(pictures)


def drawn(pictures, batch):
    """Draws from the global random state, as a careless reward may."""
    return [score + 0.1 * torch.rand(1).item() for score in brightness(pictures, batch)]


class Told:
    """Scores told beforehand, call by call (the last again and again), whatever the pictures; tasks differ by 0.1."""

    def __init__(self, *scores):
        self.scores = list(scores)

    def __call__(self, pictures, batch):
        score = self.scores.pop(0) if len(self.scores) > 1 else self.scores[0]
        return [score + 0.1 * n for n in range(len(pictures))]


rise_and_fall = Told(0.0)  # a test tells it anew
