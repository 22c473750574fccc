"""Weights that don't fit a model, told whole: libraries stop at the first fault, or only warn."""

from __future__ import annotations

from collections.abc import Collection

from cgrpo.errors import UserError


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


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:3])
