"""A FLUX of real size with random weights, made on the device: UNO's rank, one reference, 512 x 512."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from cgrpo.config import load_config, override
from cgrpo.errors import UserError
from cgrpo.policies.flux.policy import FluxCondition, FluxPolicy
from cgrpo.policies.memory import set_checkpointing
from cgrpo.rewards import Reward
from cgrpo.training.grpo.settings import GrpoConfig
from cgrpo.types import Batch
from stages.harness import device

RECIPE = "uno-dinoseg-hpsv3"
TEXT_TOKENS = 512
REAL = {
    "num_layers": 19, "num_single_layers": 38, "num_attention_heads": 24, "attention_head_dim": 128,
    "joint_attention_dim": 4096, "pooled_projection_dim": 768, "in_channels": 64, "guidance_embeds": True,
    "axes_dims_rope": (16, 56, 56),
}  # fmt: skip
TINY = REAL | {
    "num_layers": 1, "num_single_layers": 2, "num_attention_heads": 2, "attention_head_dim": 32,
    "joint_attention_dim": 64, "pooled_projection_dim": 32, "axes_dims_rope": (4, 14, 14),
}  # fmt: skip
SMALL = ["policy.height=32", "policy.width=32", "policy.rank=8", "training.group_size=6", "sampling.steps=6"]


class TensorPolicy(FluxPolicy):
    """Conditions drawn at random; pictures are grey, since there is no autoencoder and only time is measured."""

    def alike(self, batch: Batch, most: int) -> list[list[int]]:
        return [[row] for row in range(len(batch))]

    def encode_parts(self, batch: Batch, parts: Sequence[Sequence[int]]) -> list[FluxCondition]:
        return [self.random_condition(len(part)) for part in parts]

    def random_condition(self, count: int) -> FluxCondition:
        config, rows = self.transformer.config, (self.height // 8, self.width // 8)
        tokens = TEXT_TOKENS if config["num_layers"] == REAL["num_layers"] else 16
        shapes = (count, tokens, config["joint_attention_dim"]), (count, config["pooled_projection_dim"])
        text_NLC, pooled_NC = (torch.randn(*shape, device=self.device) for shape in shapes)
        latent_NCHW = torch.randn(count, config["in_channels"] // 4, *rows, device=self.device)
        return self.condition(text_NLC, pooled_NC, [latent_NCHW])

    def decode(self, x_NLC: Tensor) -> Tensor:
        return torch.full((len(x_NLC), 8, 8, 3), 127, dtype=torch.uint8)


class RandomSource:
    """Tasks without content, without end."""

    size: int | None = None

    def batch(self, indices: Sequence[int]) -> Batch:
        count = len(indices)
        return Batch(("0",) * count, ("",) * count, ((),) * count, ("",) * count)

    def pairs(self, indices: Sequence[int]) -> tuple[Batch, list[Image.Image]]:
        raise UserError("tasks without content have no targets")


class RandomReward(Reward):
    axis, unit = "prompt", "random"

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        return torch.rand(len(images_NHWC))


def config(tiny: bool, *settings: str) -> GrpoConfig:
    """The paper's recipe with one prompt: what one of its processes does."""
    # Rollout and replay share no batch shape here; how far they drift apart in bfloat16 is a figure, not a stop.
    common = ["training.prompts_per_iteration=1", "objective.max_ratio_drift=10", "logging.tracker=none"]
    cfg = override(load_config(RECIPE), [*common, *(SMALL if tiny else []), *settings])
    assert isinstance(cfg, GrpoConfig)
    return cfg


def build(tiny: bool, quantise: bool = False) -> TensorPolicy:
    """bfloat16 base, float32 adapter; int8 blocks where asked."""
    from diffusers import FluxTransformer2DModel

    cfg = config(tiny)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device()):
        transformer = FluxTransformer2DModel(**(TINY if tiny else REAL))
    torch.set_default_dtype(torch.float32)
    settings = cfg.policy.model_copy(update={"reference_size": cfg.policy.height})
    policy = TensorPolicy(transformer, None, None, settings)
    if quantise:
        policy.quantise()
    policy.add_adapter(cfg.policy.rank, seed=0)
    set_checkpointing(policy.transformer, "full")
    return policy
