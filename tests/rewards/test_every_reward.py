"""What holds for every type of reward: as many scores as pictures, whatever the pictures, prompts and references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from support import every_reward

from cgrpo.rewards import Reward, make_rewards
from cgrpo.rewards.measures import measures
from cgrpo.types import Batch

NAMES = [*every_reward.LOCAL, *measures(0.5)]
LONG = "a red toy on a beach " * 300


@pytest.fixture(scope="module")
def rewards(tmp_path_factory, golden_dino_v1) -> dict[str, Reward]:
    made = make_rewards(every_reward.build(tmp_path_factory.mktemp("rewards"), golden_dino_v1))
    return {**made, **measures(0.5)}


def pictures(count: int, width: int = 32, height: int = 32) -> torch.Tensor:
    noise = np.random.default_rng(0).integers(0, 255, (count, height, width, 3), dtype=np.uint8)
    return torch.from_numpy(noise)


def tasks(count: int, prompt: str = "a red toy", references: int = 1) -> Batch:
    reference = Image.fromarray(pictures(1, 40, 32)[0].numpy())
    rows = ((reference,) * references,) * count
    return Batch(tuple(map(str, range(count))), (prompt,) * count, rows, ("toy",) * count)


@pytest.mark.parametrize("name", NAMES)
def test_as_many_scores_as_pictures(name, rewards):
    for count in (0, 1, 3):
        scores = rewards[name](pictures(count), tasks(count))
        assert scores.shape == (count,) and scores.dtype == torch.float32 and scores.device.type == "cpu"
        assert scores.isfinite().all() and not scores.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_other_numbers_of_pictures_and_tasks_are_refused(name, rewards):
    for shown, asked in ((2, 1), (1, 2), (0, 1), (3, 0)):
        with pytest.raises(ValueError, match=f"{shown} pictures for {asked} tasks"):
            rewards[name](pictures(shown), tasks(asked))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (150, 1), (1, 150), (33, 17)])
def test_pictures_of_any_shape_have_a_score(name, size, rewards):
    scores = rewards[name](pictures(2, *size), tasks(2))
    assert scores.shape == (2,) and scores.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prompt", ["", " ", "\n", LONG, "\U0001f431 ü \x00", "<|endoftext|> [SEP] </s>"])
def test_any_prompt_has_a_score(name, prompt, rewards):
    if name == "hpsv3" and "<|endoftext|>" in prompt:
        pytest.skip("refused: HPSv3's own tokens would move its positions")
    assert rewards[name](pictures(1), tasks(1, prompt)).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_without_a_reference_identity_alone_has_no_score(name, rewards):
    scores = rewards[name](pictures(2), tasks(2, references=0))
    assert scores.isnan().all() if rewards[name].axis == "identity" else scores.isfinite().all()
