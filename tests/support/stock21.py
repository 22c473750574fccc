"""Qwen-Image-2.1's stock forward over a whole sequence, and the same policy without anything shared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cgrpo.policies.qwen21.inputs import Prefix
from cgrpo.policies.qwen21.policy import Qwen21Policy

SLOT = 4  # tokens that the text encoder reads as one


def whole(policy: Qwen21Policy, x_NLC: Tensor, sigma_N: Tensor, prefix: Prefix, **cached: Any) -> Tensor:
    """The velocity of samples of one task by one stock forward over words, references and picture."""
    count, words, slots = len(x_NLC), iter(prefix.text_LC), []
    for number, (rows, columns) in prefix.runs:
        slots += [(False, next(words)) for _ in range(number)]
        slots += [(True, torch.zeros_like(prefix.text_LC[0]))] * (rows * columns // SLOT)
    sizes = [(1, *grid) for _, grid in prefix.runs[:-1]]
    picture = [seen for seen, _ in slots] + [True] * (x_NLC.shape[1] // SLOT)
    references_NLC = prefix.reference_LC.to(x_NLC).expand(count, -1, -1)
    v_NLC = policy.transformer(
        hidden_states=torch.cat((references_NLC, x_NLC), dim=1),
        encoder_hidden_states=torch.stack([state for _, state in slots]).to(x_NLC).expand(count, -1, -1),
        timestep=sigma_N.to(x_NLC),
        img_shapes=[[*sizes, (1, *policy.geometry.grid)]] * count,
        img_mask=torch.tensor(picture).expand(count, -1),
        return_dict=False,
        **cached,
    )[0]
    return v_NLC[:, -x_NLC.shape[1] :]


class Alone(Qwen21Policy):
    """Every sample goes through the stock forward by itself, with its whole sequence."""

    has_prefix = False

    def shared_prefix(self, cond):
        return super(Qwen21Policy, self).shared_prefix(cond)

    def unguided(self, x_NLC, sigma_N, cond):
        rows = zip(x_NLC.split(1), sigma_N.split(1), cond.task_N.tolist(), strict=True)
        return torch.cat([whole(self, x, sigma, cond.prefixes[task]) for x, sigma, task in rows])


def exact(policy: Qwen21Policy) -> Qwen21Policy:
    """With norms of queries and keys in the tensors' own precision, where the stock ones round to float32."""
    for block in policy.transformer.transformer_blocks:
        for name in ("norm_q", "norm_k"):
            stock = getattr(block.attn, name)
            own = nn.RMSNorm(stock.weight.shape, eps=stock.eps, dtype=stock.weight.dtype)
            own.weight.data = stock.weight.data
            setattr(block.attn, name, own.requires_grad_(False))
    return policy


def exact_rotary(x: Tensor, freqs_cis: Tensor, use_real: bool = False) -> Tensor:
    """The stock rotary embedding in the tensors' own precision."""
    turned = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * freqs_cis.unsqueeze(1)
    return torch.view_as_real(turned).flatten(3)
