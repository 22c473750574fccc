"""Whose a checkpoint is: the family of policies that recognises it."""

from __future__ import annotations

from pathlib import Path

from cgrpo.errors import UserError
from cgrpo.extensions import resolve
from cgrpo.policies.base import Policy
from cgrpo.policies.checkpoints import transformer_class
from cgrpo.policies.family import POLICIES
from cgrpo.policies.settings import PolicySettings
from cgrpo.section import TOYBOX_POLICIES


def family_of(settings: PolicySettings, *, fetch: bool = True) -> type[Policy]:
    """The class of policies for ``settings``: what ``policy.type`` names, else whoever recognises the checkpoint.

    ``fetch`` downloads a checkpoint that is named on the hub; without it, its name must do. Raises UserError where no
    family recognises it, and for settings of another family.
    """
    name = settings.type or _recognised(settings, fetch)
    family = resolve(POLICIES.load(name).policy)
    settings.refuse_foreign(name)
    return family


def _recognised(settings: PolicySettings, fetch: bool) -> str:
    here = fetch or settings.path in TOYBOX_POLICIES or Path(settings.path).exists()
    holds = transformer_class(settings) if here else ""
    for name in reversed(POLICIES.names()):  # the first takes what is only a name, or a single file
        if resolve(POLICIES.load(name).policy).recognises(holds, settings.path):
            return name
    raise UserError(
        f"policy.path = {settings.path}: no family of policies knows {holds or 'this checkpoint'}",
        f"give one of {', '.join(POLICIES.names())}, or name the family by policy.type",
    )
