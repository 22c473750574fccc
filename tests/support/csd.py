"""A tiny CSD under its published names, with OpenAI's blocks written out."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

WIDTH, STYLE, SIDE, PATCH, LAYERS = 128, 24, 32, 8, 2


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


def published() -> Published:
    torch.manual_seed(0)
    made = Published().eval()
    with torch.no_grad():
        made.backbone.class_embedding.mul_(0.1)  # so that the picture counts
        for weight in made.backbone.transformer.parameters():
            weight.mul_(2)
    return made
