"""Prompts to FLUX.2-klein's text states: three layers of Qwen3, as its chat template puts the question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cgrpo.policies.encodings.text import Window

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen3Model

LENGTH = 512  # tokens of a prompt, the chat template's included
LAYERS = (9, 18, 27)  # the states after so many of Qwen3's layers are what FLUX.2-klein reads


class Flux2PromptEncoder:
    """A frozen Qwen3 and its tokenizer. Prompts are cut and padded to a fixed length (512 tokens, or fewer if the
    tokenizer says so); padding is masked within Qwen3, and its states are read all the same.

    It keeps to ``encodings.text.Prompts``; the pooled vector has no numbers.
    """

    def __init__(self, qwen: Qwen3Model, tokenizer: PreTrainedTokenizerBase) -> None:
        self.qwen = qwen.requires_grad_(False).eval()
        self.window = window(tokenizer)

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return (self.qwen,)

    def cut(self, prompts: Sequence[str]) -> dict[str, list[int]]:
        return self.window.cut(prompts)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(text_NLC, [N, 0]) of N prompts; a prompt that occurs twice is encoded once."""
        unique = list(dict.fromkeys(prompts))
        device = self.qwen.device
        tokens = self.window.tokens(unique).to(device)
        with torch.autocast(device.type, enabled=False):
            states = self.qwen(
                input_ids=tokens.input_ids,
                attention_mask=tokens.attention_mask,
                output_hidden_states=True,
                use_cache=False,
            ).hidden_states
        text_NLC = torch.cat([states[layer] for layer in LAYERS], dim=-1)
        rows = torch.tensor([unique.index(prompt) for prompt in prompts], device=device)
        return text_NLC[rows], text_NLC.new_zeros(len(prompts), 0)


def window(tokenizer: PreTrainedTokenizerBase) -> Window:
    """What Qwen3 reads of a prompt: as a user's message, whose answer would begin behind an empty thought."""

    def wrapped(prompt: str) -> str:
        return str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
        )

    return Window("Qwen3", tokenizer, LENGTH, wrapped)
