"""Prompts to the two kinds of text conditioning that FLUX takes: T5 tokens and the pooled CLIP vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import CLIPTextModel, PreTrainedTokenizerBase, T5EncoderModel

CLIP_LENGTH, T5_LENGTH = 77, 512  # tokens, as in FLUX.1-dev; a tokenizer may ask for fewer


class Prompts(Protocol):
    """What a policy asks for text encodings: a ``PromptEncoder``, or ``cache.StoredPrompts`` that reads them."""

    @property
    def modules(self) -> tuple[nn.Module, ...]: ...

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(text_NLC, pooled_NC) of N prompts; a family without a pooled vector has one of no numbers."""
        ...

    def cut(self, prompts: Sequence[str]) -> dict[str, list[int]]:
        """The prompts that are longer than an encoder reads, as numbers, by encoder; empty where none is there."""
        ...


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
        self.clip_tokenizer, self.t5_tokenizer = clip_tokenizer, t5_tokenizer
        self.clip_length = _window(clip_tokenizer, CLIP_LENGTH)
        self.t5_length = _window(t5_tokenizer, T5_LENGTH)

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """What computes, for whoever moves it between devices."""
        return self.clip, self.t5

    def cut(self, prompts: Sequence[str]) -> dict[str, list[int]]:
        """The prompts that are longer than an encoder reads, as numbers, by "CLIP at 77 tokens" and "T5 at 512"."""
        return cut_prompts(self.clip_tokenizer, self.t5_tokenizer, prompts)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(text_NLC, pooled_NC) of N prompts; a prompt that occurs twice is encoded once."""
        unique = list(dict.fromkeys(prompts))
        device = self.clip.device
        clip_ids = _tokens(self.clip_tokenizer, unique, self.clip_length).to(device)
        t5_ids = _tokens(self.t5_tokenizer, unique, self.t5_length).to(device)
        with torch.autocast(device.type, enabled=False):
            pooled = self.clip(clip_ids).pooler_output
            text = self.t5(t5_ids).last_hidden_state
        rows = torch.tensor([unique.index(p) for p in prompts], device=device)
        return text[rows], pooled[rows]


def cut_prompts(
    clip_tokenizer: PreTrainedTokenizerBase, t5_tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]
) -> dict[str, list[int]]:
    """The prompts that are longer than an encoder reads; see ``PromptEncoder.cut``."""
    windows = {"CLIP": (clip_tokenizer, CLIP_LENGTH), "T5": (t5_tokenizer, T5_LENGTH)}
    found = {}
    for name, (tokenizer, most) in windows.items():
        length = _window(tokenizer, most)
        lengths = [len(ids) for ids in tokenizer(list(prompts), truncation=False, verbose=False).input_ids]
        found[f"{name} at {length} tokens"] = [n for n, count in enumerate(lengths) if count > length]
    return found


def _window(tokenizer: PreTrainedTokenizerBase, most: int) -> int:
    return min(most, tokenizer.model_max_length)


def _tokens(tokenizer: PreTrainedTokenizerBase, prompts: list[str], length: int) -> Tensor:
    """Token ids [N, length]."""
    return tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
