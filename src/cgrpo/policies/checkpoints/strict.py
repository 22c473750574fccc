"""Weights that don't fit a model, told whole: libraries stop at the first fault, or only warn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

from safetensors import safe_open
from torch import Tensor

from cgrpo.errors import UserError

Part = TypeVar("Part")


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
        raise UserError(f"{where}: {'; '.join(filter(None, faults))}; {cure}")


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


def refuse_integers(file: Path) -> None:
    """Raise a UserError where a safetensors file holds weights of whole numbers: read as they are, their scale is lost.

    Long ones are positions and counts. Raises SafetensorError as the library does.
    """
    with safe_open(file, "pt") as opened:
        for key in opened.keys():  # noqa: SIM118
            kind = opened.get_slice(key).get_dtype()
            if kind in ("I8", "U8", "I16", "U16"):
                raise UserError(f"{file}: {key} holds {kind} numbers, whose scale is unknown; give weights in floats")


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:3])


class Faults:
    """What was wrong with several parts, told together."""

    def __init__(self) -> None:
        self._told: list[str] = []

    def kept(self, load: Callable[[], Part]) -> Part:
        """What ``load`` returns; where it fails, nothing is returned and ``tell`` will raise."""
        try:
            return load()
        except UserError as error:
            self._told.append(str(error))
            return None  # pyright: ignore[reportReturnType]

    def tell(self) -> None:
        """Raises UserError if anything failed."""
        if self._told:
            raise UserError(" | ".join(self._told))
