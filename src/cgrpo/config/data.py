"""The table ``data``: the tasks that are trained on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cgrpo.section import TOYBOX, Place, Section, Share


class Data(Section):
    source: Place = TOYBOX
    """A data set of prompts and references (a file or folder in any layout of docs/data.md), or "toybox"."""
    root: Place = ""
    """Folder of the data set's pictures, where they don't lie beside its file; for the release's subset, SynCD's."""
    limit: Annotated[int, Field(ge=0)] = 0
    """The data set's first so many tasks; 0 is all of them. Of the toy world, which has no end, as many."""
    cache: Place = ""
    """Folder that `cgrpo data encode` filled: the text encoders are not loaded then."""
    dial: Share = 0.35
    """Toybox only: share of prompts that ask for a property ("a red toy") and so compete with identity."""
