"""Strict loading of published checkpoints: from local safetensors alone, every weight where it belongs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cgrpo.errors import UserError
from cgrpo.files import read_table, reading
from cgrpo.weights import misshapen, read_model, refuse_misfit, refuse_not_finite

Choice = TypeVar("Choice")
OWN = "give the checkpoint that belongs to the configuration beside it"


def load_pretrained(name: str, folder: Path, *, pooler: bool = True) -> Any:
    """A model, processor, tokenizer or configuration by its ``name`` in transformers.

    Models are in fp32, frozen, on the CPU.
    ``pooler`` False: a model that has one by default is built without it.
    Raises UserError when anything is missing or broken, or any weight is missing, left over, of another shape or NaN.
    """
    cls: Any = getattr(transformers, name)
    if not Path(folder).is_dir():
        raise UserError(f"reward checkpoint {folder}: no such folder", "give the folder of a transformers checkpoint")
    options: dict[str, Any] = {} if pooler else {"add_pooling_layer": False}
    try:
        if not issubclass(cls, PreTrainedModel):
            loaded = cls.from_pretrained(str(folder), local_files_only=True)
            if isinstance(loaded, PreTrainedTokenizerBase):
                _check_tokenizer(Path(folder), loaded)
            return loaded
        where, cure = f"reward checkpoint {folder} does not fit {name}", OWN
        model = read_model(cls, Path(folder), torch.float32, where=where, cure=cure, **options)
        return model.eval().requires_grad_(False)
    except UserError:
        raise
    except Exception as error:  # a broken file or configuration shows in many ways
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"reward checkpoint {folder}: {name} can't be read ({type(error).__name__}: {reason})",
            "give a complete transformers folder with safetensors weights (`cgrpo rewards convert` makes them of a "
            "pytorch_model.bin)",
        ) from error


def _check_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ValueError if it can't pad, or if its vocabulary is missing: transformers then makes an empty one."""
    if tokenizer.pad_token is None:
        raise ValueError("the tokenizer has no padding token")
    files = {"tokenizer_file": "tokenizer.json", **tokenizer.vocab_files_names}
    whole = folder / files.pop("tokenizer_file")
    pieces = [folder / name for name in files.values()] or [whole]
    if not (whole.is_file() or all(piece.is_file() for piece in pieces) or any(folder.glob("*.model"))):
        raise ValueError(f"the tokenizer's {whole.name} is missing")


@contextmanager
def reading_weights(path: Path, cure: str) -> Iterator[None]:
    """``reading``, for a safetensors file; ``cure`` also for one that is not there."""
    if not path.is_file():
        raise UserError(f"{path}: no such file", cure)
    with reading(path, cure):
        try:
            yield
        except SafetensorError as error:
            raise ValueError(" ".join(str(error).split())[:200]) from error


def load_weights(path: Path, cure: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, in fp32. Raises UserError."""
    with reading_weights(path, cure):
        return {key: value.float() for key, value in load_file(path).items()}


def check_fit(
    where: Path, model: str, needed: Mapping[str, Iterable[int]], stored: Mapping[str, Iterable[int]]
) -> None:
    """Raise one UserError that names the weights of ``where`` which do not fit ``model``; both are shapes by name."""
    both = [(key, list(stored[key]), list(needed[key])) for key in stored if key in needed]
    refuse_misfit(
        f"reward checkpoint {where} does not fit {model}",
        missing=needed.keys() - stored.keys(),
        unknown=stored.keys() - needed.keys(),
        misshapen=[misshapen(key, has, needs) for key, has, needs in both if has != needs],
        cure=OWN,
    )


def fill(model: nn.Module, state: Mapping[str, Tensor], where: Path, name: str) -> nn.Module:
    """``model`` (on the meta device) with exactly the weights of ``state``, frozen. Raises UserError."""
    check_fit(where, name, shapes(model.state_dict()), shapes(state))
    refuse_not_finite(where, state)
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def shapes(state: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """The shape of each weight by its name."""
    return {key: list(value.shape) for key, value in state.items()}


def model_type(folder: Path) -> str:
    """``model_type`` of the folder's config.json. Raises UserError when it can't be read."""
    path = Path(folder) / "config.json"
    return str(read_table(path, "give the folder of a transformers checkpoint").get("model_type", ""))


def choose(folder: Path, choices: Mapping[str, Choice], part: str) -> Choice:
    """The choice for the folder's model type. Raises UserError that names the types it can be."""
    name = model_type(folder)
    if name not in choices:
        raise UserError(
            f"{part} checkpoint {folder}: its config.json says model_type {name!r}; known are {', '.join(choices)}"
        )
    return choices[name]
