"""The part of a forward that many others begin with: evaluated once, and differentiated once.

Text and references of a transformer with causal attention see neither the picture nor its sigma. Their keys and values
are then the same for all samples of a group at all steps, and so is what a backward through them takes: it is linear in
the gradient that arrives, so the sum of all that arrive can go through at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def differentiated_once(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Within it: leaves in place of ``tensors``, for any number of forwards and backwards.

    The gradients that arrive at a leaf are summed in float32 or better. On leaving one backward takes the sums through
    ``tensors`` to what they are made of; it takes none if an exception leaves.
    """
    sums: dict[int, Tensor] = {}

    def add(number: int, leaf: Tensor) -> None:
        assert leaf.grad is not None
        if number in sums:
            sums[number] += leaf.grad
        else:
            sums[number] = leaf.grad.to(torch.promote_types(leaf.dtype, torch.float32))
        leaf.grad = None

    leaves = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in tensors]
    for number, leaf in enumerate(leaves):
        if leaf.requires_grad:
            leaf.register_post_accumulate_grad_hook(lambda leaf, number=number: add(number, leaf))
    yield leaves
    if sums:
        reached = [tensors[number] for number in sums]
        torch.autograd.backward(reached, [total.to(leaves[number].dtype) for number, total in sums.items()])
