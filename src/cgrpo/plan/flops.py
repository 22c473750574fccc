"""Floating-point operations of the transformer: matrix products and attention, two per multiply-add.

The rules, for a frozen base with a LoRA:

forward    2 * rows * inputs * outputs for a linear layer, the same for each of the LoRA's two matrices, and
           4 * tokens^2 * width for attention (q k^T and the product with v).
backward   the input's gradient alone for a frozen layer (once its forward), input and weights for the LoRA (twice),
           5 products of attention for the forward's 2 (flash attention computes q k^T again): 2.5 times. Nothing is
           computed for what lies before the first LoRA, nor for modulation and time, which the LoRA does not reach.
again      with checkpointing "full" the blocks' forward once more, with "selective" the LoRA's products of it.

Norms, activations, rotary embedding and the optimizer are left out: they move memory, and count in the utilisation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cgrpo.plan.transformer import Linear, Tokens, Transformer

ATTENTION_BACKWARD = 2.5


@dataclass(frozen=True)
class Flops:
    """Operations by kind."""

    linear: float = 0.0
    lora: float = 0.0
    attention: float = 0.0

    @property
    def total(self) -> float:
        return self.linear + self.lora + self.attention

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.linear + other.linear, self.lora + other.lora, self.attention + other.attention)


def forward(flux: Transformer, tokens: Tokens, rank: int) -> Flops:
    """One forward of one sample; rank 0 is without the adapter."""
    ends = sum(_product(layer, tokens) for layer in flux.ends)
    return blocks_forward(flux, tokens, rank) + Flops(linear=ends)


def blocks_forward(flux: Transformer, tokens: Tokens, rank: int) -> Flops:
    """The blocks' part of a forward: what checkpointing "full" computes a second time; "selective" its ``lora``."""
    layers = [layer for block in flux.blocks for layer in block.linears]
    return Flops(
        linear=sum(_product(layer, tokens) for layer in layers),
        lora=sum(2 * tokens.rows(layer.stream) * layer.lora_parameters(rank) for layer in layers),
        attention=len(flux.blocks) * 4 * tokens.all**2 * flux.width,
    )


def backward(flux: Transformer, tokens: Tokens, rank: int) -> Flops:
    """The backward of that sample, without what checkpointing repeats."""
    linear = float(_product(flux.ends[-1], tokens))
    lora = 0.0
    for layer, reached in _layers(flux):
        rows = tokens.rows(layer.stream)
        linear += _product(layer, tokens) if reached else 0
        down, up = (2 * rows * rank * width for width in (layer.inputs, layer.outputs))
        lora += (2 * up + down + (down if reached else 0)) if layer.lora else 0
    attention = ATTENTION_BACKWARD * len(flux.blocks) * 4 * tokens.all**2 * flux.width
    return Flops(linear, lora, attention)


def _layers(flux: Transformer) -> Iterator[tuple[Linear, bool]]:
    """The blocks' layers, each with whether a gradient of its input is asked for."""
    for number, block in enumerate(flux.blocks):
        for layer in block.linears:
            # In the first block some layers read the embeddings, which nothing trained reaches.
            yield layer, layer.stream != "sample" and not (number == 0 and layer.entry)


def _product(layer: Linear, tokens: Tokens) -> int:
    return 2 * tokens.rows(layer.stream) * layer.weights
