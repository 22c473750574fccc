"""Text encoders as policies use them, and how much of a prompt they read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from PIL.Image import Image
from torch import Tensor, nn

from cgrpo.fingerprint import of_picture, of_settings, of_text

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase


@dataclass(frozen=True)
class PicturedPrompt:
    """A prompt that a text encoder reads together with pictures, each of the size that it is read in."""

    prompt: str
    pictures: tuple[Image, ...] = field(compare=False)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        parts = [self.prompt, *(of_picture(picture) for picture in self.pictures)]
        object.__setattr__(self, "fingerprint", of_settings(parts))

    def __str__(self) -> str:
        return self.prompt


Text = str | PicturedPrompt
"""What a family's text encoders read of a task; equal ones have equal encodings."""


def text_fingerprint(text: Text) -> str:
    return of_text(text) if isinstance(text, str) else text.fingerprint


class Prompts(Protocol):
    """What a policy needs of its text encoders; ``store.StoredPrompts`` reads what they made before."""

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The models that compute, to be moved between devices."""
        ...

    def encode(self, prompts: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """(text_NLC, pooled_NC) of N prompts, each a ``Text``; C of the pooled vector is 0 where there is none."""
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


def cut_prompts(windows: Iterable[Window], prompts: Sequence[str]) -> dict[str, list[int]]:
    """``Window.cut`` of all ``windows``."""
    return {name: numbers for window in windows for name, numbers in window.cut(prompts).items()}


class TextEncoders(ABC):
    """Frozen text encoders and their tokenizers, as ``Prompts``. Prompts are cut and padded to a fixed length."""

    def __init__(self, modules: Sequence[Any], windows: tuple[Window, ...]) -> None:
        self.modules: tuple[Any, ...] = tuple(module.requires_grad_(False).eval() for module in modules)
        self.windows = windows

    def cut(self, prompts: Sequence[str]) -> dict[str, list[int]]:
        return cut_prompts(self.windows, prompts)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(text_NLC, pooled_NC) of N prompts; a prompt that occurs twice is encoded once."""
        unique, device = list(dict.fromkeys(prompts)), self.modules[0].device
        tokens = [window.tokens(unique).to(device) for window in self.windows]
        with torch.autocast(device.type, enabled=False):
            text_NLC, pooled_NC = self.states(*tokens)
        rows = torch.tensor([unique.index(prompt) for prompt in prompts], device=device)
        return text_NLC[rows], pooled_NC[rows]

    @abstractmethod
    def states(self, *tokens: BatchEncoding) -> tuple[Tensor, Tensor]:
        """(text_NLC, pooled_NC) of what each window reads."""
