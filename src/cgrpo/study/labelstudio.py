"""A study's pages as Label Studio's tasks, and its export as a study's answers.

Two ``<Choices>`` with ties, each with a single ``toName``: with two, Label Studio loses the answers without a word. A
task is a place on a rater's list, so that sides stay balanced; it names no method, and no rater either.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from cgrpo.errors import UserError
from cgrpo.files import reading
from cgrpo.study.manifest import CHOICES, Mode, Study
from cgrpo.study.store import Response, Store
from cgrpo.text import is_address, parse_json, read_text

LABELS: dict[Mode, tuple[str, ...]] = {"pairwise": ("A", "Tie", "B"), "rating": CHOICES["rating"]}
ORIGIN = "label-studio"


def tasks(study: Study, url: str) -> list[dict[str, Any]]:
    """For Label Studio's import; ``url`` is where the study's pictures/ folder is served. Raises UserError."""
    if not is_address(url):
        raise UserError(f"--url {url}: pictures can't be served there", "give an address such as http://127.0.0.1:8099")
    items, base = study.by_id(), url.rstrip("/")
    most = _references(study)
    all_tasks = []
    for slot, shown in enumerate(study.lists, 1):
        for item_id, first_on_left in shown:
            item = items[item_id]
            order = item.pictures if first_on_left else item.pictures[::-1]
            # All tasks need as many references as the page has places for; a short list repeats its last.
            references = [*item.references, *[item.references[-1]] * (most - len(item.references))]
            data = {"item": item.id, "slot": slot, "prompt": item.prompt}
            data |= {f"reference{n}": f"{base}/{name}.png" for n, name in enumerate(references, 1)}
            data |= {name: f"{base}/{picture}.png" for name, picture in zip(_places(study), order, strict=True)}
            all_tasks.append({"data": data})
    return all_tasks


def config(study: Study) -> str:
    """The labelling interface."""
    shown = [f'<Image name="reference{n}" value="$reference{n}"/>' for n in range(1, _references(study) + 1)]
    row = [
        f'<View style="flex: 1"><Header value={quoteattr(title)}/>{body}</View>'
        for title, body in [
            ("Reference", "".join(shown)),
            *((f"Picture {label}".strip(), f'<Image name="{n}" value="${n}"/>') for n, label in _places(study).items()),
        ]
    ]
    choices = [
        f"<Header value={quoteattr(question.text)}/>\n"
        f'<Choices name="{question.id}" toName="{next(iter(_places(study)))}" choice="single" showInLine="true" '
        f'required="true">' + "".join(f'<Choice value="{label}"/>' for label in LABELS[study.mode]) + "</Choices>"
        for question in study.questions
    ]
    parts = ["<View>", '<Header value="$prompt"/>', '<View style="display: flex; gap: 1em">', *row, "</View>", *choices]
    return "\n".join([*parts, "</View>"]) + "\n"


def _places(study: Study) -> dict[str, str]:
    return {"left": "A", "right": "B"} if study.mode == "pairwise" else {"picture": ""}


def _references(study: Study) -> int:
    return max(len(item.references) for item in study.items)


@dataclass(frozen=True)
class Imported:
    """answers: new ones; skipped: annotations that were cancelled, incomplete, or a second one of the same person for
    an item; raters: people with any answer."""

    answers: int
    skipped: int
    raters: int


def import_export(study: Study, store: Store, file: Path) -> Imported:
    """Take what Label Studio exported as JSON. The same file again adds nothing. Raises UserError, Unavailable."""
    people: dict[str, dict[str, list[Response]]] = {}
    skipped = 0
    for number, task in enumerate(_read(file), 1):
        try:
            for who, answers in _annotations(study, task):
                by_item = people.setdefault(who, {})
                if answers is None or answers[0].item in by_item:
                    skipped += 1
                else:
                    by_item[answers[0].item] = answers
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise UserError(
                f"{file}, task {number}: {error!r}; export as JSON from the project that this study's tasks were put in"
            ) from None
    people = {who: by_item for who, by_item in people.items() if by_item}
    added = sum(
        store.import_answers(f"{ORIGIN} {who}", [one for answers in by_item.values() for one in answers])
        for who, by_item in people.items()
    )
    return Imported(added, skipped, len(people))


def _read(file: Path) -> list[Any]:
    with reading(file, "give what Label Studio exported as JSON"):
        table = parse_json(read_text(file))
        if not isinstance(table, list):
            raise ValueError("no list of tasks")
        return table


def _annotations(study: Study, task: Mapping[str, Any]) -> Iterator[tuple[str, list[Response] | None]]:
    """Of each annotation of a task who it is by, and its answers; None for one that counts for nothing."""
    item, slot = task["data"]["item"], int(task["data"]["slot"])
    if slot < 1:
        raise IndexError(f"slot {slot}")
    first_on_left = dict(study.lists[slot - 1])[item]
    names = dict(zip(LABELS[study.mode], study.choices, strict=True))
    for annotation in task["annotations"]:
        by = annotation["completed_by"]
        who = str(by["id"] if isinstance(by, Mapping) else by)  # a number: no names, no addresses
        who.encode()  # the database takes no half of a letter
        given = {
            result["from_name"]: names[result["value"]["choices"][0]]
            for result in annotation["result"]
            if result["type"] == "choices"
        }
        questions = [question.id for question in study.questions]
        if annotation.get("was_cancelled") or not given.keys() >= set(questions):
            yield who, None
            continue
        answered = datetime.fromisoformat(annotation["created_at"])
        shown = answered - timedelta(seconds=float(annotation.get("lead_time") or 0))
        times = shown.isoformat(timespec="milliseconds"), answered.isoformat(timespec="milliseconds")
        yield who, [Response(0, item, key, given[key], first_on_left, 1, *times) for key in questions]
