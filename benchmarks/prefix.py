"""What sharing the prefix of a group saves: tokens, seconds and memory of a rollout and an update of Qwen-Image-2.1.

    python benchmarks/prefix.py [--repeats 2] [--steps 4] [--width 64] [--layers 6]

One prompt, one reference and pictures of 512 x 512 pixels, a group of 12, random weights, one pair per micro-batch.
Interleaved: the trainer as it is, and the same where every sample and every pair evaluates its prefix by itself.
Medians of this process's own seconds on a CPU, and the most bytes of tensors that an update has alive at once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import weakref
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers import QwenImage21Transformer2DModel
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cgrpo.build import make_source
from cgrpo.config import load_config
from cgrpo.policies.qwen21.inputs import Prefix
from cgrpo.policies.qwen21.policy import Qwen21Policy
from cgrpo.rewards import FunctionReward
from cgrpo.training.grpo.loop import GRPO, Totals
from cgrpo.training.runtime import Runtime

SIDE, WORDS, CHANNELS = 512, 72, 16


class Made(Qwen21Policy):
    """Without an autoencoder and a text encoder; counts the tokens that go through the transformer."""

    seen = 0

    def condition_of_a_task(self) -> Any:
        generator = torch.Generator().manual_seed(0)
        text_LC = torch.randn(WORDS, self.transformer.config["context_in_dim"], generator=generator)
        latent = torch.randn(1, CHANNELS, SIDE // 16, SIDE // 16, generator=generator)
        return self.condition([(text_LC, [8])], [latent])

    def keys_and_values(self, prefix: Prefix) -> tuple[Tensor, ...]:
        self.seen += len(prefix.mask_LL) * (3 if torch.is_grad_enabled() else 1)
        return super().keys_and_values(prefix)

    def behind(self, prefix: Prefix, x_NLC: Tensor, sigma_N: Tensor) -> Tensor:
        self.seen += x_NLC.shape[0] * x_NLC.shape[1] * (3 if torch.is_grad_enabled() else 1)
        return super().behind(prefix, x_NLC, sigma_N)


class Plain(Made):
    """Every sample by itself."""

    has_prefix = False

    def shared_prefix(self, cond: Any) -> Any:
        return super(Qwen21Policy, self).shared_prefix(cond)

    def unguided(self, x_NLC: Tensor, sigma_N: Tensor, cond: Any) -> Tensor:
        rows = zip(x_NLC.split(1), sigma_N.split(1), strict=True)
        return torch.cat([self.behind(cond.prefixes[0], x_1LC, sigma_1) for x_1LC, sigma_1 in rows])


class Live(TorchDispatchMode):
    """Bytes of the storages that operations made within and that are alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.known, self.now, self.peak = set[int](), 0, 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for storage in (leaf.untyped_storage() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)):
            if storage._cdata not in self.known | given:
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _gone(self, identity: int, size: int) -> None:
        self.known.discard(identity)
        self.now -= size


def trainer(kind: type[Made], steps: int, width: int, layers: int, folder: Path) -> GRPO:
    """Of one task, whose picture and reference are only a size."""
    Image.new("RGB", (SIDE, SIDE)).save(folder / "0.png")
    (folder / "tasks.json").write_text(json.dumps([{"prompt": "a", "subject": "a", "references": ["0.png"]}]))
    settings = [
        f"data.source={folder / 'tasks.json'}", f"sampling.steps={steps}", "sampling.window.type=all",
        f"policy.height={SIDE}", f"policy.width={SIDE}", "policy.dtype=float32", "policy.checkpointing=off",
        "training.prompts_per_iteration=1", "training.group_size=12", "training.updates_per_rollout=1",
        "training.micro_batch=1", "objective.kl=0", "rewards.identity.type=none", "weights.type=constant",
        "weights.prompt=1.0",
    ]  # fmt: skip
    cfg: Any = load_config("qwen21-24gb", settings)
    torch.manual_seed(0)
    heads, axes = width // 32, (8, 12, 12)
    transformer = QwenImage21Transformer2DModel(
        in_channels=CHANNELS, out_channels=CHANNELS, num_layers=layers, attention_head_dim=32,
        num_attention_heads=heads, context_in_dim=32, axes_dims_rope=axes,
    )  # fmt: skip
    policy = kind(transformer, None, None, cfg.policy)
    policy.add_adapter(4, 0)
    reward = FunctionReward(lambda pictures, batch: torch.zeros(len(pictures)), "prompt", False)
    return GRPO(cfg, policy, {"prompt": reward}, make_source(cfg), Runtime())


def iteration(loop: GRPO, number: int, live: Live | None = None) -> tuple[list[float], list[int], Tensor]:
    """Seconds and tokens of the rollout and of the update; the gradient. ``live`` watches the update."""
    policy: Any = loop.policy
    marks = [(time.process_time(), policy.seen)]
    part = loop.sample(number, [0], policy.condition_of_a_task())
    marks.append((time.process_time(), policy.seen))
    scores_PGR = torch.linspace(-1, 1, 12)[None, :, None]
    totals = Totals(loop.runtime.device)
    with live or nullcontext():
        for micro in loop.prefixed(loop.micro_batches([part], loop.credit(scores_PGR), 0, 0.0), 0.0):
            (loop.loss(micro, totals, fresh=True).sum() * micro.weight).backward()
    marks.append((time.process_time(), policy.seen))
    gradient = torch.cat([p.grad.flatten() for p in loop.parameters if p.grad is not None])
    for parameter in loop.parameters:
        parameter.grad = None
    seconds, tokens = zip(*((b[0] - a[0], b[1] - a[1]) for a, b in zip(marks, marks[1:], strict=False)), strict=True)
    return list(seconds), list(tokens), gradient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"repeats": 2, "steps": 4, "width": 64, "layers": 6}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = (options.steps, options.width, options.layers, Path(folder))
        loops = {kind: trainer(kind, *sizes) for kind in (Made, Plain)}
        seconds: dict[type[Made], list[list[float]]] = {Made: [], Plain: []}
        tokens, gradients, peaks = {}, {}, {}
        for number in range(options.repeats):
            for kind, loop in loops.items():
                spent, tokens[kind], gradients[kind] = iteration(loop, number)
                seconds[kind].append(spent)
        for kind, loop in loops.items():
            live = Live()
            iteration(loop, 0, live)
            peaks[kind] = live.peak
    medians = {
        kind: [statistics.median(column) for column in zip(*rows, strict=True)] for kind, rows in seconds.items()
    }
    for place, phase in enumerate(("rollout", "update")):
        (plain, passes), (shared, fewer) = ((medians[kind][place], tokens[kind][place]) for kind in (Plain, Made))
        print(f"{phase}: tokens {passes / fewer:.2f} times, seconds {plain / shared:.2f} ({plain:.1f}, {shared:.1f})")
    both = [sum(column[kind]) for column in (tokens, medians) for kind in (Plain, Made)]
    print(f"together: tokens {both[0] / both[1]:.2f} times, seconds {both[2] / both[3]:.2f} times")
    print(
        f"the update's peak memory: {peaks[Made] / peaks[Plain]:.2f} of the plain loop's {peaks[Plain] / 2**20:.0f} MiB"
    )
    error = (gradients[Made] - gradients[Plain]).abs().max() / gradients[Plain].abs().max()
    print(f"gradient: {error:.1e} of the largest entry apart")


if __name__ == "__main__":
    main()
