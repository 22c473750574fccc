"""From the table ``policy`` of a configuration to a policy: its family is the one that recognises the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from cgrpo.errors import UserError
from cgrpo.policies.base import Policy
from cgrpo.policies.checkpoints import transformer_class
from cgrpo.policies.encodings.store import Encoded
from cgrpo.policies.settings import POLICIES, PolicySettings
from cgrpo.section import TOYBOX_POLICIES
from cgrpo.types import Batch


def family_of(settings: PolicySettings, *, fetch: bool = True) -> type[Policy]:
    """The class of policies for ``settings``: what ``policy.type`` names, else whoever recognises the checkpoint.

    ``fetch`` downloads a checkpoint that is named on the hub; without it, its name must do. Raises UserError where no
    family recognises it, and for settings of another family.
    """
    name = settings.type or _recognised(settings, fetch)
    family = POLICIES.load(name)
    settings.refuse_foreign(name)
    return family


def _recognised(settings: PolicySettings, fetch: bool) -> str:
    here = fetch or settings.path in TOYBOX_POLICIES or Path(settings.path).exists()
    holds = transformer_class(settings) if here else ""
    for name in POLICIES.names():
        if POLICIES.load(name).recognises(holds, settings.path):
            return name
    raise UserError(
        f"policy.path = {settings.path}: no family of policies knows {holds or 'this checkpoint'}",
        f"give one of {', '.join(POLICIES.names())}, or name the family by policy.type",
    )


def make_policy(
    settings: PolicySettings,
    device: torch.device | str = "cpu",
    adapter: Path | None = None,
    *,
    seed: int = 0,
    cache: str = "",
    spread: bool = False,
    called: str = "",
) -> Policy:
    """The policy of ``settings``; see ``Policy.make``."""
    family = family_of(settings)
    return family.make(settings, device, adapter, seed=seed, cache=cache, spread=spread, called=called)


def make_encoder(
    settings: PolicySettings, out: Path, device: torch.device
) -> Callable[[Iterable[Batch], Callable[[int], object] | None], Encoded]:
    """What fills the store ``out`` with encodings; see ``Policy.make_encoder``."""
    return family_of(settings).make_encoder(settings, out, device)


def make_cut(settings: PolicySettings) -> Callable[[Sequence[str]], dict[str, list[int]]]:
    """What reports prompts that the text encoders don't read to the end; see ``Policy.make_cut``."""
    return family_of(settings).make_cut(settings)
