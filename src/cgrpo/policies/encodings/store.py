"""Encodings made once and kept on disk, so that the text encoders need not be in memory while training.

A store is a folder: ``index.json`` says what the encodings depend on, and each encoding is a safetensors file named by
its content:

    text/<fingerprint of the prompt>.safetensors          text_LC, pooled_C
    references/<fingerprint of the picture>.safetensors   latent_CHW

The picture is the reference as the autoencoder sees it, after resizing. Where the text encoder reads pictures with the
prompt, they are part of the prompt's fingerprint. Files appear whole or not at all, and equal
names hold equal encodings: several processes may fill one store, and a killed one is simply run again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import torch
from PIL.Image import Image
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from cgrpo.errors import UserError
from cgrpo.files import json_text, reading, writing
from cgrpo.fingerprint import of_picture
from cgrpo.policies.encodings.latents import LatentCodec
from cgrpo.policies.encodings.text import Prompts, Text, text_fingerprint
from cgrpo.tensor_files import tensor_bytes
from cgrpo.types import Batch

COMMAND = "cgrpo data encode"

_RANKS = {"text": {"text_LC": 2, "pooled_C": 1}, "references": {"latent_CHW": 3}}
_T = TypeVar("_T")


class EncodingStore:
    """One folder of encodings; see the module's text for its files.

    ``depends`` names everything that the encodings depend on: fingerprints of encoders, how references are prepared.
    """

    def __init__(self, folder: Path, depends: Mapping[str, Any]) -> None:
        self.folder, self.depends = folder, dict(depends)

    @classmethod
    def create(cls, folder: Path, depends: Mapping[str, Any]) -> EncodingStore:
        """The store in ``folder``, new or to be filled further.

        Raises UserError if the folder holds something else, or encodings that depend on something else.
        """
        index = folder / "index.json"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            others = [item.name for item in folder.iterdir() if item.suffix != ".partial"]
        if not index.exists():  # checked after listing: another process may create the store meanwhile
            if others:
                raise UserError(f"{folder}: holds other files ({others[0]})", f"give {COMMAND} an empty folder")
            _write(index, json_text(dict(depends), indent=2).encode())
        store = cls.open(folder, depends)
        for kind in _RANKS:
            (folder / kind).mkdir(exist_ok=True)
        return store

    @classmethod
    def open(cls, folder: Path, depends: Mapping[str, Any]) -> EncodingStore:
        """The store in ``folder``. Raises UserError if there is none, or naming what differs from ``depends``."""
        index = folder / "index.json"
        if not index.exists():
            raise UserError(f"{folder}: no store of encodings (it has no index.json)", f"fill it with {COMMAND}")
        with reading(index, f"delete the folder and run {COMMAND} again"):
            stored = json.loads(index.read_text(encoding="utf-8-sig"))
        if not isinstance(stored, dict) or not stored.keys() >= depends.keys():
            raise UserError(
                f"{index}: is no index of this policy's encodings", f"give the folder that {COMMAND} filled"
            )
        differ = [
            f"{name.replace('_', ' ')} {str(stored[name])[:12]} instead of {str(wanted)[:12]}"
            for name, wanted in depends.items()
            if stored[name] != wanted
        ]
        if differ:
            raise UserError(
                f"{folder}: its encodings were made with something else ({', '.join(differ)})",
                f"encode again into an empty folder with {COMMAND}",
            )
        return cls(folder, depends)

    def has_text(self, prompt: Text) -> bool:
        return self._path("text", text_fingerprint(prompt)).exists()

    def has_reference(self, picture: Image) -> bool:
        return self._path("references", of_picture(picture)).exists()

    def text(self, prompt: Text) -> tuple[Tensor, Tensor]:
        """(text_LC, pooled_C) of ``prompt``, on the CPU. Raises UserError if it is not stored or its file is broken."""
        tensors = self._read("text", text_fingerprint(prompt))
        if tensors is None:
            raise UserError(
                f"{self.folder}: the prompt {_short(str(prompt))!r} is not encoded",
                f"run {COMMAND} over these tasks first",
            )
        return tensors["text_LC"], tensors["pooled_C"]

    def reference(self, picture: Image) -> Tensor | None:
        """latent_CHW of a picture ready for the autoencoder, on the CPU, or None; raises UserError as ``text``."""
        tensors = self._read("references", of_picture(picture))
        return None if tensors is None else tensors["latent_CHW"]

    def put_text(self, prompt: Text, text_LC: Tensor, pooled_C: Tensor) -> None:
        tensors = {"text_LC": text_LC, "pooled_C": pooled_C}
        _write(self._path("text", text_fingerprint(prompt)), tensor_bytes(tensors, {"prompt": str(prompt)}))

    def put_reference(self, picture: Image, latent_CHW: Tensor) -> None:
        _write(self._path("references", of_picture(picture)), tensor_bytes({"latent_CHW": latent_CHW}))

    def _path(self, kind: str, fingerprint: str) -> Path:
        return self.folder / kind / f"{fingerprint}.safetensors"

    def _read(self, kind: str, fingerprint: str) -> dict[str, Tensor] | None:
        path = self._path(kind, fingerprint)
        if not path.exists():
            return None
        cure = f"delete it and run {COMMAND} again"
        with reading(path, cure):
            content = path.read_bytes()
        try:
            tensors = load(content)
        except (ValueError, SafetensorError) as error:
            raise UserError(f"{path}: can't be read ({_short(str(error))})", cure) from error
        if {name: tensor.ndim for name, tensor in tensors.items()} != _RANKS[kind]:
            raise UserError(f"{path}: holds {sorted(tensors)}, no encoding", cure)
        return tensors


class StoredPrompts:
    """A policy's ``Prompts`` from a store: the same ``encode``, without the encoders."""

    modules: tuple[nn.Module, ...] = ()  # nothing to move between devices

    def __init__(self, store: EncodingStore, device: torch.device | str = "cpu") -> None:
        self.store, self.device = store, device

    def encode(self, prompts: Sequence[Text]) -> tuple[Tensor, Tensor]:
        """(text_NLC, pooled_NC) of N prompts, on ``device``. Raises UserError naming a prompt that is not stored."""
        unique = {prompt: self.store.text(prompt) for prompt in dict.fromkeys(prompts)}
        text, pooled = zip(*(unique[prompt] for prompt in prompts), strict=True)
        return torch.stack(text).to(self.device), torch.stack(pooled).to(self.device)

    def cut(self, prompts: Sequence[str]) -> dict[str, list[int]]:
        return {}


@dataclass
class Encoded:
    """How many distinct encodings ``encode_batches`` made, and how many the store already had."""

    texts_made: int = 0
    texts_kept: int = 0
    references_made: int = 0
    references_kept: int = 0


@torch.no_grad()
def encode_batches(
    batches: Iterable[Batch],
    prompts: Prompts,
    codec: LatentCodec,
    store: EncodingStore,
    prepare: Callable[[Sequence[Image]], list[Image]],
    progress: Callable[[int], object] | None = None,
    read_texts: Callable[[Batch], Sequence[Text]] = lambda batch: batch.prompts,
) -> Encoded:
    """Put the prompts and references of all tasks into ``store``, each once; what it holds is not made again.

    ``batches`` are read one by one, so that pictures needn't all be in memory. ``prepare`` turns a task's references
    into the RGB pictures the autoencoder sees; ``progress`` is called with the number of tasks done so far;
    ``read_texts`` gives what the text encoders read for a batch.

    Each prompt and picture goes through its encoder alone. In a batch the last bits would depend on what shares the
    batch, and a store would remember the order in which it was filled.
    """
    counts, seen, done = Encoded(), set[str](), 0
    for batch in batches:
        texts = _unseen({text_fingerprint(text): text for text in read_texts(batch)}, seen)
        new_texts = [prompt for prompt in texts if not store.has_text(prompt)]
        for prompt in new_texts:
            text_NLC, pooled_NC = prompts.encode([prompt])
            store.put_text(prompt, text_NLC[0], pooled_NC[0])

        prepared = [picture for pictures in batch.references for picture in prepare(pictures)]
        references = _unseen({of_picture(picture): picture for picture in prepared}, seen)
        new_references = [picture for picture in references if not store.has_reference(picture)]
        for picture in new_references:
            store.put_reference(picture, codec.encode([picture])[0])

        counts.texts_made += len(new_texts)
        counts.texts_kept += len(texts) - len(new_texts)
        counts.references_made += len(new_references)
        counts.references_kept += len(references) - len(new_references)
        done += len(batch)
        if progress is not None:
            progress(done)
    return counts


def _unseen(items: dict[str, _T], seen: set[str]) -> list[_T]:
    """The items whose fingerprint was not seen before; from now on it is."""
    new = [item for fingerprint, item in items.items() if fingerprint not in seen]
    seen.update(items)
    return new


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:77] + "..."


def _write(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` in one move. The partial file's name is this call's own: others may write too."""
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        with writing(path), partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
