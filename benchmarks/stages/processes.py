"""Process groups on one device: `torchrun --nproc_per_node 1` (NCCL starts), and a base sharded by FSDP2."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import torch

from stages.harness import Row, cuda, device, stage

ITERATIONS = ["training.iterations=2", "training.prompts_per_iteration=2", "training.group_size=4", "guard.every=0"]
QUICK = [*ITERATIONS, "evaluation.enabled=false", "logging.tracker=none"]


def figures(tiny: bool) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        settings = [word for value in QUICK for word in ("--set", value)]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1", "-m"]
        start = time.perf_counter()
        done = subprocess.run(
            [*torchrun, "cgrpo", "train", *settings, "--out", f"{folder}/run"], capture_output=True, text=True
        )
        row = {"figure": "torchrun, ddp", "seconds": time.perf_counter() - start, "code": done.returncode}
        yield row | ({} if done.returncode == 0 else {"why": done.stderr[-300:]})
    yield {"figure": "fsdp2, one process", **sharded()}


def sharded() -> Row:
    """The toy policy's velocity and gradients, whole and then with its blocks sharded over one process."""
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    from cgrpo.build import make_policy, make_source
    from cgrpo.config import load_config
    from cgrpo.policies.lora import LoraPolicy

    cfg = load_config("toybox")
    policy, batch = make_policy(cfg, device()), make_source(cfg).batch([0, 1])
    assert isinstance(policy, LoraPolicy)
    cond, sigma_N = policy.encode(batch), torch.full((2,), 0.5, device=device())
    x_NLC = torch.randn(2, *policy.latent_shape, device=device())

    def gradients() -> list[torch.Tensor]:
        policy.velocity(x_NLC, sigma_N, cond).square().mean().backward()
        found = [p.grad.clone() for p in policy.trainable_parameters().values() if p.grad is not None]
        for parameter in policy.trainable_parameters().values():
            parameter.grad = None
        return found

    whole = gradients()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    backend = "nccl" if cuda() else "gloo"
    init_process_group(backend, rank=0, world_size=1)
    mesh = init_device_mesh(device().type, (1,))

    def spread(blocks, keep) -> None:
        for block in blocks:
            fully_shard(block, mesh=mesh, ignored_params=set(keep) & set(block.parameters()))

    policy.shard(spread)
    with torch.no_grad():
        policy.velocity(x_NLC, sigma_N, cond)
    frozen = [p for block in policy.blocks for p in block.parameters() if not p.requires_grad]
    still_whole = sum(not isinstance(p, DTensor) for p in frozen)  # they would take memory that sharding should save
    away = max(float((a - b).abs().max()) for a, b in zip(whole, gradients(), strict=True))
    largest = max(float(gradient.abs().max()) for gradient in whole)
    destroy_process_group()
    return {
        "backend": backend,
        "largest_difference": away,
        "largest_gradient": largest,
        "whole_after_forward": still_whole,
    }


if __name__ == "__main__":
    stage("processes", figures)
