"""Strict loading of transformers checkpoints from a folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel

from cgrpo.errors import UserError

Kind = TypeVar("Kind")
SHOWN = 3  # keys named in an error


def load_pretrained(kind: type, folder: Path, *, pooler: bool = True):
    """``kind.from_pretrained(folder)`` from local safetensors, fp32, frozen, on the CPU.

    ``pooler`` False: a model that has one by default is built without it.
    Raises UserError when anything is missing or broken, or any weight is missing, left over or of another shape.
    """
    if not Path(folder).is_dir():
        raise UserError(f"reward checkpoint {folder}: no such folder; give the folder of a transformers checkpoint")
    given: dict[str, Any] = {} if pooler else {"add_pooling_layer": False}
    try:
        if not issubclass(kind, PreTrainedModel):
            return kind.from_pretrained(str(folder), local_files_only=True)
        model, report = kind.from_pretrained(  # pyright: ignore
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported with the rest, below
            **given,
        )
    except Exception as error:  # a broken file or configuration shows in many ways
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"reward checkpoint {folder}: {kind.__name__} can't be read ({type(error).__name__}: {reason}); "
            "give a complete transformers folder with safetensors weights (`cgrpo rewards convert` makes them of a "
            "pytorch_model.bin)"
        ) from error
    mismatched = [f"{key} {list(has)}, not {list(needs)}" for key, has, needs in report["mismatched_keys"]]
    check_fit(folder, kind.__name__, report["missing_keys"], report["unexpected_keys"], mismatched)
    return model.eval().requires_grad_(False)


def check_fit(
    where: Path, model: str, missing: Iterable[str], extra: Iterable[str], mismatched: Iterable[str] = ()
) -> None:
    """Raise one UserError that names the weights of ``where`` which do not fit ``model``; none wrong, no error."""
    groups = {"missing": missing, "left over": extra, "of another shape": mismatched}
    named = {what: sorted(map(str, keys)) for what, keys in groups.items()}
    wrong = [f"{len(keys)} {what} ({_few(keys)})" for what, keys in named.items() if keys]
    if wrong:
        raise UserError(
            f"reward checkpoint {where} does not fit {model}; weights {', '.join(wrong)}; "
            "give the checkpoint that belongs to the configuration beside it"
        )


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")


def model_type(folder: Path) -> str:
    """``model_type`` of the folder's config.json. Raises UserError when it can't be read."""
    path = Path(folder) / "config.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8-sig"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"reward checkpoint {folder}: config.json can't be read or names no model_type "
            f"({type(error).__name__}); give the folder of a transformers checkpoint"
        ) from error


def choose(folder: Path, kinds: dict[str, Kind], part: str) -> Kind:
    """The entry of ``kinds`` for the folder's model type. Raises UserError naming the types that are known."""
    found = model_type(folder)
    if found not in kinds:
        raise UserError(f"{part} {folder}: its config.json says model_type {found!r}; known are {', '.join(kinds)}")
    return kinds[found]
