"""FLUX.2's transformer as a table of its linear layers (none has a bias), and Qwen3 as far as it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cgrpo.plan.transformer import TIME_FEATURES, Block, Linear, Stream, Transformer

TEXT_LAYERS = 27  # of Qwen3's, whatever it has


@dataclass(frozen=True)
class Flux2(Transformer):
    """Sizes of a Flux2Transformer2DModel; the defaults are FLUX.2-klein-4B's."""

    doubles: int = 5
    singles: int = 20
    heads: int = 24
    head_width: int = 128
    in_channels: int = 128
    out_channels: int = 128
    text_width: int = 7680
    mlp_ratio: float = 3.0
    guidance: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Flux2:
        """From a transformer/config.json; KeyError where it lacks a size."""
        return cls(
            doubles=config["num_layers"],
            singles=config["num_single_layers"],
            heads=config["num_attention_heads"],
            head_width=config["attention_head_dim"],
            in_channels=config["in_channels"],
            out_channels=config.get("out_channels") or config["in_channels"],
            text_width=config["joint_attention_dim"],
            mlp_ratio=config.get("mlp_ratio", 3.0),
            guidance=config.get("guidance_embeds", True),
        )

    @property
    def hidden(self) -> int:
        """Width of the MLPs, whose first layer is twice as wide: a gate beside the values."""
        return int(self.width * self.mlp_ratio)

    @property
    def double(self) -> Block:
        """LoRA on q, k, v, each with an A of its own, and on the output."""
        d = self.width
        streams: tuple[Stream, Stream] = ("image", "text")
        linears = [
            layer
            for stream in streams
            for layer in (
                *[_linear(d, d, stream, lora=True, entry=True)] * 3,
                _linear(d, d, stream, lora=True),
                _linear(d, 2 * self.hidden, stream),
                _linear(self.hidden, d, stream),
            )
        ]
        return Block(tuple(linears), 4 * self.head_width)

    @property
    def single(self) -> Block:
        """LoRA on the one projection for q, k, v and MLP, and on the output."""
        d = self.width
        linears = (
            _linear(d, 3 * d + 2 * self.hidden, "all", lora=True, entry=True),
            _linear(d + self.hidden, d, "all", lora=True),
        )
        return Block(linears, 2 * self.head_width)

    @property
    def ends(self) -> tuple[Linear, ...]:
        """With the modulation, which all blocks of a kind share."""
        d = self.width
        return (
            *[layer for _ in range(1 + self.guidance) for layer in (_sample(TIME_FEATURES, d), _sample(d, d))],
            _sample(d, 6 * d),
            _sample(d, 6 * d),
            _sample(d, 3 * d),
            _linear(self.text_width, d, "text"),
            _linear(self.in_channels, d, "image"),
            _sample(d, 2 * d),
            _linear(d, self.out_channels, "image"),
        )


@dataclass(frozen=True)
class Qwen3:
    """A Qwen3 up to the last layer that FLUX.2 reads; the defaults are Qwen3-4B's."""

    vocabulary: int = 151936
    width: int = 2560
    hidden: int = 9728
    heads: int = 32
    groups: int = 8  # of heads that share their k and v
    head_width: int = 128
    layers: int = TEXT_LAYERS

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Qwen3:
        """From a text_encoder/config.json; KeyError where it lacks a size."""
        return cls(
            vocabulary=config["vocab_size"],
            width=config["hidden_size"],
            hidden=config["intermediate_size"],
            heads=config["num_attention_heads"],
            groups=config["num_key_value_heads"],
            head_width=config["head_dim"],
            layers=min(TEXT_LAYERS, config["num_hidden_layers"]),
        )

    @property
    def _matrices(self) -> int:
        return self.width * (2 * (self.heads + self.groups) * self.head_width + 3 * self.hidden)

    @property
    def parameters(self) -> int:
        norms = 2 * self.width + 2 * self.head_width
        return self.layers * (self._matrices + norms) + self.vocabulary * self.width

    def flops(self, tokens: int) -> float:
        """For one prompt; the upper half of the attention, which is masked, is computed all the same."""
        return self.layers * (2.0 * tokens * self._matrices + 4 * tokens**2 * self.heads * self.head_width)


FLUX2_9B, QWEN3_8B = Flux2(8, 24, 32, text_width=12288), Qwen3(width=4096, hidden=12288)


def _linear(inputs: int, outputs: int, stream: Stream, *, lora: bool = False, entry: bool = False) -> Linear:
    return Linear(inputs, outputs, stream, lora, entry, bias=False)


def _sample(inputs: int, outputs: int) -> Linear:
    return _linear(inputs, outputs, "sample")
