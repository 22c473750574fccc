"""What FLUX.1's transformer takes beside latents: text states, and the position ids of target and references.

UNO (arXiv 2504.02160, section 3.3: UnoPE) moves references away on the picture's plane; FLUX.1 Kontext
(arXiv 2506.15742, section 3) leaves them in place and counts them on the ids' first axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cgrpo.algorithm import shifted_sigmas
from cgrpo.policies.encodings.latents import Geometry, grid_ids, pack
from cgrpo.policies.encodings.text import TextEncoders, Window
from cgrpo.policies.settings import PositionScheme

if TYPE_CHECKING:
    from transformers import BatchEncoding, CLIPTextModel, PreTrainedTokenizerBase, T5EncoderModel

CLIP_LENGTH, T5_LENGTH = 77, 512  # tokens, as in FLUX.1-dev


class FluxPrompts(TextEncoders):
    """CLIP's pooled vector and T5's tokens. No attention mask is used: FLUX was trained with the padding visible."""

    def __init__(
        self,
        clip: CLIPTextModel,
        t5: T5EncoderModel,
        clip_tokenizer: PreTrainedTokenizerBase,
        t5_tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        super().__init__((clip, t5), windows(clip_tokenizer, t5_tokenizer))

    def states(self, *tokens: BatchEncoding) -> tuple[Tensor, Tensor]:
        clip, t5 = self.modules
        clip_tokens, t5_tokens = tokens
        pooled_NC = clip(clip_tokens.input_ids).pooler_output
        return t5(t5_tokens.input_ids).last_hidden_state, pooled_NC


def windows(clip_tokenizer: PreTrainedTokenizerBase, t5_tokenizer: PreTrainedTokenizerBase) -> tuple[Window, ...]:
    """What CLIP and T5 read of a prompt."""
    return Window("CLIP", clip_tokenizer, CLIP_LENGTH), Window("T5", t5_tokenizer, T5_LENGTH)


@dataclass(frozen=True)
class FluxGeometry(Geometry):
    """``scheme`` places the references (``position_ids``)."""

    scheme: PositionScheme = "d"

    def noise(self, seed: int) -> Tensor:
        """As diffusers' FLUX pipelines draw it: latents first, then tokens."""
        rows, columns = self.grid
        generator = torch.Generator().manual_seed(seed)
        return pack(torch.randn(1, self.channels // 4, 2 * rows, 2 * columns, generator=generator))

    def ids(self, references: Sequence[tuple[int, int]]) -> Tensor:
        return position_ids(self.grid, references, self.scheme)

    def text_ids(self, count: int) -> Tensor:
        return torch.zeros(count, 3)


def position_ids(
    target: tuple[int, int], references: Sequence[tuple[int, int]], scheme: PositionScheme = "d"
) -> Tensor:
    """Ids (number, row, column) of the target's tokens followed by those of every reference.

    ``target`` and ``references`` are (rows, columns) in tokens; a FLUX token covers 16 x 16 pixels.
    UNO: the number is 0; the offset of a reference starts at the target's size and grows by the size
    of each reference before it. Scheme "d" (its default) shifts rows and columns by it, "h" rows only,
    "w" columns only, and "o" nothing: there all references lie on the target. "kontext": no offset;
    the target's number is 0, that of the i-th reference i (FluxKontextPipeline takes one and gives it 1).

    Returns float32 [L + L_ref, 3]: rotary angles lose their meaning in half precision.
    """
    grids = [grid_ids(target, 3, 0)]
    row, column = target
    for number, size in enumerate(references, 1):
        if scheme == "kontext":
            grids.append(grid_ids(size, 3, number))
            continue
        grids.append(grid_ids(size, 3, 0, (row if scheme in "dh" else 0, column if scheme in "dw" else 0)))
        row, column = row + size[0], column + size[1]
    return torch.cat(grids)


def flux_sigmas(steps: int, tokens: int) -> Tensor:
    """FLUX's grid, whose shift depends on the number of tokens (algorithm.shifted_sigmas)."""
    return shifted_sigmas(steps, "flux", tokens)


def uno_sigmas(steps: int, tokens: int) -> Tensor:
    """The grid of UNO's pipeline (algorithm.shifted_sigmas)."""
    return shifted_sigmas(steps, "uno", tokens)
