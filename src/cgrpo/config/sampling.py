"""The table ``sampling``: how pictures are made, held-out ones too, whatever the method."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cgrpo.section import Section


class Sampling(Section):
    steps: Annotated[int, Field(ge=2)] = 10
    """Denoising steps T (the paper: 25)."""
    shift: Annotated[float, Field(gt=0)] | Literal["flux", "uno", "flux2"] = 1.5
    """Sigma schedule: shift * s / (1 + (shift - 1) * s) of linspace(1, 0, T + 1) (the release: 3). "flux" computes
    the shift from the number of tokens as FLUX does, "uno" as UNO's pipeline does, "flux2" from tokens and steps as
    FLUX.2 does."""
