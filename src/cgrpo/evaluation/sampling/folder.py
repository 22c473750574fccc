"""Pictures kept in a folder, with all that made them beside them: those made in different ways never mix."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.files import json_text, write_text
from cgrpo.policies.base import Policy

MARK = "generation.json"


def describe_pictures(policy: Policy, sigmas: Tensor | None, alone: bool = False) -> dict[str, Any]:
    """All that a policy's pictures depend on but for prompts, references and noise; to be asked before it is sharded.

    ``alone``: of the reference policy, which sees prompts without references. ``sigmas`` None: of nothing sampled.
    """
    with policy.reference() if alone else nullcontext():
        mark = policy.mark()
    if sigmas is None:
        return mark
    return mark | {"references": not alone, "sigmas": [round(sigma, 6) for sigma in sigmas.tolist()]}


def check_mark(folder: Path, mark: Mapping[str, Any], write: bool) -> None:
    """Raises UserError where ``folder`` holds pictures of another mark; without any, ``write`` marks it."""
    file = folder / MARK
    if not file.is_file():
        if write:
            write_text(file, json_text(mark, indent=1) + "\n")
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8-sig"))
        if not isinstance(before, dict):
            raise ValueError("no table")
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: can't be read ({error}); give another --method or --out") from None
    unsaid = [key for key in mark if key not in before]
    if unsaid:
        raise UserError(
            f"{folder} holds pictures of an earlier version, which didn't write down their {', '.join(unsaid)}; "
            "score them with --images, or give another --method or --out"
        )
    other = [key for key in mark if before[key] != mark[key]]
    if other:
        raise UserError(f"{folder} holds pictures made with another {', '.join(other)}; give another --method or --out")
