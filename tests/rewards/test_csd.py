"""CSD's style descriptors on a tiny checkpoint under the published names, against OpenAI's blocks written out."""

import numpy as np
import pytest
import torch
from PIL import Image
from support import csd
from support.tasks import noise, tasks

from cgrpo.errors import UserError
from cgrpo.rewards import convert_reward, load_reward
from cgrpo.rewards.base import to_tensor
from cgrpo.rewards.pixels import CLIP

MEAN, DEVIATION = (torch.tensor(values).view(3, 1, 1) for values in CLIP)


@pytest.fixture(scope="module")
def published() -> csd.Published:
    return csd.published()


def by_hand(some: list[Image.Image]) -> torch.Tensor:
    """48 x 64 to 32 x 42, then the 32 rows from row 5 on."""
    small = [np.asarray(one.resize((32, 42), Image.Resampling.BICUBIC))[5:37] for one in some]
    return torch.stack([(torch.tensor(one).permute(2, 0, 1) / 255 - MEAN) / DEVIATION for one in small])


@pytest.mark.parametrize("form", ["checkpoint.pth", "pytorch_model.bin"])
def test_scores_are_those_of_the_published_network(published, tmp_path, form):
    state = published.state_dict()
    held = {"model_state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}
    torch.save(held if form.endswith("pth") else state, tmp_path / form)
    weights = convert_reward(tmp_path / form, "csd", tmp_path / "csd.safetensors")
    made, references = noise(48, 64, 0, 3), noise(48, 64, 1, 2)
    expected = published(by_hand(made)) @ published(by_hand(references)).T
    batch = tasks([references[:1], references, ()])
    scores = load_reward("csd", weights, chunk=2)(to_tensor(made), batch)
    assert scores[:2].tolist() == pytest.approx([expected[0, 0].item(), expected[1].mean().item()], abs=1e-5)
    assert scores[2].isnan() and expected.std() > 1e-3


def test_other_weights_are_refused_and_nothing_written(published, tmp_path):
    state = published.state_dict()
    del state["backbone.ln_post.weight"]
    for held, says in ((state, "lacks 1 weights"), ({"weight": torch.zeros(2)}, "last_layer_style")):
        torch.save(held, tmp_path / "csd.pth")
        with pytest.raises(UserError, match=says):
            convert_reward(tmp_path / "csd.pth", "csd", tmp_path / "csd.safetensors")
        assert not (tmp_path / "csd.safetensors").exists()
