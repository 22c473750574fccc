"""Policies whose text encoder reads a prompt together with its references: a Qwen-VL model, as in the Qwen-Image
families."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from cgrpo.errors import UserError
from cgrpo.policies.checkpoints import read_settings
from cgrpo.policies.encodings.text import PicturedPrompt
from cgrpo.policies.memory import on_device
from cgrpo.policies.parts import RC
from cgrpo.policies.referenced import ReferencedPolicy
from cgrpo.policies.settings import PolicySettings
from cgrpo.types import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen2VLImageProcessorPil

LENGTH = 64  # tokens of a usual prompt, for `cgrpo plan`; the encoder reads all of a prompt
PAD = "<|image_pad|>"


def load_processor(folder: Path) -> Any:
    """What turns pictures into the text encoder's inputs; Pillow's, as torchvision's is not needed."""
    from transformers import Qwen2VLImageProcessorPil

    if not folder.is_dir():
        raise UserError(f"{folder}: this part of the checkpoint is missing; copy it whole")
    file = folder / "preprocessor_config.json"
    kept = {key: value for key, value in read_settings(file).items() if key != "image_processor_type"}
    return Qwen2VLImageProcessorPil.from_dict(kept)


def check_pad(tokenizer: Any) -> None:
    """Raises ValueError for a tokenizer without the token that stands for a part of a picture."""
    if tokenizer.convert_tokens_to_ids(PAD) in (None, tokenizer.unk_token_id):
        raise ValueError(f"it has no {PAD}")


class PicturedPrompts(ABC):
    """A Qwen-VL model's last states of a prompt and its references; nothing is cut or padded.

    The positions of a picture's tokens are rows and columns, as in training. diffusers 0.42.1 leaves out the types of
    tokens that transformers 5 makes these positions of (huggingface/diffusers issue 14194), and counts on instead.
    """

    def __init__(self, qwen: Any, tokenizer: PreTrainedTokenizerBase, processor: Qwen2VLImageProcessorPil) -> None:
        self.modules: tuple[nn.Module, ...] = (qwen.requires_grad_(False).eval(),)
        self.qwen, self.tokenizer, self.processor = qwen, tokenizer, processor
        self.pad: Any = tokenizer.convert_tokens_to_ids(PAD)

    def cut(self, prompts: Sequence[str]) -> dict[str, list[int]]:
        return {}

    @abstractmethod
    def written(self, prompt: str, pictures: Sequence[str]) -> str:
        """The prompt in its template; ``pictures``: the tokens of each reference."""

    @torch.no_grad()
    def read(self, prompt: PicturedPrompt) -> tuple[Tensor, Tensor, list[int]]:
        """Of the template's tokens the states [L, C] and the ids [L]; and how many are each reference's."""
        device, seen, counts = self.qwen.device, {}, []
        if prompt.pictures:
            read = self.processor(list(prompt.pictures), return_tensors="pt")
            seen = {name: read[name].to(device) for name in ("pixel_values", "image_grid_thw")}
            counts = (read["image_grid_thw"].prod(-1) // self.processor.merge_size**2).tolist()
        text = self.written(prompt.prompt, [PAD * count for count in counts])
        tokens = self.tokenizer(text, return_tensors="pt").to(device)
        with torch.autocast(device.type, enabled=False):
            states_NLC = self.qwen(
                input_ids=tokens.input_ids,
                attention_mask=tokens.attention_mask,
                mm_token_type_ids=(tokens.input_ids == self.pad).int(),
                use_cache=False,
                **seen,
            ).last_hidden_state
        return states_NLC[0], tokens.input_ids[0], counts


class PicturedPolicy(ReferencedPolicy[RC]):
    """A policy with such a text encoder, "qwen", whose tokenizer lies beside a picture processor in "processor"."""

    block_lists = ("transformer_blocks",)
    input_layer = "img_in"
    text_encoders: ClassVar[Mapping[str, tuple[str, int]]] = {"qwen": ("processor", 2**20)}  # all of a prompt
    check_tokenizer = staticmethod(check_pad)

    @classmethod
    def loaders(cls, settings: PolicySettings, dtype: torch.dtype | None) -> dict[str, Callable[[], Any]]:
        """Behind the stock ones what turns pictures into the text encoder's inputs."""
        pictures = functools.partial(load_processor, cls.place(settings, "processor"))
        return super().loaders(settings, dtype) | {"pictures": pictures}

    @staticmethod
    def windows(*tokenizers: Any) -> tuple[()]:
        """No prompt is cut."""
        return ()

    def conditions(self, batch: Batch, parts: Sequence[Sequence[int]], guidance: float) -> list[RC]:
        latents = self.reference_latents(batch, parts)
        texts = self.text_states(self.read_texts(self.settings, batch)[: len(batch) * (1 if guidance == 1 else 2)])
        return [
            self.condition(
                [texts[row] for row in rows],
                latent,
                guidance,
                [texts[len(batch) + row] for row in rows] if guidance != 1 else None,
            )
            for rows, latent in zip(parts, latents, strict=True)
        ]

    def text_states(self, texts: Sequence[Any]) -> list[Any]:
        """``text_state`` of each; every one goes through the encoder alone, as in the stock pipeline."""
        assert self.prompts is not None, "built without text encoders: use condition()"
        with on_device(self.device, *self.prompts.modules, offload=self.settings.offload):
            states = {text: self.text_state(*self.prompts.encode([text])) for text in dict.fromkeys(texts)}
        return [states[text] for text in texts]

    @staticmethod
    def text_state(text_NLC: Tensor, pooled_NC: Tensor) -> Any:
        """What ``condition`` takes of the encoding of one text, N = 1."""
        return text_NLC[0]

    @abstractmethod
    def condition(
        self,
        texts: Sequence[Any],
        reference_latents: Sequence[Tensor] = (),
        guidance: float | Tensor = 1.0,
        negatives: Sequence[Any] | None = None,
    ) -> RC:
        """A condition from tensors alone.

        ``texts``: ``text_state`` of each sample. ``reference_latents``: for each reference the scaled latents
        [N, c, h, w] of all samples, as the codec gives them. ``guidance``: one number or one per sample; without effect
        where there are no ``negatives``, the ``text_state`` of the negative prompt of each sample.
        """
