"""A study's folder: manifest, anonymous pictures, one link per rater; and how many answers a study needs."""

import math
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from scipy import stats

from cgrpo.errors import UserError
from cgrpo.files import reading, whole_folder, write_text, writing
from cgrpo.study import pictures
from cgrpo.study.database import create_store
from cgrpo.study.design import PickedTask, Sources, pick_pairs, pick_singles, plan_lists, read_sources
from cgrpo.study.gates import Gates, default_checks, rules
from cgrpo.study.manifest import Arm, Item, Mode, Question, Shown, Study, write_study
from cgrpo.study.pictures import Shelf, Size
from cgrpo.study.statistics.intervals import FEWEST
from cgrpo.text import is_address, read_text

WITHIN = 0.3  # correlation of two raters' answers to an item, assumed until a study has measured it
POWER, LEVEL = 0.8, 0.05
MOST = 8  # raters an item


def item_variance(wins: float, ties: float, raters: int, within: float = WITHIN) -> float:
    """Variance of an item's mean score (win 1, tie 1/2, loss 0) over items, ``raters`` answers each.

    ``wins``: share of wins among answers that are no tie; ``ties``: share of ties; ``within``: correlation of two
    raters' answers to the same item.
    """
    decided = 1 - ties
    one = decided * (wins * (1 - wins) + (wins - 0.5) ** 2) - (decided * (wins - 0.5)) ** 2
    return one * (1 + (raters - 1) * within) / raters


def items_needed(
    wins: float = 0.55, raters: int = 3, ties: float = 0.0, within: float = WITHIN, power: float = POWER
) -> int:
    """Items at which a two-sided test at 5 % finds a win share of ``wins`` : 1 - ``wins`` with ``power``."""
    effect = (1 - ties) * abs(wins - 0.5)
    chance, preferred = (math.sqrt(item_variance(share, ties, raters, within)) for share in (0.5, wins))
    return math.ceil(((stats.norm.ppf(1 - LEVEL / 2) * chance + stats.norm.ppf(power) * preferred) / effect) ** 2)


def detectable(items: int, raters: int, ties: float = 0.0, within: float = WITHIN) -> float:
    """The share of wins, above one half, that ``items`` find with 80 % power; 1.0 where not even that is found."""
    low, high = 0.5, 1.0
    if items_needed(high - 1e-9, raters, ties, within) > items:
        return 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if items_needed(middle, raters, ties, within) <= items else (middle, high)
    return high


def power_table(items: int, raters: int, subjects: int) -> dict[str, Any]:
    """What ``create`` says: items that 55 : 45 takes by raters an item, and what this study can tell apart."""
    share = detectable(items, raters)
    return {
        "assumed": {"correlation of two raters within an item": WITHIN, "power": POWER, "level": LEVEL, "ties": 0.0},
        "items for 55 : 45, by raters per item": {str(r): items_needed(0.55, r) for r in range(1, MOST + 1)},
        "items": items,
        "subjects": subjects,
        "raters per item": raters,
        "tells apart": [round(100 * share, 1), round(100 * (1 - share), 1)],
    }


def power_line(table: dict[str, Any]) -> str:
    """One sentence for a person."""
    needed = table["items for 55 : 45, by raters per item"]
    high, low = table["tells apart"]
    shown: Sequence[str] = [f"{needed[r]} items at {r}" for r in ("1", "3", "8")]
    if table["subjects"] < FEWEST:
        return f"no verdict is possible: pictures of {table['subjects']} of the {FEWEST} subjects that one needs"
    return (
        f"power 80 %: {table['items']} items x {table['raters per item']} raters tell {high:g} : {low:g} apart; "
        f"55 : 45 takes {', '.join(shown)} raters an item (no ties, correlation {WITHIN:g} within an item)"
    )


LINKS = "links.txt"
QUESTIONS: dict[Mode, tuple[Question, ...]] = {
    "pairwise": (
        Question("identity", "Which picture's subject looks more like the one in the reference?"),
        Question("prompt", "Which picture follows the prompt better and is of better quality?"),
    ),
    "rating": (
        Question(
            "identity", "How much does the subject look like the one in the reference? (0: not at all, 5: the same)"
        ),
        Question(
            "prompt", "How well does the picture follow the prompt, and how good is it? (0: not at all, 5: fully)"
        ),
    ),
}
CONSENT = """\
You will see pictures made by computer programs and say what you think of them. There is no right taste.

Stored are your answers and when you gave them, under a number; no name, no address, nothing about your device. You \
may stop at any time and go on later with the same link, and you may have all of your answers deleted by writing to \
whoever sent you the link."""


@dataclass(frozen=True)
class StudyRequest:
    """What ``create`` is asked. checks: None for 5 % of a rater's items, 5 at least; tutorial: a file of items, or None
    for four made from the pictures; url: where raters will reach the server, for the links."""

    methods: Sequence[str] = ()
    mode: Mode = "pairwise"
    items: int = 200
    raters: int = 8
    per_item: int = 3
    checks: int | None = None
    tutorial: Path | None = None
    pass_mark: float = 0.75
    consent: str = CONSENT
    completion_code: str = ""
    url: str = "http://127.0.0.1:8421"
    seed: int = 0


def create_study(scores: Path, out: Path, ask: StudyRequest) -> Study:
    """Draw and freeze a study of what ``cgrpo evaluate`` wrote to ``scores``, in the new folder ``out``.

    There: study.json, pictures/, the database answers.sqlite, and links.txt with the raters' links and the
    administrator's, which are nowhere else. The design is a function of ``ask.seed``; ids and links are random. Raises
    UserError.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already; give a new folder as --out")
    if not 1 <= ask.per_item <= min(8, ask.raters):
        raise UserError(f"--raters-per-item {ask.per_item}: give 1 to {min(8, ask.raters)}, of {ask.raters} raters")
    if not is_address(ask.url) or urlsplit(ask.url).path.strip("/"):
        raise UserError(
            f"--url {ask.url}: links to it would lead nowhere",
            "give a server's address, such as https://study.example.org",
        )
    rng = np.random.default_rng(ask.seed)
    sources = read_sources(scores, ask.methods)
    pick = pick_pairs if ask.mode == "pairwise" else pick_singles
    picked = pick(sources.tasks, sources.methods, ask.items, rng)
    with whole_folder(out) as partial:
        return _write(partial, sources, picked, ask, rng)


def _write(
    folder: Path, sources: Sources, picked: Sequence[PickedTask], ask: StudyRequest, rng: np.random.Generator
) -> Study:
    shelf = Shelf(folder)
    size = pictures.common_size([file for one in picked for file in one.files])
    checks = default_checks(len(picked) * ask.per_item / ask.raters) if ask.checks is None else ask.checks
    gates = Gates(sources, shelf, size, ask.mode, rng)
    items = [_item(one, sources, shelf, size) for one in picked]
    items += gates.checks(checks)
    plan = plan_lists(len(picked), checks, ask.raters, ask.per_item, rng)
    lists = tuple(tuple(Shown(items[place].id, left) for place, left in one) for one in plan)
    items += gates.own_tutorial(ask.tutorial) if ask.tutorial else gates.tutorial()
    subjects = len({one.task.subject for one in picked})
    study = Study(
        name=sources.benchmark,
        mode=ask.mode,
        seed=ask.seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        methods=sources.methods,
        questions=QUESTIONS[ask.mode],
        consent=ask.consent,
        completion_code=ask.completion_code,
        rules=rules(ask.mode, checks, ask.pass_mark),
        raters_per_item=ask.per_item,
        items=tuple(items),
        lists=lists,
        hashes=shelf.hashes,
        source={"scores": str(sources.folder.resolve()), "picture size": list(size), "left out": sources.left_out},
        power=power_table(len(picked), ask.per_item, subjects) if ask.mode == "pairwise" else {},
    )
    write_study(folder, study)
    tokens = [secrets.token_hex(24) for _ in range(ask.raters + 1)]
    create_store(folder, tokens[1:], tokens[0])
    base = ask.url.rstrip("/")
    lines = [f"administrator: {base}/admin/{tokens[0]}/"]
    lines += [f"rater {number}: {base}/r/{token}/" for number, token in enumerate(tokens[1:], 1)]
    write_text(folder / LINKS, "\n".join(lines) + "\n")
    (folder / LINKS).chmod(0o600)
    return study


def move_links(folder: Path, port: int) -> bool:
    """Give the links in links.txt that lead to this machine the ``port`` of its server; whether that changed them."""
    file = folder / LINKS
    with reading(file), writing(file):
        text = read_text(file) if file.exists() else ""
        moved = re.sub(r"(?<=: )http://(127\.0\.0\.1|localhost)(:\d+)?(?=/)", rf"http://\1:{port}", text)
        if moved != text:
            write_text(file, moved)
            file.chmod(0o600)
    return moved != text


def _item(picked: PickedTask, sources: Sources, shelf: Shelf, size: Size) -> Item:
    task = picked.task
    shown = [pictures.whole(pictures.load(file), size) for file in picked.files]
    arms = [Arm(method, seed, str(file)) for (method, seed), file in zip(picked.arms, picked.files, strict=True)]
    references = sources.references[task.subject]
    return shelf.item("item", task.prompt, references, shown, arms, task.subject, prompt_index=task.prompt_index)
