"""Text encoders as policies use them, and how much of a prompt they read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase


class Prompts(Protocol):
    """What a policy needs of its text encoders; ``store.StoredPrompts`` reads what they made before."""

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The models that compute, to be moved between devices."""
        ...

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(text_NLC, pooled_NC) of N prompts; C of the pooled vector is 0 where the family has none."""
        ...

    def cut(self, prompts: Sequence[str]) -> dict[str, list[int]]:
        """The prompts that are longer than an encoder reads, as numbers, by encoder; empty where none is loaded."""
        ...


@dataclass(frozen=True)
class Window:
    """The tokens of a prompt that a text encoder reads: ``most``, or fewer if its tokenizer says so.

    name     the encoder's, for reports
    wrapped  the prompt as the tokenizer gets it, such as in a chat template
    """

    name: str
    tokenizer: PreTrainedTokenizerBase
    most: int
    wrapped: Callable[[str], str] = str

    @property
    def length(self) -> int:
        return min(self.most, self.tokenizer.model_max_length)

    def tokens(self, prompts: Sequence[str]) -> BatchEncoding:
        """Token ids and attention mask [N, length], cut and padded."""
        return self.tokenizer(
            [self.wrapped(prompt) for prompt in prompts],
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_tensors="pt",
        )

    def cut(self, prompts: Sequence[str]) -> dict[str, list[int]]:
        """The prompts that are longer than is read, as numbers, by a name such as "CLIP at 77 tokens"."""
        ids = self.tokenizer([self.wrapped(p) for p in prompts], truncation=False, verbose=False).input_ids
        return {f"{self.name} at {self.length} tokens": [n for n, row in enumerate(ids) if len(row) > self.length]}
