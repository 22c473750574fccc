"""What Qwen-Image-2.1's transformer takes: words and references in one causal sequence, the picture behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cgrpo.policies.encodings.latents import Geometry
from cgrpo.policies.encodings.text import PicturedPrompt
from cgrpo.policies.qwen_edit.inputs import QwenEditCodec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen2VLImageProcessorPil, Qwen3VLModel

LENGTH = 64  # tokens of a usual prompt, for `cgrpo plan`; the encoder reads all of a prompt
PER_REFERENCE = 8  # tokens of the words around a reference

# QwenImage21Pipeline's prompt_template_t2i and _ti2i; the tokens of the system's message are dropped.
SYSTEM = "<|im_start|>system\nComprehend and analyze the provided prompt.<|im_end|>\n"
USER = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
PAD = "<|image_pad|>"
PICTURE = "<image{}><|vision_start|>{}<|vision_end|>"
EMPTY = " "  # what an empty prompt becomes


class Qwen21Prompts:
    """Qwen3-VL's last states of a prompt's words, read with its references; nothing is pooled, cut or padded.

    In place of a pooled vector stand the numbers of words before each reference: the transformer reads the reference's
    latents there, and not the states that the encoder has of it.
    """

    def __init__(
        self, qwen: Qwen3VLModel, tokenizer: PreTrainedTokenizerBase, processor: Qwen2VLImageProcessorPil
    ) -> None:
        self.modules: tuple[nn.Module, ...] = (qwen.requires_grad_(False).eval(),)
        self.qwen, self.tokenizer, self.processor = qwen, tokenizer, processor
        self.pad: Any = tokenizer.convert_tokens_to_ids(PAD)
        self.dropped = len(tokenizer(SYSTEM).input_ids)

    def cut(self, prompts: Sequence[str]) -> dict[str, list[int]]:
        return {}

    @torch.no_grad()
    def encode(self, prompts: Sequence[PicturedPrompt]) -> tuple[Tensor, Tensor]:
        """(text_NLC, places_NR) of prompts with equally many words and references."""
        words, places = zip(*(self.states(prompt) for prompt in prompts), strict=True)
        return torch.stack(words), torch.stack(places)

    def states(self, prompt: PicturedPrompt) -> tuple[Tensor, Tensor]:
        """(text_LC, places_R) of one prompt."""
        device, seen, counts = self.qwen.device, {}, []
        if prompt.pictures:
            read = self.processor(list(prompt.pictures), return_tensors="pt")
            seen = {name: read[name].to(device) for name in ("pixel_values", "image_grid_thw")}
            counts = (read["image_grid_thw"].prod(-1) // self.processor.merge_size**2).tolist()
        pictures = " ".join(PICTURE.format(number, PAD * count) for number, count in enumerate(counts, start=1))
        text = SYSTEM + USER.format(pictures + (prompt.prompt or EMPTY))
        tokens = self.tokenizer(text, return_tensors="pt").to(device)
        with torch.autocast(device.type, enabled=False):
            states_NLC = self.qwen(
                input_ids=tokens.input_ids,
                attention_mask=tokens.attention_mask,
                mm_token_type_ids=(tokens.input_ids == self.pad).int(),
                use_cache=False,
                **seen,
            ).last_hidden_state
        word_L = tokens.input_ids[0, self.dropped :] != self.pad
        begins = [sum(counts[:number]) for number in range(len(counts))]
        before = word_L.cumsum(0)[~word_L][begins]
        return states_NLC[0, self.dropped :][word_L], before.to(states_NLC.dtype)


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
