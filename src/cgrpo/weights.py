"""Stock models read strictly: every weight is there, used, of the right shape and finite, where libraries only warn."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgrpo.errors import UserError


def read_model(
    kind: Any, folder: Path, dtype: torch.dtype, *, where: object, cure: str, spare: str = "(?!)", **options: Any
) -> Any:
    """The model of class ``kind`` in ``folder``, of diffusers or transformers, on the CPU in ``dtype``.

    spare     a regular expression of weights that published checkpoints carry beside this model's
    options   of ``from_pretrained``
    Raises UserError that opens with ``where`` and names every weight at fault; of files, what the library raises.
    """
    with _quiet(kind.__module__.partition(".")[0]):
        model, report = kind.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the report has them all at once
            dtype=dtype,
            **options,
        )
    refuse_misfit(
        where,
        missing=report["missing_keys"],
        unknown=[key for key in report["unexpected_keys"] if not re.fullmatch(spare, key)],
        misshapen=[misshapen(key, there, here) for key, there, here in report["mismatched_keys"]],
        cure=cure,
    )
    refuse_not_finite(folder, model.state_dict())
    return model


@contextmanager
def _quiet(library: str) -> Iterator[None]:
    """Without the library's own report of what did not fit: ours is an error, and names less that doesn't matter."""
    log = importlib.import_module(f"{library}.utils.logging")
    level = log.get_verbosity()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(level)


def misshapen(key: str, there: Iterable[int], here: Iterable[int]) -> str:
    """A weight of another shape, for ``refuse_misfit``."""
    return f"{key} ({list(there)} instead of {list(here)})"


def refuse_misfit(
    where: object, missing: Collection[str], unknown: Collection[str], misshapen: Collection[str], cure: str
) -> None:
    """Raise a UserError that counts and shows the faults of all three kinds, if there are any."""
    faults = [
        f"lacks {len(missing)} weights, such as {_some(missing)}" if missing else "",
        f"has {len(unknown)} unknown weights, such as {_some(unknown)}" if unknown else "",
        f"has {len(misshapen)} weights of another shape, such as {_some(misshapen)}" if misshapen else "",
    ]
    if any(faults):
        raise UserError(f"{where}: {'; '.join(filter(None, faults))}", cure)


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:3])


def refuse_not_finite(where: object, state: Mapping[str, Tensor]) -> None:
    """Raise a UserError that names the first tensor with a NaN or an infinity in it; integers are finite."""
    for key, value in state.items():
        if not (value.is_floating_point() and value.numel()):
            continue
        # The sum of squares would overflow; extremes show both, and need no mask as large as the tensor.
        wide = value.float() if value.itemsize == 1 else value
        if not all(extreme.isfinite() for extreme in wide.aminmax()):
            raise UserError(
                f"{where}: {key} holds NaN or infinity; it was damaged in training or copying, give another"
            )
