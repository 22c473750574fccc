"""The toy world's held-out subjects and prompts as a benchmark, its pictures drawn into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from cgrpo.data import ToyboxSource, derive
from cgrpo.data.worlds import to_picture
from cgrpo.evaluation.benchmark.suite import Suite, SuiteRow
from cgrpo.evaluation.sampling import check_pictures
from cgrpo.files import save_picture, writing
from cgrpo.rewards.base import to_pictures
from cgrpo.scores import PROPERTY
from cgrpo.toybox import drawing, world
from cgrpo.toybox.judges import Case
from cgrpo.toybox.pair import PairCase

VIEWS = 4  # references drawn of each subject: the one that the policy sees, and more to compare with


def toybox_suite(folder: Path, split: str, dial: float, subjects: int, prompts: int, *, draw: bool = True) -> Suite:
    """``subjects`` x ``prompts`` held-out tasks: those of training's evaluation, where the counts are equal.

    Drawn into ``folder`` (with ``draw``), where they aren't there yet: SUBJECT/00.png to 03.png on a plain ground,
    of which 00 is the reference, and SUBJECT/real-PP.png as the prompt asks, the rows' targets. Raises UserError.
    """
    source = ToyboxSource(0, split, dial, prompts)
    count = subjects * prompts
    cases = source.cases(range(count))
    rows = task_rows(cases, prompts)
    views = {row.subject: _views(row.subject) for row in rows}
    conditions = {"benchmark": "toybox", "split": split, "dial": dial, "subjects": subjects, "prompts": prompts}
    if draw:
        _draw(folder, conditions, source, rows, views)
    return Suite("Toybox", folder, rows, views, conditions)


def task_rows(cases: Sequence[Case | PairCase], prompts: int) -> list[SuiteRow]:
    """The rows of held-out tasks, ``prompts`` of them in succession on one subject, or on one pair of subjects."""
    if cases and isinstance(cases[0], PairCase):
        return [_pair_row(number, case, prompts) for number, case in enumerate(cases) if isinstance(case, PairCase)]
    names = [f"toy{number // prompts:02d}" for number in range(len(cases))]
    return [
        SuiteRow(
            number,
            (name,),
            (world.PHRASE,),
            _views(name)[:1],
            number % prompts,
            case.prompt.texts()[0],
            subject_kind=world.PATTERNS[int(case.subject.pattern_B[0])],
            prompt_kind=PROPERTY if case.prompt.property_B[0] > 0 else "plain",
            target=f"{name}/real-{number % prompts:02d}.png",
            case=case,
        )
        for number, (name, case) in enumerate(zip(names, cases, strict=True))
        if isinstance(case, Case)
    ]


def _pair_row(number: int, case: PairCase, prompts: int) -> SuiteRow:
    names = tuple(f"toy{2 * (number // prompts) + which:02d}" for which in range(2))
    references = tuple(_views(name)[0] for name in names)
    return SuiteRow(number, names, case.phrases(), references, number % prompts, case.text(), case=case)


def _views(name: str) -> tuple[str, ...]:
    return tuple(f"{name}/{view:02d}.png" for view in range(VIEWS))


def _draw(
    folder: Path,
    conditions: dict[str, Any],
    source: ToyboxSource,
    rows: list[SuiteRow],
    views: dict[str, tuple[str, ...]],
) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        check_pictures(folder, conditions, write=True)
        for number, (name, files) in enumerate(views.items()):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for view, file in enumerate(files):
                if not (folder / file).is_file():
                    save_picture(_view(source, number, view), folder / file)
        for row in rows:
            assert row.target is not None
            if not (folder / row.target).is_file():
                save_picture(to_pictures(source.oracle([row.number]))[0], folder / row.target)


def _view(source: ToyboxSource, subject: int, view: int) -> Image.Image:
    """The reference that the policy is shown, or a further one."""
    if view == 0:
        return source.batch([subject * source.per_subject]).references[0][0]
    rng = derive("toybox", source.seed, source.split, "view", subject, view)
    return to_picture(drawing.draw_references(source.cases([subject * source.per_subject])[0].subject, rng)[0][0])
