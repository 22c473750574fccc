"""`cgrpo data prompts`: a person's photos of one subject as training and held-out tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cgrpo.data.own_subject import Template, photos_in, read_templates, set_apart, tasks, write_tasks
from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.dreambench import is_live, templates


def write_own(
    folder: Path,
    subject: str,
    out: Path,
    *,
    prompts: Path | None = None,
    kind: Literal["live", "object"] | None = None,
    count: int = 0,
    heldout: int = 8,
    references: int = 1,
) -> list[str]:
    """``out``, and beside it ``NAME.heldout.json`` with the held-out prompts; returns what to say of them.

    Raises UserError before anything is written.
    """
    subject = subject.strip()
    if not subject:
        raise UserError("--subject: say what the photos show in a word or two, such as dog")
    if out.suffix != ".json":
        raise UserError(f"--out {out}: the data set is a .json file; give it that ending")
    photos, notes = photos_in(folder)
    kind = kind or ("live" if is_live(subject) else "object")
    given = read_templates(prompts) if prompts else [Template(text, k) for text, k in templates(kind)]
    training, apart = set_apart(given, heldout)
    shared = {"subject_kind": "" if prompts else kind, "references": references}
    rows = tasks(photos, subject, training, out.parent, name="train", count=count, **shared)
    held = tasks(photos, subject, apart, out.parent, name="heldout", **shared)
    write_tasks(out, rows)
    said = [*notes, f"{out}: {len(rows)} tasks, {len(training)} prompts x {len(photos)} photos of a {subject}"]
    if not held:
        return said
    beside = out.with_suffix(".heldout.json")
    write_tasks(beside, held)
    said.append(f"{beside}: {len(held)} tasks with {len(apart)} prompts that are never trained on")
    said.append(f"next: cgrpo data check {out}, and train with --set data.source={out} --set guard.source={beside}")
    return said
