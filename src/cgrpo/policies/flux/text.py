"""Prompts to the two kinds of text conditioning that FLUX takes: T5 tokens and the pooled CLIP vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cgrpo.policies.encodings.text import Window

if TYPE_CHECKING:
    from transformers import CLIPTextModel, PreTrainedTokenizerBase, T5EncoderModel

CLIP_LENGTH, T5_LENGTH = 77, 512  # tokens, as in FLUX.1-dev


class PromptEncoder:
    """Frozen CLIP and T5 text encoders with their tokenizers.

    Prompts are cut and padded to a fixed length and no attention mask is used: FLUX was trained
    with the padding visible. Lengths are min(77 or 512, the tokenizer's ``model_max_length``).
    """

    def __init__(
        self,
        clip: CLIPTextModel,
        t5: T5EncoderModel,
        clip_tokenizer: PreTrainedTokenizerBase,
        t5_tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.clip = clip.requires_grad_(False).eval()
        self.t5 = t5.requires_grad_(False).eval()
        self.windows = windows(clip_tokenizer, t5_tokenizer)

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return self.clip, self.t5

    def cut(self, prompts: Sequence[str]) -> dict[str, list[int]]:
        return {name: numbers for window in self.windows for name, numbers in window.cut(prompts).items()}

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(text_NLC, pooled_NC) of N prompts; a prompt that occurs twice is encoded once."""
        unique = list(dict.fromkeys(prompts))
        device = self.clip.device
        clip_ids, t5_ids = (window.tokens(unique).input_ids.to(device) for window in self.windows)
        with torch.autocast(device.type, enabled=False):
            pooled = self.clip(clip_ids).pooler_output
            text = self.t5(t5_ids).last_hidden_state
        rows = torch.tensor([unique.index(p) for p in prompts], device=device)
        return text[rows], pooled[rows]


def windows(clip_tokenizer: PreTrainedTokenizerBase, t5_tokenizer: PreTrainedTokenizerBase) -> tuple[Window, Window]:
    """What CLIP and T5 read of a prompt."""
    return Window("CLIP", clip_tokenizer, CLIP_LENGTH), Window("T5", t5_tokenizer, T5_LENGTH)
