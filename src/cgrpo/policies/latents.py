"""Pictures to latents and back, and latents to tokens and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

PATCH = 2  # a token is a 2 x 2 square of latent pixels


def pack(latents_NCHW: Tensor) -> Tensor:
    """Latents [N, c, H, W] as tokens [N, H/2 * W/2, 4c], feature order (c, row, column) as FLUX packs them."""
    n, c, h, w = latents_NCHW.shape
    squares = latents_NCHW.reshape(n, c, h // PATCH, PATCH, w // PATCH, PATCH)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(n, (h // PATCH) * (w // PATCH), c * PATCH * PATCH)


def unpack(x_NLC: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of ``pack`` for a picture of ``rows`` x ``columns`` tokens."""
    n, _, c = x_NLC.shape
    squares = x_NLC.reshape(n, rows, columns, c // (PATCH * PATCH), PATCH, PATCH)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(n, c // (PATCH * PATCH), rows * PATCH, columns * PATCH)


class LatentCodec:
    """A frozen AutoencoderKL between uint8 pictures and the latents that the transformer sees.

    It runs in fp32 as UNO's does (in fp64 in fp64 runs), whatever the autocast. References are encoded
    by the *mean* of the posterior: UNO samples it from the global random state, which makes a reference
    change from call to call.
    """

    chunk = 64  # pictures per call of the autoencoder: bounds memory whatever the batch

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae = vae.requires_grad_(False).eval()
        self.channels: int = vae.config["latent_channels"]
        self.pixels_per_token: int = PATCH * 2 ** (len(vae.config["block_out_channels"]) - 1)
        self.scale: float = vae.config["scaling_factor"]
        self.shift: float = vae.config["shift_factor"] or 0.0

    @torch.no_grad()
    def encode(self, pictures: Sequence[Image]) -> Tensor:
        """RGB pictures of one size (sides multiples of ``pixels_per_token``) as scaled latents [N, c, h, w]."""
        device = self.vae.device
        means = []
        for start in range(0, len(pictures), self.chunk):
            stack = np.stack([np.asarray(p) for p in pictures[start : start + self.chunk]])
            pixels_NCHW = torch.from_numpy(stack).to(device).permute(0, 3, 1, 2).to(self.vae.dtype) / 127.5 - 1.0
            with torch.autocast(device.type, enabled=False):
                posterior = self.vae.encode(pixels_NCHW.contiguous()).latent_dist  # pyright: ignore
            means.append(posterior.mean.contiguous())
        return (torch.cat(means) - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, latents_NCHW: Tensor) -> Tensor:
        """Scaled latents as uint8 pictures on the CPU, [N, H, W, 3], rounded to the nearest level."""
        device = self.vae.device
        pictures = []
        for part in latents_NCHW.split(self.chunk):
            raw = part.to(device, self.vae.dtype) / self.scale + self.shift
            with torch.autocast(device.type, enabled=False):
                pixels_NCHW = self.vae.decode(raw).sample  # pyright: ignore
            levels = ((pixels_NCHW.clamp(-1, 1) + 1) * 127.5).round()
            pictures.append(levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().contiguous())
        return torch.cat(pictures)
