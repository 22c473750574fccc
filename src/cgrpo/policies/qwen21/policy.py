"""Qwen-Image-2.1 with references: the stock diffusers blocks, over the prefix once and over the picture as often as
it is asked for.

Computes what diffusers' QwenImage21Pipeline computes. Where this departs from it: the prefix (words and references)
goes through the blocks by itself, as the stock class has it from the second step on; both halves of a guidance go
through one after the other; the time reaches its embedding in full precision whatever the model's dtype; and a
reference's transparency is laid on white for the autoencoder, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21KVLayerCache
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.policies.conditions import TensorCondition, guided
from cgrpo.policies.encodings.text import PicturedPrompt
from cgrpo.policies.models import Model
from cgrpo.policies.parts import prepared
from cgrpo.policies.pictured import PicturedPolicy
from cgrpo.policies.prefix import differentiated_once
from cgrpo.policies.qwen21.checkpoint import (
    STOCK,
    check_fit,
    check_settings,
    qwen21_models,
    read_qwen,
)
from cgrpo.policies.qwen21.family import FAMILY
from cgrpo.policies.qwen21.inputs import (
    EMPTY,
    PER_REFERENCE,
    Prefix,
    Qwen21Codec,
    Qwen21Geometry,
    Qwen21Prompts,
    make_prefix,
)
from cgrpo.policies.settings import PolicySettings
from cgrpo.types import Batch

NEGATIVE = EMPTY  # the stock pipeline has no default
SLOT = 2  # the text encoder reads 2 x 2 tokens as one, so a picture's sides are even


@dataclass(frozen=True)
class Qwen21Condition(TensorCondition):
    """Encoded once per task. Can be built from tensors alone (``Qwen21Policy.condition``).

    task_N      which task each sample is of
    prefixes    of each task, and ``negatives`` with the negative prompt, empty without guidance; shared by the batch
    scale_N     guidance scale of each sample, or None without guidance
    """

    shared: ClassVar[frozenset[str]] = frozenset({"prefixes", "negatives"})

    task_N: Tensor
    prefixes: tuple[Prefix, ...]
    negatives: tuple[Prefix, ...] = ()
    scale_N: Tensor | None = None

    def conditional(self) -> Qwen21Condition:
        """The same without guidance."""
        return replace(self, negatives=(), scale_N=None)

    def negative(self) -> Qwen21Condition:
        """The negative prompt in the prompt's place, without guidance."""
        return replace(self, prefixes=self.negatives, negatives=(), scale_N=None)


class Qwen21Policy(PicturedPolicy[Qwen21Condition]):
    """A Qwen-Image-2.1 transformer with its autoencoder and text encoder; see ``PicturedPolicy``.

    settings.guidance is the scale of classifier-free guidance while training, 1 or more; 1, which the model is meant
    for, is off.
    """

    has_prefix = True
    family = FAMILY
    text_width = "context_in_dim"
    most_references = 10  # as the model's page says
    also_encoded = (NEGATIVE,)
    text_per_reference = PER_REFERENCE
    codec_type = Qwen21Codec
    prompts_type = Qwen21Prompts
    stock = STOCK
    check_settings = staticmethod(check_settings)
    check_fit = staticmethod(check_fit)

    @classmethod
    def models(cls, settings: PolicySettings) -> dict[str, Model]:
        return qwen21_models(settings)

    @classmethod
    def read_model(cls, settings: PolicySettings, part: str, dtype: torch.dtype | None) -> Any:
        if part == "qwen":
            return read_qwen(cls.place(settings, part), dtype)
        return super().read_model(settings, part, dtype)

    @classmethod
    def recognises(cls, transformer_class: str, path: str) -> bool:
        """By the class, or where that is not known by the path: nothing is fetched to plan a run."""
        unknown = not transformer_class and "qwen-image-2.1" in path.lower()
        return unknown or transformer_class == "QwenImage21Transformer2DModel"

    @classmethod
    def read_texts(cls, settings: PolicySettings, batch: Batch) -> list[PicturedPrompt]:
        """Every prompt with its references as the autoencoder sees them; guided, then the negative prompt with those
        of every task."""
        read = [tuple(prepared(settings, 2 * SLOT, pictures)) for pictures in batch.references]
        negative = settings.guidance != 1 or settings.evaluation_guidance not in (0, 1)
        texts = (*batch.prompts, *([NEGATIVE] * len(batch) if negative else []))
        return [PicturedPrompt(text, pictures) for text, pictures in zip(texts, read * 2, strict=False)]

    def set_up(self) -> None:
        self.check_guidance()
        if any(side % SLOT for side in self.geometry.grid):
            sides, multiple = f"{self.height}, {self.width}", SLOT * self.geometry.pixels
            raise UserError(f"policy.height, policy.width = {sides}: must be multiples of {multiple}")

    def lay_out(self, pixels: int, channels: int, grid: tuple[int, int]) -> Qwen21Geometry:
        return Qwen21Geometry(pixels, channels, grid)

    @staticmethod
    def text_state(text_NLC: Tensor, pooled_NC: Tensor) -> tuple[Tensor, list[int]]:
        """The states of the words, and how many of them stand before each reference."""
        return text_NLC[0], [int(place) for place in pooled_NC[0].tolist()]

    def condition(
        self,
        texts: Sequence[tuple[Tensor, Sequence[int]]],
        reference_latents: Sequence[Tensor] = (),
        guidance: float | Tensor = 1.0,
        negatives: Sequence[tuple[Tensor, Sequence[int]]] | None = None,
    ) -> Qwen21Condition:
        """A reference without a number of words before it stands first."""
        grids = [(latent.shape[-2], latent.shape[-1]) for latent in reference_latents]
        reference_NLC = self.tokens(reference_latents, texts[0][0].new_zeros(len(texts), 0))

        def prefixes(read: Sequence[tuple[Tensor, Sequence[int]]]) -> tuple[Prefix, ...]:
            return tuple(
                make_prefix(
                    text_LC.to(self.device),
                    [*[0] * (len(grids) - len(places)), *places],
                    reference_LC.to(self.device),
                    grids,
                    self.geometry.grid,
                    self.transformer.pos_embed,
                )
                for (text_LC, places), reference_LC in zip(read, reference_NLC, strict=True)
            )

        task_N = torch.arange(len(texts), device=self.device)
        if negatives is None:
            return Qwen21Condition(task_N, prefixes(texts))
        scale_N = torch.as_tensor(guidance, dtype=torch.float32).expand(len(texts)).to(self.device)
        return Qwen21Condition(task_N, prefixes(texts), prefixes(negatives), scale_N)

    @contextmanager
    def shared_prefix(self, cond: Qwen21Condition) -> Iterator[Qwen21Condition]:
        """Keys and values of the words and references of every task: they see neither the picture nor its sigma."""
        learns = torch.is_grad_enabled() and self.settings.guidance_gradient == "both"
        states = [self.keys_and_values(prefix) for prefix in cond.prefixes]
        with torch.set_grad_enabled(learns):
            states += [self.keys_and_values(prefix) for prefix in cond.negatives]
        with differentiated_once([tensor for tensors in states for tensor in tensors]) as leaves:
            given = zip(*[iter(leaves)] * len(states[0]), strict=True)
            known = [
                replace(prefix, states=own) for prefix, own in zip(cond.prefixes + cond.negatives, given, strict=True)
            ]
            count = len(cond.prefixes)
            yield replace(cond, prefixes=tuple(known[:count]), negatives=tuple(known[count:]))

    def velocity(self, x_NLC: Tensor, sigma_N: Tensor, cond: Qwen21Condition) -> Tensor:
        """The guided velocity (noise - data) at ``x_NLC``, sigma in [0, 1] fp32; in the dtype of ``x_NLC``."""
        if cond.scale_N is None:
            return self.unguided(x_NLC, sigma_N, cond)
        halves, gradient = (cond.conditional(), cond.negative()), self.settings.guidance_gradient
        return guided(self.unguided, x_NLC, sigma_N, *halves, cond.scale_N, gradient, together=False)

    def unguided(self, x_NLC: Tensor, sigma_N: Tensor, cond: Qwen21Condition) -> Tensor:
        """The samples of each task go through the transformer together, one task after another."""
        if len(cond.prefixes) == 1:
            return self.behind(cond.prefixes[0], x_NLC, sigma_N)
        rows = [(cond.task_N == task).nonzero()[:, 0] for task in range(len(cond.prefixes))]
        parts = zip(cond.prefixes, rows, strict=True)
        v_NLC = torch.cat([self.behind(prefix, x_NLC[own], sigma_N[own]) for prefix, own in parts if len(own)])
        return v_NLC[torch.cat(rows).argsort()]

    def keys_and_values(self, prefix: Prefix) -> tuple[Tensor, ...]:
        """(K, V) of every block, one after the other: [1, L, heads, C_head]."""
        stock, states = self.transformer, []
        with self._precision():
            words_LC = stock.txt_in(prefix.text_LC.to(self.dtype))
            hidden_NLC = prefix.joint(words_LC, stock.img_in(prefix.reference_LC.to(self.dtype)))[None]
            modulation = stock.modulation(stock.time_text_embed(torch.zeros(1, device=self.device), hidden_NLC))
            for block in stock.transformer_blocks:
                cache = QwenImage21KVLayerCache()
                mask = prefix.mask_LL[None, None]
                inputs = (hidden_NLC, modulation, prefix.ropes[0], mask, None, cache, "extract", slice(None))
                hidden_NLC = self._run(block, *inputs)
                states += cache.get()
        return tuple(states)

    def behind(self, prefix: Prefix, x_NLC: Tensor, sigma_N: Tensor) -> Tensor:
        """The velocity of samples of one task; their tokens see the prefix and each other."""
        stock, states = self.transformer, iter(prefix.states or self.keys_and_values(prefix))
        with self._precision():
            hidden_NLC = stock.img_in(x_NLC.to(self.dtype))
            time_NC = stock.time_text_embed(sigma_N, hidden_NLC)
            modulation = stock.modulation(time_NC)
            for block, keys, values in zip(stock.transformer_blocks, states, states, strict=True):
                cache = QwenImage21KVLayerCache()
                cache.store(*(state.expand(len(x_NLC), -1, -1, -1) for state in (keys, values)))
                inputs = (hidden_NLC, modulation, prefix.ropes[1], None, None, cache, "cached")
                hidden_NLC = self._run(block, *inputs)
            v_NLC = stock.proj_out(stock.norm_out(hidden_NLC, time_NC))
        return v_NLC.to(x_NLC.dtype)

    def _run(self, block: Any, *inputs: Any) -> Tensor:
        """As the stock forward runs a block."""
        if torch.is_grad_enabled() and self.transformer.gradient_checkpointing:
            return self.transformer._gradient_checkpointing_func(block, *inputs)
        return block(*inputs)

    def _precision(self) -> AbstractContextManager[Any]:
        """A bfloat16 base computes under autocast."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)
