"""The half of a policy that all families share: a frozen diffusers transformer with a LoRA that trains."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import nn

from cgrpo.fingerprint import of_tensors
from cgrpo.policies.adapters.files import Origin
from cgrpo.policies.adapters.layers import (
    active_weights,
    add_adapter,
    continue_start,
    load_adapter,
    merge_start,
    named_parameters,
    reference_policy,
    save_adapter,
)
from cgrpo.policies.adapters.layouts import Layout
from cgrpo.policies.base import C, Policy, Spread


class LoraPolicy(Policy[C]):
    """What a family leaves to this class: ``trainable_parameters``, ``reference``, ``using``, ``save``, ``shard``.

    transformer   the diffusers model; whatever trains is a LoRA on it
    origin        which weights these are: the base's, and the start's that training builds on
    layout        where the LoRA sits
    block_lists   the transformer's lists of blocks, in order: nearly all of its parameters
    """

    layout: ClassVar[Layout]
    block_lists: ClassVar[tuple[str, ...]] = ("transformer_blocks", "single_transformer_blocks")

    transformer: Any
    origin: Origin

    def begin_with(self, start: Path, mode: Literal["merge", "continue"]) -> None:
        """Build on an adapter file: merge it into the base, or train it on with itself, frozen, as the reference."""
        if mode == "merge":
            mark = merge_start(self.transformer, start, self.layout)
        else:
            mark = continue_start(self.transformer, start, self.layout)
        self.origin = replace(self.origin, start_hash=mark, start_mode=mode)

    def materials(self) -> dict[str, str]:
        """The base, and the start where there is one."""
        start = {"start": self.origin.start_hash} if self.origin.start_hash else {}
        return {"path": self.origin.base_hash} | start

    def add_adapter(self, rank: int, seed: int) -> None:
        """A LoRA that trains and, for now, changes nothing. Raises UserError where there already is one."""
        add_adapter(self.transformer, rank, seed, self.layout)

    def load_adapter(self, path: Path) -> None:
        """The adapter of a file or folder. Raises UserError where it doesn't fit, or was trained on other weights."""
        load_adapter(self.transformer, path, self.origin, self.layout)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """The transformer's parameters that require gradients: the adapter's, once one is added."""
        return named_parameters(self.transformer)

    def reference(self) -> AbstractContextManager[None]:
        """The frozen starting adapter if there is one, else the base alone (with its start, where one was merged)."""
        return reference_policy(self.transformer)

    def save(self, folder: Path) -> Path:
        """Write ``folder``/pytorch_lora_weights.safetensors, which the stock pipeline's load_lora_weights reads."""
        return save_adapter(self.transformer, folder, origin=self.origin)

    def weights_mark(self) -> str:
        """The fingerprint of the transformer's weights that are in use now, for ``mark``."""
        return of_tensors(active_weights(self.transformer))

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks, in order."""
        return [block for name in self.block_lists for block in getattr(self.transformer, name)]

    def compile(self, backend: str) -> None:
        """Compile the transformer's blocks, each kind once. Rollout and replay then differ by rounding."""
        for block in self.blocks:
            block.compile(backend=backend)

    def shard(self, spread: Spread) -> None:
        """The frozen blocks are spread; adapters stay whole on every process."""
        spread(self.blocks, [p for name, p in self.transformer.named_parameters() if ".lora_" in name])
        for name, child in self.transformer.named_children():
            if name not in self.block_lists:
                child.to(self.device)
