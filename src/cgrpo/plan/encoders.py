"""Sizes of text encoders and autoencoder: parameters exactly, operations of their matrix products and convolutions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class T5:
    """A T5EncoderModel; the defaults are T5-XXL v1.1's."""

    vocabulary: int = 32128
    width: int = 4096
    hidden: int = 10240
    heads: int = 64
    head_width: int = 64
    layers: int = 24
    buckets: int = 32  # of relative positions, one bias per head
    gated: bool = True

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> T5:
        """From a config.json; KeyError where it lacks a size."""
        return cls(
            vocabulary=config["vocab_size"],
            width=config["d_model"],
            hidden=config["d_ff"],
            heads=config["num_heads"],
            head_width=config["d_kv"],
            layers=config["num_layers"],
            buckets=config.get("relative_attention_num_buckets", 32),
            gated=str(config.get("feed_forward_proj", "relu")).startswith("gated"),
        )

    @property
    def _matrices(self) -> int:
        attention = 4 * self.width * self.heads * self.head_width
        return attention + (3 if self.gated else 2) * self.width * self.hidden

    @property
    def parameters(self) -> int:
        norms = (2 * self.layers + 1) * self.width
        return self.layers * self._matrices + norms + self.vocabulary * self.width + self.buckets * self.heads

    def flops(self, tokens: int) -> float:
        """For one prompt."""
        return self.layers * (2.0 * tokens * self._matrices + 4 * tokens**2 * self.heads * self.head_width)


@dataclass(frozen=True)
class ClipText:
    """A CLIPTextModel; the defaults are those of CLIP ViT-L/14's text side."""

    vocabulary: int = 49408
    width: int = 768
    hidden: int = 3072
    layers: int = 12
    positions: int = 77

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ClipText:
        """From a config.json; KeyError where it lacks a size."""
        return cls(
            vocabulary=config["vocab_size"],
            width=config["hidden_size"],
            hidden=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            positions=config["max_position_embeddings"],
        )

    @property
    def _matrices(self) -> int:
        return 4 * self.width**2 + 2 * self.width * self.hidden

    @property
    def parameters(self) -> int:
        layer = self._matrices + 9 * self.width + self.hidden  # biases, and two norms
        return self.layers * layer + (self.vocabulary + self.positions + 2) * self.width

    def flops(self) -> float:
        """For one prompt."""
        return self.layers * (2.0 * self.positions * self._matrices + 4 * self.positions**2 * self.width)


@dataclass(frozen=True)
class Convolution:
    """A convolution with bias (a projection: kernel 1) at ``scale`` rows of pixels per row of the picture."""

    inputs: int
    outputs: int
    kernel: int
    scale: float

    @property
    def parameters(self) -> int:
        return self.kernel**2 * self.inputs * self.outputs + self.outputs

    def flops(self, pixels: int) -> float:
        """At a picture of ``pixels`` pixels."""
        return 2.0 * self.kernel**2 * self.inputs * self.outputs * pixels * self.scale**2


@dataclass(frozen=True)
class Vae:
    """An AutoencoderKL; the defaults are FLUX's."""

    channels: tuple[int, ...] = (128, 256, 512, 512)
    depth: int = 2  # residual blocks at each size; one more in the decoder
    latent: int = 16
    middle_attention: bool = True
    quant: bool = False
    post_quant: bool = False
    decoder: tuple[int, ...] = ()  # its channels where they are others than the encoder's

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Vae:
        """From a vae/config.json; KeyError where it lacks a size."""
        return cls(
            decoder=tuple(config.get("decoder_block_out_channels") or ()),
            channels=tuple(config["block_out_channels"]),
            depth=config["layers_per_block"],
            latent=config["latent_channels"],
            middle_attention=config.get("mid_block_add_attention", True),
            quant=config.get("use_quant_conv", True),
            post_quant=config.get("use_post_quant_conv", True),
        )

    @property
    def pixels_per_token(self) -> int:
        """Along a side; a token is a square of 2 x 2 latent pixels."""
        return 2 ** len(self.channels)

    @property
    def parameters(self) -> int:
        half = self._as_decoder
        norms = self._norms(self.channels, self.depth) + half._norms(half.channels[::-1], self.depth + 1)
        return norms + sum(layer.parameters for layer in [*self._encoder(), *half._decoder()])

    def encode_flops(self, pixels: int) -> float:
        """For one picture."""
        return sum(layer.flops(pixels) for layer in self._encoder()) + self._attention_flops(pixels)

    def decode_flops(self, pixels: int) -> float:
        """For one picture."""
        half = self._as_decoder
        return sum(layer.flops(pixels) for layer in half._decoder()) + half._attention_flops(pixels)

    def decode_memory(self, pixels: int, size: int) -> int:
        """Bytes at work while one picture is decoded, roughly: three of its largest map, numbers of ``size`` bytes."""
        largest = max(layer.inputs * layer.scale**2 for layer in self._as_decoder._decoder())
        return int(3 * largest * pixels * size)

    @property
    def _as_decoder(self) -> Vae:
        """One whose decoder is this one's, and whose encoder is as wide."""
        return replace(self, channels=self.decoder, decoder=()) if self.decoder else self

    def _attention_flops(self, pixels: int) -> float:
        positions = pixels / 4 ** (len(self.channels) - 1)
        return 4 * positions**2 * self.channels[-1] if self.middle_attention else 0.0

    def _encoder(self) -> Iterator[Convolution]:
        yield Convolution(3, self.channels[0], 3, 1)
        before, scale = self.channels[0], 1.0
        for number, width in enumerate(self.channels):
            yield from _residuals(before, width, self.depth, scale)
            before = width
            if number < len(self.channels) - 1:
                scale /= 2
                yield Convolution(width, width, 3, scale)
        yield from self._middle(scale)
        yield Convolution(before, 2 * self.latent, 3, scale)
        if self.quant:
            yield Convolution(2 * self.latent, 2 * self.latent, 1, scale)

    def _decoder(self) -> Iterator[Convolution]:
        scale = 0.5 ** (len(self.channels) - 1)
        if self.post_quant:
            yield Convolution(self.latent, self.latent, 1, scale)
        before = self.channels[-1]
        yield Convolution(self.latent, before, 3, scale)
        yield from self._middle(scale)
        for number, width in enumerate(self.channels[::-1]):
            yield from _residuals(before, width, self.depth + 1, scale)
            before = width
            if number < len(self.channels) - 1:
                scale *= 2
                yield Convolution(width, width, 3, scale)
        yield Convolution(before, 3, 3, scale)

    def _middle(self, scale: float) -> Iterator[Convolution]:
        width = self.channels[-1]
        yield from _residuals(width, width, 2, scale)
        if self.middle_attention:
            yield from [Convolution(width, width, 1, scale)] * 4

    def _norms(self, channels: tuple[int, ...], depth: int) -> int:
        """Weights and biases of all group norms of one half, whose blocks come in this order."""
        before, total = channels[0], 0
        for width in channels:
            total += 2 * (before + width) + 4 * width * (depth - 1)
            before = width
        middle = self.channels[-1]
        return total + 8 * middle + (2 * middle if self.middle_attention else 0) + 2 * channels[-1]


def _residuals(inputs: int, outputs: int, count: int, scale: float) -> Iterator[Convolution]:
    for number in range(count):
        before = inputs if number == 0 else outputs
        yield Convolution(before, outputs, 3, scale)
        yield Convolution(outputs, outputs, 3, scale)
        if before != outputs:
            yield Convolution(before, outputs, 1, scale)
