"""The one optimisation loop that every toybox model is built with."""

import math
import time
import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


def optimise(
    name: str,
    modules: Iterable[nn.Module],
    loss_at: Callable[[int], Tensor],
    *,
    steps: int,
    learning_rate: float,
    say: Callable[[str], None],
    average: float = 0.0,
    muon: bool = False,
) -> float:
    """AdamW with 5 % warm-up, cosine decay and gradient norm 1; ``loss_at(step)`` in bf16 autocast.

    ``average`` > 0 leaves the exponential moving average of the weights in the modules. ``muon`` gives the matrices
    inside blocks to Muon, which learned faster here (docs/notes/log.md). Returns seconds.
    """
    named = [(name, p) for module in modules for name, p in module.named_parameters() if p.requires_grad]
    parameters: list[Tensor] = [p for _, p in named]
    matrices = [p for name, p in named if muon and p.ndim == 2 and "block" in name]
    others = [p for p in parameters if not any(p is matrix for matrix in matrices)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    ]
    if matrices:
        optimizers.append(torch.optim.Muon(matrices, lr=learning_rate, adjust_lr_fn="match_rms_adamw"))
    warm = max(1, steps // 20)

    def rate(step: int) -> float:
        return min((step + 1) / warm, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in optimizers]
    means = [p.detach().clone() for p in parameters]
    # float32 norms inside autocast are meant; only the fused kernel is not taken
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
    start, smooth = time.perf_counter(), 0.0
    for step in range(steps):
        # On a CPU the fused attention's backward takes a third of a step in bf16; plain products don't.
        with sdpa_kernel(SDPBackend.MATH):
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_at(step)
            loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        if average:
            torch._foreach_lerp_(means, parameters, 1 - min(average, (step + 1) / (step + 10)))
        smooth = loss.item() if step == 0 else 0.98 * smooth + 0.02 * loss.item()
        if step % max(1, steps // 20) == 0 or step == steps - 1:
            say(f"{name}: step {step + 1}/{steps}, loss {smooth:.4f}, {time.perf_counter() - start:.0f} s")
    if average:
        with torch.no_grad():
            for parameter, mean in zip(parameters, means, strict=True):
                parameter.copy_(mean)
    return time.perf_counter() - start
