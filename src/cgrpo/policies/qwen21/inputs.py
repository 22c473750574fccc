"""What Qwen-Image-2.1's transformer takes: words and references in one causal sequence, the picture behind them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cgrpo.policies.encodings.latents import Geometry
from cgrpo.policies.encodings.text import PicturedPrompt
from cgrpo.policies.pictured import PicturedPrompts
from cgrpo.policies.qwen_edit.inputs import QwenEditCodec

PER_REFERENCE = 8  # tokens of the words around a reference

# QwenImage21Pipeline's prompt_template_t2i and _ti2i; the tokens of the system's message are dropped.
SYSTEM = "<|im_start|>system\nComprehend and analyze the provided prompt.<|im_end|>\n"
USER = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
PICTURE = "<image{}><|vision_start|>{}<|vision_end|>"
EMPTY = " "  # what an empty prompt becomes


class Qwen21Prompts(PicturedPrompts):
    """Qwen3-VL's last states of a prompt's words, read with its references.

    In place of a pooled vector stand the numbers of words before each reference: the transformer reads the reference's
    latents there, and not the states that the encoder has of it.
    """

    @functools.cached_property
    def dropped(self) -> int:
        return len(self.tokenizer(SYSTEM).input_ids)

    def written(self, prompt: str, pictures: Sequence[str]) -> str:
        references = " ".join(PICTURE.format(number, own) for number, own in enumerate(pictures, start=1))
        return SYSTEM + USER.format(references + (prompt or EMPTY))

    def encode(self, prompts: Sequence[PicturedPrompt]) -> tuple[Tensor, Tensor]:
        """(text_NLC, places_NR) of prompts with equally many words and references."""
        words, places = zip(*(self.states(prompt) for prompt in prompts), strict=True)
        return torch.stack(words), torch.stack(places)

    def states(self, prompt: PicturedPrompt) -> tuple[Tensor, Tensor]:
        """(text_LC, places_R) of one prompt."""
        states_LC, id_L, counts = self.read(prompt)
        word_L = id_L[self.dropped :] != self.pad
        begins = [sum(counts[:number]) for number in range(len(counts))]
        before = word_L.cumsum(0)[~word_L][begins]
        return states_LC[self.dropped :][word_L], before.to(states_LC.dtype)


class Qwen21Codec(QwenEditCodec):
    """A frozen AutoencoderKLQwenImage21, of colours and alpha: pictures go in opaque and come out laid on white."""

    patch = 1

    def pixels(self, levels_NCHW: Tensor) -> Tensor:
        pixels_NCTHW = super().pixels(levels_NCHW)
        return torch.cat((pixels_NCTHW, torch.ones_like(pixels_NCTHW[:, :1])), dim=1)

    def levels(self, pixels_NCHW: Tensor) -> Tensor:
        levels_NCHW = super().levels(pixels_NCHW)
        colours_NCHW, opaque_N1HW = levels_NCHW[:, :3], levels_NCHW[:, 3:] / 255
        return (colours_NCHW * opaque_N1HW + 255 * (1 - opaque_N1HW)).round()


class Qwen21Geometry(Geometry):
    """A token is one pixel of the latents. Positions are those of the whole sequence (``Prefix``)."""

    def noise(self, seed: int) -> Tensor:
        """As the stock pipeline draws it: tokens' channels first."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(1, self.channels, self.grid[0] * self.grid[1], generator=generator).transpose(1, 2)


@dataclass(frozen=True)
class Prefix:
    """What stands before the picture in a task's sequence, in order, and where that puts the picture.

    text_LC        states of the words
    reference_LC   tokens of the references, one after another
    runs           the sequence in order: so many words, then a reference of so many rows and columns, and again
    ropes          rotary embeddings of the sequence and of the picture, complex [L, C_head / 2]
    mask_LL        True where a token (row) sees another: words those before them, a reference all of itself, too
    states         keys and values of every block, [1, L, heads, C_head]; empty until they are evaluated
    """

    text_LC: Tensor
    reference_LC: Tensor
    runs: tuple[tuple[int, tuple[int, int]], ...]
    ropes: tuple[Tensor, Tensor]
    mask_LL: Tensor
    states: tuple[Tensor, ...] = ()

    def joint(self, text_LC: Tensor, reference_LC: Tensor) -> Tensor:
        """Embedded words and references [L, C] as one sequence."""
        words = [count for count, _ in self.runs]
        tokens = [rows * columns for _, (rows, columns) in self.runs]
        parts = zip(text_LC.split(words), reference_LC.split(tokens), strict=True)
        return torch.cat([part for both in parts for part in both])


def make_prefix(
    text_LC: Tensor,
    places: Sequence[int],
    reference_LC: Tensor,
    grids: Sequence[tuple[int, int]],
    target: tuple[int, int],
    rope: Any,
) -> Prefix:
    """A task's prefix.

    ``places``: how many words stand before each reference; ``grids``: (rows, columns) of the references' tokens, and
    ``target`` of the picture's; ``rope``: the stock transformer's pos_embed.
    """
    ends = [*places, len(text_LC)]
    words = [end - begin for begin, end in zip([0, *places], ends, strict=True)]
    runs = tuple(zip(words, [*grids, (0, 0)], strict=True))
    positions, numbers, at = [], [], 0
    for number, (count, grid) in enumerate(runs):
        positions += [torch.arange(at, at + count)[:, None].expand(-1, 3), _positions(at + count, grid)]
        numbers += [torch.full((count,), -1), torch.full((grid[0] * grid[1],), number)]
        at += count + max(grid)
    position_LD, number_L = torch.cat(positions), torch.cat(numbers)
    order_L = torch.arange(len(number_L))
    same_LL = (number_L[:, None] == number_L) & (number_L >= 0)
    device = text_LC.device
    ropes = (_rotary(rope, position_LD).to(device), _rotary(rope, _positions(at, target)).to(device))
    mask_LL = (order_L[:, None] >= order_L) | same_LL
    return Prefix(text_LC, reference_LC, runs, ropes, mask_LL.to(device))


def _positions(frame: int, grid: tuple[int, int]) -> Tensor:
    """Positions [L, 3] of a picture's tokens: its frame is that of the words before it, its grid is centred at 0."""
    rows, columns = grid
    row_L = torch.arange(rows).repeat_interleave(columns) - (rows - rows // 2)
    column_L = torch.arange(columns).repeat(rows) - (columns - columns // 2)
    return torch.stack((torch.full_like(row_L, frame), row_L, column_L), dim=1)


def _rotary(rope: Any, position_LD: Tensor) -> Tensor:
    axes = zip(position_LD.unbind(1), rope.axes_dim, strict=True)
    return torch.cat([rope.rope_params(position_L, dim, rope.theta) for position_L, dim in axes], dim=1)
