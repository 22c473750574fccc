"""What rewards remember of texts and references: it must not depend on what was encoded before, or with what."""

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from cgrpo.data import ToyboxSource
from cgrpo.hub import asset
from cgrpo.rewards import load_reward
from cgrpo.rewards.base import EncodeOnce
from cgrpo.rewards.dino import DinoEncoder, DinoSeg
from cgrpo.rewards.segmenters import load_segmenter

REWARDS = {
    "texts": lambda folder: load_reward("clip", "toybox"),
    "references": lambda folder: load_reward("clip-i", "toybox"),
    "references, DINO v1": lambda folder: load_reward("dino", folder),
    "references, whole": lambda folder: DinoSeg(DinoEncoder(asset("dino")), None, masks="none"),
    "references, segmented": lambda folder: DinoSeg(DinoEncoder(asset("dino")), load_segmenter(asset("segmenter"))),
}


@pytest.fixture
def uneven():
    """Make every forward depend on how many rows it has, as matrix products do in the last bit on some CPUs."""

    def lean(module, _, rows):
        return rows * (1 + 1e-3 * len(rows)) if isinstance(module, nn.LayerNorm) else None

    hook = register_module_forward_hook(lean)
    yield
    hook.remove()


@pytest.mark.parametrize("name", REWARDS)
def test_scores_do_not_depend_on_what_was_scored_before(name, uneven, golden_dino_v1):
    source = ToyboxSource(0, "validation", 0.0, 1)
    batch, images = source.batch(range(7)), source.oracle(range(7))
    scores = []
    for before in (0, 1, 3, 7):
        reward = REWARDS[name](golden_dino_v1)
        if before:
            reward(images[:before], batch.select(slice(before)))
        scores.append(reward(images[:5], batch.select(slice(5))))
    assert all(torch.equal(row, scores[0]) for row in scores)


def test_the_last_items_are_remembered():
    calls = []
    encode = EncodeOnce(lambda item: calls.append(item) or 2 * item, size=2)
    assert encode({"a": 1, "b": 2}) == {"a": 2, "b": 4}
    assert encode({"a": 1, "c": 3}) == {"a": 2, "c": 6}  # b is the one not seen for longest
    assert encode({"a": 1, "b": 2, "c": 3}) == {"a": 2, "b": 4, "c": 6}  # more than it remembers
    assert calls == [1, 2, 3, 2]
