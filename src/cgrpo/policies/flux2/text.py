"""Prompts to FLUX.2-klein's text states: three layers of Qwen3, as its chat template puts the question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cgrpo.policies.checkpoints.flux2 import TEXT_LAYERS
from cgrpo.policies.encodings.mark import FLUX2_LENGTH

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen3Model


class Flux2PromptEncoder:
    """A frozen Qwen3 and its tokenizer. Prompts are cut and padded to a fixed length (512 tokens, or fewer if the
    tokenizer says so); padding is masked within Qwen3, and its states are read all the same.

    Has the shape of ``encodings.text.Prompts``: the pooled vector has no numbers.
    """

    def __init__(self, qwen: Qwen3Model, tokenizer: PreTrainedTokenizerBase) -> None:
        self.qwen, self.tokenizer = qwen.requires_grad_(False).eval(), tokenizer
        self.length = _window(tokenizer)

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """What computes, for whoever moves it between devices."""
        return (self.qwen,)

    def cut(self, prompts: Sequence[str]) -> dict[str, list[int]]:
        """The prompts that are longer than is read, as numbers, by "Qwen3 at 512 tokens"."""
        return cut_prompts(self.tokenizer, prompts)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(text_NLC, [N, 0]) of N prompts; a prompt that occurs twice is encoded once."""
        unique = list(dict.fromkeys(prompts))
        device = self.qwen.device
        found = self.tokenizer(
            _asked(self.tokenizer, unique),
            return_tensors="pt",
            padding="max_length",
            truncation=True,
            max_length=self.length,
        ).to(device)
        with torch.autocast(device.type, enabled=False):
            states = self.qwen(
                input_ids=found.input_ids,
                attention_mask=found.attention_mask,
                output_hidden_states=True,
                use_cache=False,
            ).hidden_states
        text_NLC = torch.cat([states[layer] for layer in TEXT_LAYERS], dim=-1)
        rows = torch.tensor([unique.index(prompt) for prompt in prompts], device=device)
        return text_NLC[rows], text_NLC.new_zeros(len(prompts), 0)


def cut_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> dict[str, list[int]]:
    """The prompts that are longer than is read; see ``Flux2PromptEncoder.cut``."""
    length = _window(tokenizer)
    ids = tokenizer(_asked(tokenizer, prompts), truncation=False, verbose=False).input_ids
    return {f"Qwen3 at {length} tokens": [n for n, row in enumerate(ids) if len(row) > length]}


def _window(tokenizer: PreTrainedTokenizerBase) -> int:
    return min(FLUX2_LENGTH, tokenizer.model_max_length)


def _asked(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[str]:
    """As a user's message; the answer would begin behind an empty thought."""
    return [
        str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
        )
        for prompt in prompts
    ]
