"""What FLUX.2's transformer takes beside latents: text states, the position ids of target and references, and its stock
pipeline's schedule, which depends on the tokens, and sizes of references."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.policies.encodings.latents import Geometry, grid_ids
from cgrpo.policies.encodings.text import TextEncoders, Window

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase, Qwen3Model

LENGTH = 512  # tokens of a prompt, the chat template's included
LAYERS = (9, 18, 27)  # the states after so many of Qwen3's layers are what FLUX.2-klein reads
APART = 10  # between the numbers of two pictures


class Flux2Prompts(TextEncoders):
    """Three layers of Qwen3. Padding is masked within it, and its states are read all the same; nothing is pooled."""

    def __init__(self, qwen: Qwen3Model, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__((qwen,), windows(tokenizer))

    def states(self, *tokens: BatchEncoding) -> tuple[Tensor, Tensor]:
        (qwen,), (read,) = self.modules, tokens
        states = qwen(
            input_ids=read.input_ids, attention_mask=read.attention_mask, output_hidden_states=True, use_cache=False
        ).hidden_states
        text_NLC = torch.cat([states[layer] for layer in LAYERS], dim=-1)
        return text_NLC, text_NLC.new_zeros(len(text_NLC), 0)


def windows(tokenizer: PreTrainedTokenizerBase) -> tuple[Window, ...]:
    """What Qwen3 reads of a prompt: as a user's message, whose answer would begin behind an empty thought."""

    def wrapped(prompt: str) -> str:
        return str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        )

    return (Window("Qwen3", tokenizer, LENGTH, wrapped),)


class Flux2Geometry(Geometry):
    """Every picture has a number of its own on the ids' first axis."""

    def noise(self, seed: int) -> Tensor:
        """As the stock pipeline draws it: tokens' channels first."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(1, self.channels, *self.grid, generator=generator).flatten(2).transpose(1, 2).contiguous()

    def ids(self, references: Sequence[tuple[int, int]]) -> Tensor:
        """Ids (picture, row, column, word) of the target's tokens followed by those of every reference.

        The target's number is 0, those of the references 10, 20, ...; rows and columns begin at 0 in each picture; the
        word is 0 (Flux2KleinPipeline, ``_prepare_image_ids``). Returns float32 [L + L_ref, 4].
        """
        numbers = range(0, APART * (len(references) + 1), APART)
        sizes = (self.grid, *references)
        return torch.cat([grid_ids(size, 4, number) for size, number in zip(sizes, numbers, strict=True)])

    def text_ids(self, count: int) -> Tensor:
        """They differ in the word alone."""
        ids_LD = torch.zeros(count, 4)
        ids_LD[:, 3] = torch.arange(count)
        return ids_LD


def limit_area(image: Image.Image, side: int, multiple: int) -> Image.Image:
    """A reference as Flux2KleinPipeline (1024) prepares them; ``side`` * ``side`` are the most pixels that it may have.

    Larger ones are scaled down to it (LANCZOS, in the picture's own mode), smaller ones stay; both sides are cropped,
    centred, to multiples of ``multiple``. Raises UserError if nothing is left of a side.
    """
    most = side**2
    width, height = image.size
    if width * height > most:
        scale = math.sqrt(most / (width * height))
        image = image.resize((max(int(width * scale), 1), max(int(height * scale), 1)), Image.Resampling.LANCZOS)
    target_width, target_height = (side // multiple * multiple for side in image.size)
    if not (target_width and target_height):
        raise UserError(
            f"a reference of {width} x {height} pixels has a side of less than {multiple} within {most} pixels; "
            "crop it squarer, or give a larger one"
        )
    left, top = (image.width - target_width) // 2, (image.height - target_height) // 2
    return image.crop((left, top, left + target_width, top + target_height)).convert("RGB")


def flux2_sigmas(steps: int, tokens: int) -> Tensor:
    """The stock pipeline's grid, fp32 [steps + 1]: shift e^mu of (steps, tokens), rounded as its scheduler rounds it.

    mu is linear in the tokens for 10 steps and for 200, and between these linear in the steps; above 4300 tokens it
    is that of 200 steps (``compute_empirical_mu``, whose constants these are).
    """
    many = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        mu = many
    else:
        slope = (many - (8.73809524e-05 * tokens + 1.89833333)) / 190
        mu = slope * steps + (many - 200 * slope)
    s = np.linspace(1, 1 / steps, steps).astype(np.float32)  # torch divides a number by a tensor in two roundings
    shifted = math.exp(mu) / (math.exp(mu) + (1 / s - 1))
    return torch.cat((torch.from_numpy(shifted), torch.zeros(1)))
