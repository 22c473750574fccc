"""``answers.sqlite`` itself: schema, transactions, backup. Write-ahead log, one writer at a time.

What a transaction returned from is on the disk: each is synchronised before it returns.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from cgrpo.errors import UserError
from cgrpo.fingerprint import of_text
from cgrpo.study.manifest import manifest_fingerprint

DATABASE = "answers.sqlite"
WAIT = 3.0  # seconds for another writer
SCHEMA = """
create table fact (name text primary key, value text not null) strict;
create table rater (
    number integer primary key, origin text not null unique, token_hash text unique, consented_at text, passed_at text
) strict;
create table tutorial (
    rater integer not null references rater, attempt integer not null, position integer not null,
    answers text not null, correct integer not null, graded integer not null, at text not null,
    primary key (rater, attempt, position)
) strict;
create table shown (
    rater integer not null references rater, item text not null, at text not null, primary key (rater, item)
) strict;
create table response (
    id integer primary key, rater integer not null references rater, item text not null, question text not null,
    choice text not null, first_on_left integer not null, revision integer not null, shown_at text,
    answered_at text not null, superseded_at text
) strict;
create unique index live on response (rater, item, question) where superseded_at is null;
create index of_rater on response (rater, item);
"""


class Unavailable(Exception):
    """The database can't be written or read at this moment; the message is for whoever answers, ``cure`` for whoever
    runs the study."""

    def __init__(self, words: str, cure: str = "try again"):
        super().__init__(words)
        self.cure = cure


def token_hash(token: str) -> str:
    """SHA-256: tokens are 192 random bits, so nothing slower or salted is needed."""
    return of_text(token)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def create_store(folder: Path, tokens: Sequence[str], administrator: str) -> None:
    """The empty database of a new study; only hashes of the tokens are kept. Raises OSError."""
    connection = sqlite3.connect(folder / DATABASE, isolation_level=None)
    try:
        connection.execute("pragma journal_mode = wal")
        connection.executescript(SCHEMA)
        connection.executemany(
            "insert into fact values (?, ?)",
            [("manifest", manifest_fingerprint(folder)), ("administrator", token_hash(administrator))],
        )
        connection.executemany(
            "insert into rater (number, origin, token_hash) values (?, ?, ?)",
            [(number, f"link {number}", token_hash(token)) for number, token in enumerate(tokens, 1)],
        )
    except sqlite3.Error as error:
        raise OSError(0, str(error)) from error
    finally:
        connection.close()


class Database:
    """One connection, shared by threads in turn. Reading and writing raise Unavailable where that fails."""

    def __init__(self, folder: Path, wait: float = WAIT):
        """Raises UserError where there is no study, or its study.json is not the one that answers were given to."""
        self.folder = folder
        file = folder / DATABASE
        if not file.is_file():
            raise UserError(f"{file}: there is none; give the folder that cgrpo study create wrote")
        self._turn = threading.RLock()
        try:
            self._db = sqlite3.connect(file, timeout=wait, isolation_level=None, check_same_thread=False)
            for setting in ("synchronous = full", "foreign_keys = on", "secure_delete = on"):
                self._db.execute(f"pragma {setting}")
            facts = dict(self._db.execute("select name, value from fact"))
        except sqlite3.Error as error:
            raise UserError(f"{file}: can't be read ({error}); restore it from a backup") from None
        if facts.get("manifest") != manifest_fingerprint(folder):
            raise UserError(f"{folder / 'study.json'} was changed after the study began; restore it from a backup")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._turn:
                yield self._db
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction; undone whole if anything goes wrong in it."""
        with self.reading() as db:
            db.execute("begin immediate")
            try:
                yield db
                db.execute("commit")
            except BaseException:
                if db.in_transaction:
                    db.execute("rollback")
                raise

    def backup(self, file: Path) -> None:
        """A copy as of one moment, while others go on writing. Raises Unavailable, OSError."""
        copy = sqlite3.connect(file)
        try:
            with self.reading() as db:
                db.backup(copy)
            if copy.execute("pragma integrity_check").fetchone() != ("ok",):
                raise _damaged()
        except sqlite3.Error as error:
            if _tells_of_damage(error):
                raise _damaged() from error
            raise OSError(0, str(error), str(file)) from error
        finally:
            copy.close()


def _unavailable(error: sqlite3.Error) -> Unavailable:
    words = str(error)
    if "full" in words:
        return Unavailable("the disk of the study's computer is full")
    if "locked" in words or "busy" in words:
        return Unavailable("the study's database is busy")
    return _damaged() if _tells_of_damage(error) else Unavailable(f"the study's database: {words}")


def _tells_of_damage(error: sqlite3.Error) -> bool:
    return "malformed" in str(error) or "not a database" in str(error)


def _damaged() -> Unavailable:
    return Unavailable("the study's database is damaged", "restore it from a backup")
