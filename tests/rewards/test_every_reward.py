"""What holds for every type of reward: as many scores as pictures, whatever the pictures, prompts and references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from support import every_reward

from cgrpo.config import load_config, parse_config
from cgrpo.errors import UserError
from cgrpo.rewards import Reward, make_rewards
from cgrpo.rewards.measures import measures
from cgrpo.types import Batch

NAMES = [*every_reward.LOCAL, *measures(0.5)]
UNITS = {
    "dino-seg": "cosine of DINO",
    "dino": "cosine of DINO v1",
    "clip": "cosine of CLIP image and text",
    "clip-i": "cosine of CLIP image embeddings",
    "siglip2": "cosine of SigLIP 2 image embeddings",
    "siglip2 prompt": "cosine of SigLIP 2 image and text",
    "csd": "cosine of CSD",
    "face": "cosine of face",
    "aesthetic": "LAION aesthetic V1",
    "aesthetic v2": "LAION aesthetic V2",
    "hpsv2": "HPSv2's cosine",
    "pickscore": "PickScore's logit",
    "image-reward": "ImageReward",
    "hpsv3": "HPSv3's mean",
    "function": "as the function defines it",
}
IDENTITY = {"dino-seg", "dino", "clip-i", "siglip2", "csd", "face"}
LONG = "a red toy on a beach " * 300


@pytest.fixture(scope="module")
def rewards(tmp_path_factory, golden_dino_v1) -> dict[str, Reward]:
    """Through a configuration, as a run makes them."""
    settings = every_reward.build(tmp_path_factory.mktemp("rewards"), golden_dino_v1)
    tables = {name: one.model_dump() for name, one in settings.items()}
    pair = {"identity": tables["dino-seg"], "prompt": tables["clip"]}
    return {**make_rewards(parse_config({"rewards": pair | tables}, "test").rewards), **measures(0.5)}


def pictures(count: int, width: int = 32, height: int = 32) -> torch.Tensor:
    noise = np.random.default_rng(0).integers(0, 255, (count, height, width, 3), dtype=np.uint8)
    return torch.from_numpy(noise)


def tasks(count: int, prompt: str = "a red toy", references: int = 1) -> Batch:
    reference = Image.fromarray(pictures(1, 40, 32)[0].numpy())
    rows = ((reference,) * references,) * count
    return Batch(tuple(map(str, range(count))), (prompt,) * count, rows, ("toy",) * count)


@pytest.mark.parametrize("name", every_reward.LOCAL)
def test_axis_unit_and_chunk(name, rewards):
    reward = rewards[name]
    assert reward.unit.startswith(UNITS[name]) and (reward.axis == "identity") == (name in IDENTITY)
    assert name in every_reward.ONE_BY_ONE or getattr(reward, "encoder", reward).chunk == 2


@pytest.mark.parametrize(
    "table",
    [{"type": "aesthetic"}, {"type": "hpsv2"}, {"type": "dino", "masks": "both"}, {"type": "clip-i", "chunk": 0}],
)
def test_tables_that_are_not_theirs_are_refused(table):
    with pytest.raises(UserError, match=r"rewards\.extra"):
        load_config("toybox", [f"rewards.extra.{key}={value}" for key, value in table.items()])


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
