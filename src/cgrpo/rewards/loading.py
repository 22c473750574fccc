"""Strict loading of transformers checkpoints from a folder."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from cgrpo.errors import UserError


def load_pretrained(kind: type, folder: Path):
    """``kind.from_pretrained(folder)`` from local safetensors, fp32, frozen; any missing or extra key is an error."""
    if not Path(folder).is_dir():
        raise UserError(f"reward checkpoint {folder}: no such folder; give the folder of a transformers checkpoint")
    try:
        if not issubclass(kind, PreTrainedModel):
            return kind.from_pretrained(str(folder), local_files_only=True)
        model, report = kind.from_pretrained(  # pyright: ignore
            str(folder), local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"reward checkpoint {folder}: {str(error).splitlines()[0]}") from error
    wrong = [
        f"{what}: {sorted(map(str, report[what]))}"
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if report[what]
    ]
    if wrong:
        raise UserError(f"reward checkpoint {folder} does not fit {kind.__name__}: " + "; ".join(wrong))
    return model.eval().requires_grad_(False)
