"""What Qwen-Image-Edit's transformer takes beside latents: states of a prompt read with its references, and its
pipeline's schedule, which depends on the tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL.Image import Image, Resampling
from torch import Tensor, nn

from cgrpo.errors import UserError
from cgrpo.policies.encodings.latents import Geometry, LatentCodec, Latents, pack
from cgrpo.policies.encodings.text import PicturedPrompt
from cgrpo.policies.pictured import PicturedPrompts
from cgrpo.policies.settings import Posterior

if TYPE_CHECKING:
    from diffusers import AutoencoderKLQwenImage

PER_REFERENCE = 202  # tokens that a square reference adds: 14 x 14, and the words around it
READ_SIDE = 384  # the encoder reads references of about 384 x 384 pixels, whatever the autoencoder's are

# QwenImageEditPlusPipeline's prompt_template_encode, of whose tokens the first 64 are dropped.
TEMPLATE = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a new image "
    "that meets the user's requirements while maintaining consistency with the original input where appropriate."
    "<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
DROPPED = 64
PICTURE = "Picture {}: <|vision_start|>{}<|vision_end|>"


def pictured(prompts: Sequence[str], references: Sequence[Sequence[Image]], negative: str) -> list[PicturedPrompt]:
    """Every prompt with its task's references as the text encoder reads them, then ``negative`` with those of each."""
    read = [tuple(fit_area(p, READ_SIDE) for p in pictures) for pictures in references]
    texts = (*prompts, *([negative] * len(prompts)))
    return [PicturedPrompt(text, pictures) for text, pictures in zip(texts, read * 2, strict=True)]


class QwenEditPrompts(PicturedPrompts):
    """Qwen2.5-VL's last states of a prompt and its references, behind the template's first tokens."""

    def written(self, prompt: str, pictures: Sequence[str]) -> str:
        return TEMPLATE.format("".join(PICTURE.format(n, own) for n, own in enumerate(pictures, start=1)) + prompt)

    def encode(self, prompts: Sequence[PicturedPrompt]) -> tuple[Tensor, Tensor]:
        """(text_NLC, pooled_NC) of prompts whose states are equally many; C of the pooled vector is 0."""
        text_NLC = torch.stack([self.read(prompt)[0][DROPPED:] for prompt in prompts])
        return text_NLC, text_NLC.new_zeros(len(text_NLC), 0)


def fit_area(image: Image, side: int, multiple: int = 32) -> Image:
    """A reference as QwenImageEditPlusPipeline (1024) prepares them, of about ``side`` * ``side`` pixels.

    Stretched to it (LANCZOS) at its own aspect ratio, sides rounded to multiples of 32, and so of ``multiple``. Raises
    UserError if nothing is left of a side.
    """
    picture = image.convert("RGB")
    ratio = picture.width / picture.height
    width = math.sqrt(side * side * ratio)
    size = (round(width / 32) * 32, round(width / ratio / 32) * 32)
    if not all(size):
        raise UserError(
            f"a reference of {picture.width} x {picture.height} pixels is too narrow for a square of {side}; crop it "
            "squarer"
        )
    return picture.resize(size, Resampling.LANCZOS)


def padded(states: Sequence[Tensor], length: int) -> tuple[Tensor, Tensor]:
    """(text_NLC, mask_NL): states of unequal numbers of tokens with zeros behind them; the mask is True for tokens."""
    text_NLC = torch.stack([nn.functional.pad(text_LC, (0, 0, 0, length - len(text_LC))) for text_LC in states])
    lengths_N = torch.tensor([len(text_LC) for text_LC in states], device=text_NLC.device)
    return text_NLC, torch.arange(length, device=text_NLC.device) < lengths_N[:, None]


class QwenEditCodec(LatentCodec):
    """A frozen AutoencoderKLQwenImage, which takes a picture for a film of one frame.

    Latents are normalised channel by channel; pixels and levels are rounded as the stock pipeline rounds them.
    """

    area = 2**18  # its convolutions over films take more memory than those of FLUX's

    def __init__(
        self, vae: AutoencoderKLQwenImage, posterior: Posterior = "mean", store: Latents | None = None
    ) -> None:
        super().__init__(vae, posterior, store)
        keep_no_frames(vae)

    @staticmethod
    def sizes(config: Any) -> tuple[int, int]:
        return config["z_dim"], 2 ** len(config["temperal_downsample"])

    def scaled(self, raw_NCHW: Tensor) -> Tensor:
        """(raw - mean) / std; ``raw_NCHW`` has an axis for frames before H."""
        mean_C11, std_C11 = self._statistics(raw_NCHW)
        return (raw_NCHW.squeeze(2) - mean_C11) / std_C11

    def raw(self, scaled_NCHW: Tensor) -> Tensor:
        mean_C11, std_C11 = self._statistics(scaled_NCHW)
        return (scaled_NCHW / (1 / std_C11) + mean_C11).unsqueeze(2)

    def pixels(self, levels_NCHW: Tensor) -> Tensor:
        return (2 * (levels_NCHW / 255) - 1).unsqueeze(2)

    def levels(self, pixels_NCHW: Tensor) -> Tensor:
        return ((pixels_NCHW.squeeze(2) * 0.5 + 0.5).clamp(0, 1) * 255).round()

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(self.vae.config[key]) for key in ("latents_mean", "latents_std"))
        return mean.to(like)[:, None, None], std.to(like)[:, None, None]


def keep_no_frames(vae: AutoencoderKLQwenImage) -> None:
    """Let the autoencoder keep nothing of a frame for the next one: a picture has only one.

    The stock code keeps the inputs of all its convolutions, three times the memory that decoding needs otherwise.
    """

    def clear_cache() -> None:
        vars(vae).update(_feat_map=None, _enc_feat_map=None, _conv_idx=[0], _enc_conv_idx=[0])

    vae.clear_cache = clear_cache


class QwenEditGeometry(Geometry):
    """The transformer makes rotary positions of the pictures' sizes itself; there are no position ids."""

    def noise(self, seed: int) -> Tensor:
        """As the stock pipeline draws it: latents first, then tokens."""
        rows, columns = self.grid
        generator = torch.Generator().manual_seed(seed)
        return pack(torch.randn(1, self.channels // 4, 2 * rows, 2 * columns, generator=generator))


def qwen_sigmas(steps: int, tokens: int) -> Tensor:
    """The stock pipeline's grid, fp32 [steps + 1], with the published scheduler's settings, rounded as it rounds.

    The shift e^mu grows with the tokens, mu = 0.5 at 256 and 0.9 at 8192; then 1 - sigma is stretched so that the last
    step begins at 0.02.
    """
    slope = (0.9 - 0.5) / (8192 - 256)
    mu = tokens * slope + (0.5 - slope * 256)
    s = np.linspace(1.0, 1 / steps, steps).astype(np.float32)
    shifted = math.exp(mu) / (math.exp(mu) + (1 / s - 1))
    rest = 1 - shifted
    stretched = 1 - rest / (rest[-1] / (1 - 0.02))
    return torch.cat((torch.from_numpy(stretched.astype(np.float32)), torch.zeros(1)))
