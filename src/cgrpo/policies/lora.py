"""What every policy with a frozen diffusers transformer and a LoRA does the same way."""

from __future__ import annotations

import itertools
import shutil
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from cgrpo.errors import UserError
from cgrpo.fingerprint import of_tensors
from cgrpo.hub import locate, parts_of
from cgrpo.policies.adapters.attached import Fit, attached, fit
from cgrpo.policies.adapters.files import Origin, check_origin, read_split
from cgrpo.policies.adapters.keys import State
from cgrpo.policies.adapters.layers import (
    active_weights,
    add_adapter,
    continue_start,
    fuse,
    load_adapter,
    merge_start,
    named_parameters,
    reference_policy,
    save_adapter,
)
from cgrpo.policies.base import C, Policy, Spread
from cgrpo.policies.checkpoints import locate_base, model_index, part_folder
from cgrpo.policies.family import Family, refuse_other_family
from cgrpo.policies.layouts import Layout
from cgrpo.policies.memory import quantise_blocks, set_attention, set_checkpointing
from cgrpo.policies.settings import PolicySettings


class LoraPolicy(Policy[C]):
    """What a family leaves to this class: ``trainable_parameters``, ``reference``, ``using``, ``save``, ``shard``.

    transformer   the diffusers model; whatever trains is a LoRA on it
    origin        which weights these are: the base's, and the start's that training builds on
    family        what is known of the family beforehand, such as where the LoRA sits
    block_lists   the transformer's lists of blocks, in order: nearly all of its parameters
    """

    family: ClassVar[Family]
    block_lists: ClassVar[tuple[str, ...]] = ("transformer_blocks", "single_transformer_blocks")

    transformer: Any
    origin: Origin
    on_top: State | None = None  # what ``evaluated`` adds

    @classmethod
    def layout(cls) -> Layout:
        assert cls.family.layout is not None
        return cls.family.layout

    @classmethod
    @abstractmethod
    def load_transformer(cls, settings: PolicySettings, dtype: torch.dtype | None) -> Any:
        """The stock transformer alone on the CPU, in ``dtype``; None is each weight's own on disk."""

    @classmethod
    def save_whole(cls, settings: PolicySettings, transformer: Any, folder: Path) -> None:
        """Write ``transformer`` and a copy of the checkpoint's other parts into ``folder``. Raises OSError."""
        place = locate_base(settings)
        if not place.is_dir() or settings.autoencoder:
            raise UserError(
                f"{settings.path}: a merged checkpoint of this family keeps its own parts",
                "leave policy.autoencoder out",
            )
        transformer.save_pretrained(folder / "transformer")
        index = model_index(place)  # without one all folders are copied
        for part in place.iterdir():
            if part.name == "model_index.json":
                shutil.copy(part, folder / part.name)
            elif part.is_dir() and part.name != "transformer" and (not index or part.name in parts_of(index)):
                shutil.copytree(part_folder(place, part.name, settings.path), folder / part.name)

    def prepare(self, settings: PolicySettings, adapter: Path | None, seed: int, *, spread: bool) -> None:
        """Make a freshly loaded base ready to train: start, 8-bit weights, adapter, checkpointing, compilation.

        ``adapter`` and ``seed`` as in ``make``. The transformer is moved to the policy's device once it is small.
        """
        start = locate(settings.start, "file") if settings.start else None
        if start and settings.start_mode == "merge":
            self.begin_with(start, "merge")
        if settings.quantise == "int8":
            self.quantise()
            if not spread:
                self.transformer.to(self.device)
        if start and settings.start_mode == "continue":
            self.begin_with(start, "continue")
        if adapter is not None:
            self.load_adapter(adapter, base_differs=settings.base_differs)
        elif not (start and settings.start_mode == "continue"):
            self.add_adapter(settings.rank, seed)
        if settings.evaluation_lora:
            self.on_top = self.whole_adapter(locate(settings.evaluation_lora, "file"))
        set_checkpointing(self.transformer, settings.checkpointing)
        set_attention(self.transformer, settings.attention, self.device, getattr(torch, settings.dtype))
        if settings.compile:
            self.compile(settings.compile)

    def quantise(self) -> None:
        """Keep the blocks' matrices in 8 bits; before an adapter is added. Raises UserError without torchao."""
        if self.layout().fused:
            fuse(self.transformer)
        quantise_blocks(self.blocks)

    def begin_with(self, start: Path, mode: Literal["merge", "continue"]) -> None:
        """Build on an adapter file: merge it into the base, or train it on with itself, frozen, as the reference."""
        begin = merge_start if mode == "merge" else continue_start
        self.origin = replace(self.origin, start_hash=begin(self.transformer, start, self.layout()), start_mode=mode)

    def materials(self) -> dict[str, str]:
        """The base, and the start where there is one."""
        start = {"start": self.origin.start_hash} if self.origin.start_hash else {}
        return {"path": self.origin.base_hash} | start

    def add_adapter(self, rank: int, seed: int) -> None:
        """A LoRA that trains and, for now, changes nothing. Raises UserError where there already is one."""
        add_adapter(self.transformer, rank, seed, self.layout())

    def load_adapter(self, path: Path, *, base_differs: bool = False) -> None:
        """The adapter of a file or folder. Raises UserError where it doesn't fit, or was trained on other weights,
        unless ``base_differs`` allows that (``files.check_origin``)."""
        load_adapter(self.transformer, path, self.origin, layout=self.layout(), base_differs=base_differs)

    def read_adapter(self, path: Path, *, base_differs: bool = False) -> tuple[State, Fit]:
        """An adapter of any program for ``attached``, and which of its layers this transformer has.

        Raises UserError as ``load_adapter`` does, but not for layers that are missing or differ in shape.
        """
        split, header = read_split(path, self.layout())
        refuse_other_family(path, split, self.layout())
        check_origin(path, header, self.origin, base_differs)
        return split, fit(self.transformer, split)

    def whole_adapter(self, path: Path) -> State:
        """An adapter all of whose layers are here. Raises UserError as ``read_adapter``, and naming one that isn't."""
        split, fits = self.read_adapter(path)
        if fits.misfits:
            layers = f"{len(fits.misfits)} of its layers are not in this base, such as {fits.misfits[0]}"
            raise UserError(f"{path}: {layers}", "give one of this base model")
        return split

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """With the LoRA of ``policy.evaluation_lora``, where there is one, on top of whatever is active."""
        with attached(self.transformer, self.on_top, alone=False) if self.on_top else nullcontext():
            yield

    def attached(self, split: State, strength: float = 1.0) -> AbstractContextManager[None]:
        """Within it the policy is its base, with a merged start, and ``strength`` times an adapter on top."""
        return attached(self.transformer, split, strength)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """The transformer's parameters that require gradients: the adapter's, once one is added."""
        return named_parameters(self.transformer)

    def reference(self) -> AbstractContextManager[None]:
        """The frozen starting adapter if there is one, else the base alone (with its start, where one was merged)."""
        return reference_policy(self.transformer)

    def save(self, folder: Path) -> Path:
        """Write ``folder``/pytorch_lora_weights.safetensors, which the stock pipeline's load_lora_weights reads."""
        return save_adapter(self.transformer, folder, origin=self.origin)

    def weights_fingerprint(self) -> str:
        """The fingerprint of the transformer's weights that evaluation uses now, for ``pictures_depend_on``."""
        on_top = ((f"on top.{key}", value) for key, value in (self.on_top or {}).items())
        return of_tensors(itertools.chain(active_weights(self.transformer), on_top))

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks, in order."""
        return [block for name in self.block_lists for block in getattr(self.transformer, name)]

    def compile(self, backend: str) -> None:
        """Compile the transformer's blocks, each kind once. Rollout and replay then differ by rounding."""
        for block in self.blocks:
            block.compile(backend=backend)

    def shard(self, spread: Spread) -> None:
        """The frozen blocks are spread; adapters, and what is in no block, stay whole on every process."""
        blocks = {p for block in self.blocks for p in block.parameters()}
        named = self.transformer.named_parameters()
        whole = [p for name, p in named if ".lora_" in name or p not in blocks]
        spread([*self.blocks, self.transformer], whole)


def keep_exact_time(transformer: nn.Module, embedding: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Let 1000 * sigma and 1000 * guidance reach ``embedding`` as fp32 numbers, whatever the model's dtype.

    ``embedding`` is the part of ``transformer`` that takes them first. ``dtype``: what they are handed over in.

    The stock forward casts both to the dtype of its first linear layer. Under bf16 (weights or
    autocast) that turns 986 into 984 and 731 into 732: neighbouring steps get one time, and the
    velocity differs visibly from UNO's. Two hooks: one sees what the caller passed, the other hands
    it to the embedding. Installed twice, they do the same.
    """
    passed: dict[str, Tensor | None] = {}

    def remember(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        passed.update(timestep=kwargs["timestep"], guidance=kwargs.get("guidance"))

    def replace(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        exact = [(value.float() * 1000).to(dtype) for value in passed.values() if value is not None]
        return (*exact, *args[len(exact) :])

    transformer.register_forward_pre_hook(remember, with_kwargs=True)
    embedding.register_forward_pre_hook(replace)
