"""Pictures to latents and back, and latents to tokens and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from cgrpo.errors import BrokenPicture
from cgrpo.fingerprint import of_picture
from cgrpo.policies.settings import Posterior

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderKLFlux2, AutoencoderKLQwenImage

PATCH = 2  # a token is a 2 x 2 square of latent pixels, in most families


def pack(latents_NCHW: Tensor, side: int = PATCH) -> Tensor:
    """Latents [N, c, H, W] as tokens [N, H/s * W/s, c * s * s], feature order (c, row, column) as FLUX packs them."""
    n, c, h, w = latents_NCHW.shape
    squares = latents_NCHW.reshape(n, c, h // side, side, w // side, side)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(n, (h // side) * (w // side), c * side * side)


def unpack(x_NLC: Tensor, rows: int, columns: int, side: int = PATCH) -> Tensor:
    """The inverse of ``pack`` for a picture of ``rows`` x ``columns`` tokens."""
    n, _, c = x_NLC.shape
    squares = x_NLC.reshape(n, rows, columns, c // (side * side), side, side)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(n, c // (side * side), rows * side, columns * side)


@dataclass(frozen=True)
class Geometry:
    """How a family lays pictures out as tokens.

    pixels     the side of the square of pixels that a token covers
    channels   of a token
    grid       (rows, columns) of the generated picture's tokens
    """

    pixels: int
    channels: int
    grid: tuple[int, int]

    def noise(self, seed: int) -> Tensor:
        """[1, L, C] as the family's stock pipeline draws it from a CPU generator."""
        raise NotImplementedError

    def ids(self, references: Sequence[tuple[int, int]]) -> Tensor:
        """Position ids, float32 [L + L_ref, axes]: the picture's tokens, then those of references of these grids."""
        raise NotImplementedError

    def text_ids(self, count: int) -> Tensor:
        """Position ids of ``count`` text tokens, float32 [count, axes]."""
        raise NotImplementedError


def grid_ids(size: tuple[int, int], axes: int, number: int, offset: tuple[int, int] = (0, 0)) -> Tensor:
    """Ids (number, row, column, 0, ...) of one picture's tokens, row by row: float32 [rows * columns, axes]."""
    ids_HWD = torch.zeros(*size, axes)
    ids_HWD[..., 0] = number
    ids_HWD[..., 1] = offset[0] + torch.arange(size[0])[:, None]
    ids_HWD[..., 2] = offset[1] + torch.arange(size[1])[None, :]
    return ids_HWD.reshape(-1, axes)


class Latents(Protocol):
    """Latents made before: a ``store.EncodingStore``."""

    def reference(self, picture: Image) -> Tensor | None:
        """latent_CHW of a picture ready for the autoencoder, or None."""
        ...


class LatentCodec:
    """A frozen AutoencoderKL between uint8 pictures and the latents that the transformer sees.

    It runs in fp32 as UNO's does (in fp64 in fp64 runs), whatever the autocast.

    posterior   "mean": pictures are encoded by the mean of the posterior. "sample": by one draw from it, as UNO
                does; but UNO draws from the global random state, which makes a reference change from call to
                call, while here the noise is seeded by the picture itself, so that it has one latent everywhere.
    store       precomputed latents (store.py); pictures that it lacks are encoded
    """

    patch = PATCH  # latent pixels of a token's side
    chunk, area = 64, 2**20  # of one call at most (4 pictures of 512 x 512): bounds memory whatever the batch

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderKLFlux2 | AutoencoderKLQwenImage,
        posterior: Posterior = "mean",
        store: Latents | None = None,
    ) -> None:
        self.vae = vae.requires_grad_(False).eval()
        self.posterior: Posterior = posterior
        self.store = store
        self.channels, side = self.sizes(vae.config)
        self.pixels_per_latent = side
        self.pixels_per_token = self.patch * side

    @staticmethod
    def sizes(config: Mapping[str, Any]) -> tuple[int, int]:
        """Channels of a latent pixel, and how many pixels it is wide."""
        return config["latent_channels"], 2 ** (len(config["block_out_channels"]) - 1)

    def scaled(self, raw_NCHW: Tensor) -> Tensor:
        """The autoencoder's latents as the transformer sees them."""
        return (raw_NCHW - (self.vae.config["shift_factor"] or 0.0)) * self.vae.config["scaling_factor"]

    def raw(self, scaled_NCHW: Tensor) -> Tensor:
        """The inverse of ``scaled``."""
        return scaled_NCHW / self.vae.config["scaling_factor"] + (self.vae.config["shift_factor"] or 0.0)

    def pixels(self, levels_NCHW: Tensor) -> Tensor:
        """Levels 0 to 255, in the autoencoder's dtype, as its inputs."""
        return levels_NCHW / 127.5 - 1.0

    def levels(self, pixels_NCHW: Tensor) -> Tensor:
        """The autoencoder's outputs as whole levels 0 to 255."""
        return ((pixels_NCHW.clamp(-1, 1) + 1) * 127.5).round()

    def encode(self, pictures: Sequence[Image]) -> Tensor:
        """RGB pictures of one size (sides multiples of ``pixels_per_token``) as scaled latents [N, c, h, w]."""
        if self.store is None:
            return self._encode(pictures)
        rows = [self._stored(picture) for picture in pictures]
        return torch.stack([row.to(self.vae.device, self.vae.dtype) for row in rows])

    def _stored(self, picture: Image) -> Tensor:
        """The stored latent_CHW, or what the store would hold: encoded alone, so what it lacks changes no bits."""
        assert self.store is not None
        stored_CHW = self.store.reference(picture)
        return self._encode([picture])[0] if stored_CHW is None else stored_CHW

    @torch.no_grad()
    def _encode(self, pictures: Sequence[Image]) -> Tensor:
        device = self.vae.device
        latents = []
        chunk = self.at_once(pictures[0].width * pictures[0].height)
        for start in range(0, len(pictures), chunk):
            part = pictures[start : start + chunk]
            stack = np.stack([np.asarray(p) for p in part])
            pixels_NCHW = self.pixels(torch.from_numpy(stack).to(device).permute(0, 3, 1, 2).to(self.vae.dtype))
            with torch.autocast(device.type, enabled=False):
                posterior = self.vae.encode(pixels_NCHW.contiguous()).latent_dist  # pyright: ignore
            latent_NCHW = posterior.mean.contiguous()
            if self.posterior == "sample":
                noise_NCHW = torch.stack([_noise(p, latent_NCHW.shape[1:]) for p in part])
                latent_NCHW = latent_NCHW + posterior.std * noise_NCHW.to(device, self.vae.dtype)
            latents.append(latent_NCHW)
        return self.scaled(torch.cat(latents))

    def at_once(self, pixels: int) -> int:
        """How many pictures of that many pixels go through the autoencoder together."""
        return max(1, min(self.chunk, self.area // pixels))

    @torch.no_grad()
    def decode(self, latents_NCHW: Tensor) -> Tensor:
        """Scaled latents as uint8 pictures on the CPU, [N, H, W, 3], rounded to the nearest level.

        Raises BrokenPicture if one holds NaN or infinity, which as levels would be black.
        """
        broken = (~latents_NCHW.isfinite()).flatten(1).any(1).sum().item()
        if broken:
            raise BrokenPicture(
                f"{broken} of {len(latents_NCHW)} sampled pictures are NaN or infinite, so the model's output is: look "
                "for a damaged or diverged adapter (`cgrpo adapter inspect`), too large a policy.guidance or "
                "training.learning_rate, or numbers past the range of policy.dtype"
            )
        device = self.vae.device
        pictures = []
        for part in latents_NCHW.split(self.at_once(latents_NCHW[0, 0].numel() * self.pixels_per_latent**2)):
            raw_NCHW = self.raw(part.to(device, self.vae.dtype))
            with torch.autocast(device.type, enabled=False):
                pixels_NCHW = self.vae.decode(raw_NCHW).sample  # pyright: ignore
            pictures.append(self.levels(pixels_NCHW).to(torch.uint8).permute(0, 2, 3, 1).cpu().contiguous())
        return torch.cat(pictures)


def _noise(picture: Image, shape_CHW: torch.Size) -> Tensor:
    """The picture's own N(0, 1) noise; drawn on the CPU in fp32, so that it is the same on every device."""
    seed = int(of_picture(picture)[:15], 16)
    return torch.randn(shape_CHW, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
