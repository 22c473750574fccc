"""Training iterations of a real-size FLUX with random weights: seconds, peak memory, share of the chip's bf16 peak.

    python benchmarks/real_size.py                       # FLUX.1-dev, 512 x 512, one reference, G = 12, T = 25, 60 %
    python benchmarks/real_size.py --tiny                # the same road at a size for a CPU

For each checkpointing mode: one iteration to warm up, then ``--iterations`` measured ones by the trainer itself
(no autoencoder, text encoders or rewards: conditions are random tensors, scores random numbers). The peak is measured
on the same chip by large bf16 matrix products, interleaved with the iterations; medians. FLOPs are cgrpo plan's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from cgrpo.config import Config, load_config, override
from cgrpo.plan import plan
from cgrpo.policies import FluxPolicy, add_adapter
from cgrpo.policies.checkpointing import set_checkpointing
from cgrpo.rewards import Reward
from cgrpo.training.grpo import GRPO
from cgrpo.training.runtime import Runtime
from cgrpo.types import Batch, Condition

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


class TensorPolicy(FluxPolicy):
    """Conditions drawn at random; the picture is the mean of the latents, so that there is something to score."""

    def alike(self, batch: Batch, most: int) -> list[list[int]]:
        return [[row] for row in range(len(batch))]

    def encode_parts(self, batch: Batch, parts: Sequence[Sequence[int]]) -> list[Condition]:
        config, rows = self.transformer.config, (self.height // 8, self.width // 8)
        return [
            self.condition(
                torch.randn(len(part), TEXT_TOKENS, config["joint_attention_dim"]),
                torch.randn(len(part), config["pooled_projection_dim"]),
                [torch.randn(len(part), config["in_channels"] // 4, *rows)],
            )
            for part in parts
        ]

    def decode(self, x_NLC: Tensor) -> Tensor:
        return torch.zeros(len(x_NLC), 8, 8, 3, dtype=torch.uint8)


class RandomSource:
    size = None

    def batch(self, indices: Sequence[int]) -> Batch:
        count = len(indices)
        return Batch(("0",) * count, ("",) * count, ((),) * count, ("",) * count)


class RandomReward(Reward):
    axis, unit = "prompt", "random"

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        return torch.rand(len(images_NHWC))


def build(cfg: Config, shape: dict, device: torch.device) -> FluxPolicy:
    from diffusers import FluxTransformer2DModel

    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        transformer = FluxTransformer2DModel(**shape)
        torch.set_default_dtype(torch.float32)
    policy = TensorPolicy(
        transformer, None, None, height=cfg.policy.height, width=cfg.policy.width, reference_size=cfg.policy.height
    )
    add_adapter(policy.transformer, cfg.policy.rank, seed=0)
    return policy


def measured_peak(device: torch.device, size: int) -> float:
    """TFLOP/s of a bf16 product of two square matrices."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(8):
        synchronise(device)
        start = time.perf_counter()
        a @ b
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds[2:]) / 1e12


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--modes", nargs="+", default=["full", "selective", "off"])
    parser.add_argument("--set", dest="settings", action="append", default=[])
    options = parser.parse_args()
    settings = [
        "training.prompts_per_iteration=1",
        "logging.tracker=none",
        f"training.iterations={options.iterations + 1}",
    ]
    if options.tiny:
        settings += [
            "policy.height=64",
            "policy.width=64",
            "policy.rank=8",
            "training.group_size=6",
            "sampling.steps=6",
        ]
    cfg = override(load_config("uno-dinoseg-hpsv3"), [*settings, *options.settings])
    runtime = Runtime()
    policy = build(cfg, TINY if options.tiny else REAL, runtime.device)
    rewards = {"identity": RandomReward(), "prompt": RandomReward()}
    for mode in options.modes:
        set_checkpointing(policy.transformer, mode)
        parts = plan(override(cfg, [f"policy.checkpointing={mode}"])).work.operations
        operations = sum(count for part, count in parts.items() if part.startswith(("sampling", "training")))
        seconds, peaks = [], []
        if runtime.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            for done in GRPO(cfg, policy, rewards, RandomSource(), runtime).run(0):
                seconds.append(done.metrics["seconds/total"])
                peaks.append(measured_peak(runtime.device, 512 if options.tiny else 8192))
        except torch.OutOfMemoryError as error:
            print(f"{mode:10s} out of memory: {str(error).splitlines()[0]}")
            continue
        second, peak = statistics.median(seconds[1:]), statistics.median(peaks[1:])
        memory = torch.cuda.max_memory_allocated() / 2**30 if runtime.device.type == "cuda" else float("nan")
        share = "-" if options.tiny else f"{operations / second / peak / 1e12:.1%}"  # the plan is of the real size
        print(f"{mode:10s} {second:8.2f} s an iteration, peak {memory:6.1f} GiB, {share} of {peak:.1f} TFLOP/s")


if __name__ == "__main__":
    main()
