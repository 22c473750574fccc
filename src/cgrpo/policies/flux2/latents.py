"""Pictures to FLUX.2's latents and back."""

from __future__ import annotations

from torch import Tensor

from cgrpo.policies.encodings.latents import LatentCodec, pack, unpack


class Flux2Codec(LatentCodec):
    """A frozen AutoencoderKLFlux2: each of a token's channels is normalised by the statistics of a batch norm.

    Pixels and levels are rounded as the stock pipeline rounds them.
    """

    def scaled(self, raw_NCHW: Tensor) -> Tensor:
        """(token - mean) / std, channel by channel of the token."""
        size = (raw_NCHW.shape[-2] // 2, raw_NCHW.shape[-1] // 2)
        mean_C, std_C = self._statistics()
        return unpack((pack(raw_NCHW) - mean_C) / std_C, *size)

    def raw(self, scaled_NCHW: Tensor) -> Tensor:
        size = (scaled_NCHW.shape[-2] // 2, scaled_NCHW.shape[-1] // 2)
        mean_C, std_C = self._statistics()
        return unpack(pack(scaled_NCHW) * std_C + mean_C, *size)

    def pixels(self, levels_NCHW: Tensor) -> Tensor:
        return 2 * (levels_NCHW / 255) - 1

    def levels(self, pixels_NCHW: Tensor) -> Tensor:
        return ((pixels_NCHW * 0.5 + 0.5).clamp(0, 1) * 255).round()

    def _statistics(self) -> tuple[Tensor, Tensor]:
        norm = self.vae.bn
        return norm.running_mean, (norm.running_var + self.vae.config["batch_norm_eps"]).sqrt()  # pyright: ignore
