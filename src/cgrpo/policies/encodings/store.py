"""Encodings made once and kept on disk, so that the text encoders need not be in memory while training.

A store is a folder: ``index.json`` says what the encodings depend on (``EncodingMark``), and each encoding is a
safetensors file named by its content:

    text/<sha256 of the prompt>.safetensors          text_LC, pooled_C
    references/<sha256 of the picture>.safetensors   latent_CHW

The picture is the reference as the autoencoder sees it, after resizing. Files appear whole or not at all, and equal
names hold equal encodings: several processes may fill one store, and a killed one is simply run again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import torch
from PIL.Image import Image
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from cgrpo.errors import UserError
from cgrpo.files import json_text
from cgrpo.policies.encodings.latents import LatentCodec, picture_key
from cgrpo.policies.encodings.mark import EncodingMark, Flux2Mark
from cgrpo.policies.encodings.text import Prompts
from cgrpo.tensor_files import tensor_bytes
from cgrpo.types import Batch

COMMAND = "cgrpo data encode"

_RANKS = {"text": {"text_LC": 2, "pooled_C": 1}, "references": {"latent_CHW": 3}}
_T = TypeVar("_T")


class EncodingStore:
    """One folder of encodings; see the module's text for its files."""

    def __init__(self, folder: Path, mark: EncodingMark | Flux2Mark) -> None:
        self.folder, self.mark = folder, mark

    @classmethod
    def create(cls, folder: Path, mark: EncodingMark | Flux2Mark) -> EncodingStore:
        """The store in ``folder``, new or to be filled further.

        Raises UserError if the folder holds something else, or encodings of another mark.
        """
        index = folder / "index.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            others = [item.name for item in folder.iterdir() if item.suffix != ".partial"]
        except OSError as error:
            raise UserError(f"{folder}: can't hold a store of encodings ({error.strerror}); name a folder") from error
        if not index.exists():  # asked after listing: the index is written first, should another process create it too
            if others:
                raise UserError(f"{folder}: holds other files ({others[0]}); give {COMMAND} an empty folder")
            _write(index, json_text(asdict(mark), indent=2).encode())
        store = cls.open(folder, mark)
        for kind in _RANKS:
            (folder / kind).mkdir(exist_ok=True)
        return store

    @classmethod
    def open(cls, folder: Path, mark: EncodingMark | Flux2Mark) -> EncodingStore:
        """The store in ``folder``. Raises UserError if there is none, or saying what differs from ``mark``."""
        index = folder / "index.json"
        try:
            found = json.loads(index.read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            raise UserError(f"{folder}: no store of encodings (it has no index.json); fill it with {COMMAND}") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{index}: can't be read ({error}); delete the folder and run {COMMAND} again") from error
        if not isinstance(found, dict) or not found.keys() >= {field.name for field in fields(mark)}:
            raise UserError(f"{index}: is no index of this policy's encodings; give the folder that {COMMAND} filled")
        differ = [
            f"{name.replace('_', ' ')} {str(found[name])[:12]} instead of {str(wanted)[:12]}"
            for name, wanted in asdict(mark).items()
            if found[name] != wanted
        ]
        if differ:
            raise UserError(
                f"{folder}: its encodings are of another making ({', '.join(differ)}); encode again into an empty "
                f"folder with {COMMAND}"
            )
        return cls(folder, mark)

    def has_text(self, prompt: str) -> bool:
        return self._path("text", text_key(prompt)).exists()

    def has_reference(self, picture: Image) -> bool:
        return self._path("references", picture_key(picture)).exists()

    def text(self, prompt: str) -> tuple[Tensor, Tensor]:
        """(text_LC, pooled_C) of ``prompt``, on the CPU. Raises UserError if it is not stored or its file is broken."""
        found = self._read("text", text_key(prompt))
        if found is None:
            raise UserError(
                f"{self.folder}: the prompt {_short(prompt)!r} is not encoded; run {COMMAND} over these tasks first"
            )
        return found["text_LC"], found["pooled_C"]

    def reference(self, picture: Image) -> Tensor | None:
        """latent_CHW of a picture ready for the autoencoder, on the CPU, or None; raises UserError as ``text``."""
        found = self._read("references", picture_key(picture))
        return None if found is None else found["latent_CHW"]

    def put_text(self, prompt: str, text_LC: Tensor, pooled_C: Tensor) -> None:
        tensors = {"text_LC": text_LC, "pooled_C": pooled_C}
        self._save("text", text_key(prompt), tensors, {"prompt": prompt})

    def put_reference(self, picture: Image, latent_CHW: Tensor) -> None:
        self._save("references", picture_key(picture), {"latent_CHW": latent_CHW}, {})

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / kind / f"{key}.safetensors"

    def _read(self, kind: str, key: str) -> dict[str, Tensor] | None:
        path = self._path(kind, key)
        try:
            tensors = load(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(
                f"{path}: can't be read ({_short(str(error))}); delete it and run {COMMAND} again"
            ) from error
        if {name: tensor.ndim for name, tensor in tensors.items()} != _RANKS[kind]:
            raise UserError(f"{path}: holds {sorted(tensors)}, no encoding; delete it and run {COMMAND} again")
        return tensors

    def _save(self, kind: str, key: str, tensors: dict[str, Tensor], notes: dict[str, str]) -> None:
        _write(self._path(kind, key), tensor_bytes(tensors, notes))


class StoredPrompts:
    """``text.PromptEncoder`` from a store: the same ``encode``, without the encoders."""

    modules: tuple[nn.Module, ...] = ()  # nothing to move between devices

    def __init__(self, store: EncodingStore, device: torch.device | str = "cpu") -> None:
        self.store, self.device = store, device

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(text_NLC, pooled_NC) of N prompts, on ``device``. Raises UserError naming a prompt that is not stored."""
        unique = {prompt: self.store.text(prompt) for prompt in dict.fromkeys(prompts)}
        text, pooled = zip(*(unique[prompt] for prompt in prompts), strict=True)
        return torch.stack(text).to(self.device), torch.stack(pooled).to(self.device)

    def cut(self, prompts: Sequence[str]) -> dict[str, list[int]]:
        return {}


@dataclass
class Encoded:
    """How many distinct encodings ``encode_records`` made, and how many it found in the store."""

    texts_made: int = 0
    texts_kept: int = 0
    references_made: int = 0
    references_kept: int = 0


@torch.no_grad()
def encode_records(
    batches: Iterable[Batch],
    prompts: Prompts,
    codec: LatentCodec,
    store: EncodingStore,
    prepare: Callable[[Sequence[Image]], list[Image]],
    progress: Callable[[int], object] | None = None,
) -> Encoded:
    """Put the prompts and references of all tasks into ``store``, each once; what it holds is not made again.

    ``batches`` are read one by one, so that pictures needn't all be in memory. ``prepare`` turns a task's references
    into the RGB pictures the autoencoder sees; ``progress`` is called with the number of tasks done so far.

    Each prompt and picture goes through its encoder alone. In a batch the last bits would depend on what shares the
    batch, and a store would remember the order in which it was filled.
    """
    if codec.posterior != store.mark.reference_latents:
        raise ValueError(f"the codec encodes the {codec.posterior}, the store holds the {store.mark.reference_latents}")
    counts, seen, done = Encoded(), set[str](), 0
    for batch in batches:
        texts = _unseen({text_key(prompt): prompt for prompt in batch.prompts}, seen)
        new_texts = [prompt for prompt in texts if not store.has_text(prompt)]
        for prompt in new_texts:
            text_NLC, pooled_NC = prompts.encode([prompt])
            store.put_text(prompt, text_NLC[0], pooled_NC[0])

        prepared = [picture for pictures in batch.references for picture in prepare(pictures)]
        references = _unseen({picture_key(picture): picture for picture in prepared}, seen)
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


def text_key(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()


def _unseen(items: dict[str, _T], seen: set[str]) -> list[_T]:
    """The items whose key was not seen before; from now on it is."""
    new = [item for key, item in items.items() if key not in seen]
    seen.update(items)
    return new


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:77] + "..."


def _write(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` in one move. The partial file's name is this call's own: others may write too."""
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{path}: can't be written ({error.strerror}); mend that and run {COMMAND} again") from error
