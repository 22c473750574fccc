"""A transformer as a table of its linear layers: parameters, LoRA and matrix products follow from it. FLUX.1's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

TIME_FEATURES = 256  # sinusoids of time and of guidance

Stream = Literal["image", "text", "all", "sample"]
"""Which rows a layer sees: target and reference tokens, text tokens, all of them, or one row per sample."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of one sample."""

    target: int
    references: int
    text: int

    @property
    def image(self) -> int:
        return self.target + self.references

    @property
    def all(self) -> int:
        return self.image + self.text

    def rows(self, stream: Stream) -> int:
        return {"image": self.image, "text": self.text, "all": self.all, "sample": 1}[stream]


@dataclass(frozen=True)
class Linear:
    """A linear layer: [rows, inputs] -> [rows, outputs]."""

    inputs: int
    outputs: int
    stream: Stream
    lora: bool = False  # carries an adapter: rows x inputs -> rank -> outputs
    entry: bool = False  # reads what the block is given: in the first block, what nothing trained has touched
    bias: bool = True

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        return self.weights + (self.outputs if self.bias else 0)

    def lora_parameters(self, rank: int) -> int:
        return rank * (self.inputs + self.outputs) if self.lora else 0


@dataclass(frozen=True)
class Block:
    """One transformer block: its linear layers, and the weights of its norms of q and k."""

    linears: tuple[Linear, ...]
    norm_parameters: int

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.linears) + self.norm_parameters

    @property
    def matrix_parameters(self) -> int:
        return sum(layer.weights for layer in self.linears)


class Transformer(ABC):
    """Blocks of two kinds between what embeds and what projects out; all tokens attend to all in every one."""

    doubles: int
    singles: int
    heads: int
    head_width: int
    in_channels: int
    text_width: int

    @property
    def width(self) -> int:
        return self.heads * self.head_width

    @property
    @abstractmethod
    def double(self) -> Block:
        """Picture and text tokens apart but for the attention."""

    @property
    @abstractmethod
    def single(self) -> Block:
        """All tokens together, attention beside the MLP."""

    @property
    @abstractmethod
    def ends(self) -> tuple[Linear, ...]:
        """What lies outside of the blocks: embeddings, and the last layer at the end."""

    @property
    def blocks(self) -> list[Block]:
        return [self.double] * self.doubles + [self.single] * self.singles

    @property
    def end_parameters(self) -> int:
        return sum(layer.parameters for layer in self.ends)

    @property
    def block_parameters(self) -> int:
        return sum(block.parameters for block in self.blocks)

    @property
    def parameters(self) -> int:
        return self.block_parameters + self.end_parameters

    def lora_parameters(self, rank: int) -> int:
        """Of the adapter that ``cgrpo.policies.add_adapter`` adds."""
        return sum(layer.lora_parameters(rank) for block in self.blocks for layer in block.linears)


@dataclass(frozen=True)
class Flux(Transformer):
    """Sizes of a FluxTransformer2DModel; the defaults are FLUX.1-dev's."""

    doubles: int = 19
    singles: int = 38
    heads: int = 24
    head_width: int = 128
    in_channels: int = 64
    out_channels: int = 64
    text_width: int = 4096
    pooled_width: int = 768
    guidance: bool = True

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Flux:
        """From a transformer/config.json; KeyError where it lacks a size."""
        return cls(
            doubles=config["num_layers"],
            singles=config["num_single_layers"],
            heads=config["num_attention_heads"],
            head_width=config["attention_head_dim"],
            in_channels=config["in_channels"],
            out_channels=config.get("out_channels") or config["in_channels"],
            text_width=config["joint_attention_dim"],
            pooled_width=config["pooled_projection_dim"],
            guidance=config["guidance_embeds"],
        )

    @property
    def double(self) -> Block:
        """Picture and text tokens apart but for the attention. LoRA on the fused q, k, v and on the output."""
        d = self.width
        streams: tuple[Stream, Stream] = ("image", "text")
        linears = [
            layer
            for stream in streams
            for layer in (
                Linear(d, 6 * d, "sample"),
                Linear(d, 3 * d, stream, lora=True, entry=True),
                Linear(d, d, stream, lora=True),
                Linear(d, 4 * d, stream),
                Linear(4 * d, d, stream),
            )
        ]
        return Block(tuple(linears), 4 * self.head_width)

    @property
    def single(self) -> Block:
        """All tokens together, attention beside the MLP. LoRA on the fused q, k, v and on the output."""
        d = self.width
        linears = (
            Linear(d, 3 * d, "sample"),
            Linear(d, 3 * d, "all", lora=True, entry=True),
            Linear(d, 4 * d, "all", entry=True),
            Linear(5 * d, d, "all", lora=True),
        )
        return Block(linears, 2 * self.head_width)

    @property
    def ends(self) -> tuple[Linear, ...]:
        """What lies outside of the blocks: embeddings, and the last layer at the end."""
        d = self.width
        embeddings = [TIME_FEATURES, *([TIME_FEATURES] if self.guidance else []), self.pooled_width]
        return (
            *(layer for width in embeddings for layer in (Linear(width, d, "sample"), Linear(d, d, "sample"))),
            Linear(self.text_width, d, "text"),
            Linear(self.in_channels, d, "image"),
            Linear(d, 2 * d, "sample"),
            Linear(d, self.out_channels, "image"),
        )
