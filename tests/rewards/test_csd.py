"""CSD's style descriptors on a tiny checkpoint under the published names, against OpenAI's blocks written out."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.tasks import noise, tasks
from torch import nn
from torch.nn import functional as F

from cgrpo.errors import UserError
from cgrpo.rewards import convert_reward, load_reward
from cgrpo.rewards.base import to_tensor
from cgrpo.rewards.pixels import CLIP

WIDTH, STYLE, SIDE, PATCH, LAYERS = 128, 24, 32, 8, 2
MEAN, DEVIATION = (torch.tensor(values).view(3, 1, 1) for values in CLIP)


class Block(nn.Module):
    """OpenAI's residual attention block, by its own names; two heads of 64."""

    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, WIDTH // 64, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(WIDTH, 4 * WIDTH), "c_proj": nn.Linear(4 * WIDTH, WIDTH)})

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        hidden = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](hidden * torch.sigmoid(1.702 * hidden))


class Published(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.backbone.positional_embedding = nn.Parameter(torch.randn((SIDE // PATCH) ** 2 + 1, WIDTH))
        self.backbone.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.backbone.ln_pre, self.backbone.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.backbone.transformer = nn.Module()
        self.backbone.transformer.resblocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.last_layer_style = nn.Parameter(torch.randn(WIDTH, STYLE))
        self.last_layer_content = nn.Parameter(torch.randn(WIDTH, STYLE))

    @torch.no_grad()
    def forward(self, pixels):
        body = self.backbone
        patches = body.conv1(pixels).flatten(2).transpose(1, 2)
        first = body.class_embedding.expand(len(pixels), 1, -1)
        x = body.ln_pre(torch.cat([first, patches], 1) + body.positional_embedding)
        for block in body.transformer.resblocks:
            x = block(x)
        return F.normalize(body.ln_post(x[:, 0]) @ self.last_layer_style, dim=-1)


@pytest.fixture(scope="module")
def published() -> Published:
    torch.manual_seed(0)
    made = Published().eval()
    with torch.no_grad():
        made.backbone.class_embedding.mul_(0.1)  # so that the picture counts
        for weight in made.backbone.transformer.parameters():
            weight.mul_(2)
    return made


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
