"""Who answered what, when, and on which side.

A correction supersedes an answer and overwrites nothing; the database itself refuses a second live answer to the same
question.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgrpo.errors import UserError
from cgrpo.study.database import DATABASE, Database, Unavailable, now, token_hash

IMPORTED = 1000  # raters from elsewhere are numbered from here on, so that none takes a forgotten one's number
_RATERS = "select number, origin, consented_at is not null, passed_at is not null from rater"
_LIVE = "select question, choice, revision from response where rater = ? and item = ? and superseded_at is null"
_INSERT = (
    "insert into response (rater, item, question, choice, first_on_left, revision, shown_at, answered_at) "
    "values (?, ?, ?, ?, ?, ?, ?, ?)"
)


class Stale(Exception):
    """The item was answered since the form was shown, and otherwise."""


@dataclass(frozen=True)
class Rater:
    """``origin``: "link 3", or where an imported one comes from."""

    number: int
    origin: str
    consented: bool
    passed: bool


@dataclass(frozen=True)
class Response:
    """A live answer; times are UTC in ISO 8601, ``shown_at`` of the item's last showing before it, if known."""

    rater: int
    item: str
    question: str
    choice: str
    first_on_left: bool
    revision: int
    shown_at: str | None
    answered_at: str


class Store(Database):
    """Methods raise Unavailable where the disk is full or the database locked."""

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self.reading() as db:
            return db.execute(query, values).fetchall()

    def is_administrator(self, token: str) -> bool:
        return bool(self._rows("select 1 from fact where name = 'administrator' and value = ?", token_hash(token)))

    def rater(self, token: str) -> Rater | None:
        """Whose link it is."""
        rows = self._rows(f"{_RATERS} where token_hash = ?", token_hash(token))
        return Rater(*rows[0][:2], *map(bool, rows[0][2:])) if rows else None

    def raters(self) -> list[Rater]:
        return [Rater(*row[:2], *map(bool, row[2:])) for row in self._rows(f"{_RATERS} order by number")]

    def consent(self, rater: int) -> None:
        with self.writing() as db:
            db.execute("update rater set consented_at = coalesce(consented_at, ?) where number = ?", [now(), rater])

    def attempts(self, rater: int) -> list[list[tuple[int, int]]]:
        """Of each try at the tutorial the (right, graded) answers so far."""
        rows = self._rows(
            "select attempt, correct, graded from tutorial where rater = ? order by attempt, position", rater
        )
        tries: list[list[tuple[int, int]]] = []
        for attempt, correct, graded in rows:
            while len(tries) < attempt:
                tries.append([])
            tries[attempt - 1].append((correct, graded))
        return tries

    def save_tutorial(
        self,
        rater: int,
        attempt: int,
        position: int,
        answers: Mapping[str, str],
        correct: int,
        graded: int,
        passed: bool,
    ) -> None:
        """The first answer to a place of a try counts; ``passed``: with it the tutorial is."""
        with self.writing() as db:
            row = (rater, attempt, position, json.dumps(dict(answers)), correct, graded, now())
            db.execute("insert or ignore into tutorial values (?, ?, ?, ?, ?, ?, ?)", row)
            if passed:
                db.execute("update rater set passed_at = coalesce(passed_at, ?) where number = ?", [now(), rater])

    def tutorial_answers(self, rater: int, attempt: int, position: int) -> dict[str, str]:
        query = "select answers from tutorial where rater = ? and attempt = ? and position = ?"
        rows = self._rows(query, rater, attempt, position)
        return json.loads(rows[0][0]) if rows else {}

    def show(self, rater: int, item: str) -> None:
        """Remember that the item was shown now."""
        with self.writing() as db:
            db.execute("insert or replace into shown values (?, ?, ?)", [rater, item, now()])

    def save(self, rater: int, item: str, answers: Mapping[str, str], first_on_left: bool, revision: int) -> None:
        """All answers to an item at once, or none. ``revision``: how often it had been answered when the form was made.

        The same form sent twice changes nothing. Raises Stale where it was answered otherwise since.
        """
        with self.writing() as db:
            live, latest = self.answers(rater, item)
            if live == dict(answers):
                return
            if latest != revision:
                raise Stale
            at = now()
            db.execute(
                "update response set superseded_at = ? where rater = ? and item = ? and superseded_at is null",
                [at, rater, item],
            )
            shown = db.execute("select at from shown where rater = ? and item = ?", [rater, item]).fetchone()
            db.executemany(
                _INSERT,
                [
                    (rater, item, question, choice, first_on_left, latest + 1, shown[0] if shown else None, at)
                    for question, choice in answers.items()
                ],
            )

    def answers(self, rater: int, item: str) -> tuple[dict[str, str], int]:
        """Live answers by question, and their revision (0: none yet)."""
        rows = self._rows(_LIVE, rater, item)
        return {row[0]: row[1] for row in rows}, max((row[2] for row in rows), default=0)

    def answered(self, rater: int) -> set[str]:
        """Items that the rater has answered."""
        query = "select distinct item from response where rater = ? and superseded_at is null"
        return {item for (item,) in self._rows(query, rater)}

    def responses(self) -> list[Response]:
        """All live answers, in order of arrival."""
        rows = self._rows(
            "select rater, item, question, choice, first_on_left, revision, shown_at, answered_at from response "
            "where superseded_at is null order by id"
        )
        return [Response(r, i, q, c, bool(left), revision, shown, at) for r, i, q, c, left, revision, shown, at in rows]

    def import_answers(self, origin: str, answers: Sequence[Response]) -> int:
        """Answers of a rater from elsewhere, whose ``rater`` is ignored; those already here are left. Returns how many
        were new."""
        with self.writing() as db:
            db.execute(
                "insert or ignore into rater (number, origin, consented_at, passed_at) values "
                "((select max(coalesce(max(number), 0), ?) + 1 from rater), ?, ?, ?)",
                [IMPORTED, origin, now(), now()],
            )
            number = db.execute("select number from rater where origin = ?", [origin]).fetchone()[0]
            before = db.total_changes
            db.executemany(
                _INSERT.replace("insert", "insert or ignore"),
                [
                    (number, one.item, one.question, one.choice, one.first_on_left, 1, one.shown_at, one.answered_at)
                    for one in answers
                ],
            )
            return db.total_changes - before

    def forget(self, number: int) -> int:
        """Everything of a rater, the link's hash too, overwritten on the disk. Returns how many answers that were."""
        with self.writing() as db:
            count = db.execute("delete from response where rater = ?", [number]).rowcount
            for table in ("shown", "tutorial"):
                db.execute(f"delete from {table} where rater = ?", [number])
            db.execute("delete from rater where number = ?", [number])
        with self.reading() as db:  # or the log would keep them until it is next folded in
            db.execute("pragma wal_checkpoint(truncate)")
        return count


@contextmanager
def open_store(folder: Path) -> Iterator[Store]:
    """A study's answers. Raises UserError where they can't be read or written."""
    store = Store(folder)
    try:
        yield store
    except Unavailable as error:
        raise UserError(f"{folder / DATABASE}: {error}; nothing was changed", error.cure) from None
    finally:
        store.close()
