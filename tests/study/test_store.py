"""Answers are kept, corrected, never doubled, copied while others write, and forgotten for good."""

import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cgrpo.app.main import main
from cgrpo.app.study import backup, forget
from cgrpo.errors import UserError
from cgrpo.study.database import DATABASE, Unavailable
from cgrpo.study.manifest import Study
from cgrpo.study.store import Response, Stale, Store, open_store

Made = tuple[Study, Path, list[str]]
A, B = {"identity": "left", "prompt": "tie"}, {"identity": "right", "prompt": "tie"}


@pytest.fixture
def store(made: Made):
    kept = Store(made[1], wait=0.1)
    yield kept
    kept.close()


def test_a_correction_supersedes_and_overwrites_nothing(store: Store, made: Made) -> None:
    item = made[0].items[0].id
    store.show(1, item)
    store.save(1, item, A, True, 0)
    store.save(1, item, B, True, 1)
    assert store.answers(1, item) == (B, 2)
    db = sqlite3.connect(made[1] / DATABASE)
    rows = db.execute("select choice, revision, superseded_at is null from response order by id").fetchall()
    assert rows == [("left", 1, 0), ("tie", 1, 0), ("right", 2, 1), ("tie", 2, 1)]
    one = store.responses()[0]
    assert one.shown_at and one.shown_at <= one.answered_at and one.first_on_left


def test_the_same_form_twice_changes_nothing_and_an_old_one_overrides_nothing(store: Store, made: Made) -> None:
    item = made[0].items[0].id
    store.save(1, item, A, True, 0)
    store.save(1, item, A, True, 0)
    store.save(1, item, B, True, 1)
    with pytest.raises(Stale):
        store.save(1, item, A, True, 0)
    assert store.answers(1, item) == (B, 2)
    assert len(store.responses()) == 2


def test_the_database_itself_refuses_a_second_live_answer(store: Store, made: Made) -> None:
    item = made[0].items[0].id
    store.save(1, item, A, True, 0)
    row = "values (1, ?, 'identity', 'left', 1, 1, 'now')"
    columns = "(rater, item, question, choice, first_on_left, revision, answered_at)"
    with pytest.raises(sqlite3.IntegrityError):
        sqlite3.connect(made[1] / DATABASE).execute(f"insert into response {columns} {row}", [item])


def test_threads_lose_nothing(store: Store, made: Made) -> None:
    items = [item.id for item in made[0].items]

    def answer(rater: int) -> None:
        for item in items:
            store.save(rater, item, A, True, 0)
            store.save(rater, item, B, True, 1)

    threads = [threading.Thread(target=answer, args=[rater]) for rater in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.responses()) == 4 * len(items) * 2
    assert {one.revision for one in store.responses()} == {2}


def test_a_damaged_database_is_said_to_be_that(
    store: Store, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.save(1, made[0].items[0].id, A, True, 0)
    store.close()
    content = (made[1] / DATABASE).read_bytes()
    (made[1] / DATABASE).write_bytes(content[:8192] + b"Z" * (len(content) - 8192))
    for words in (["report"], ["forget", "--rater", "1"], ["backup"], ["export", "--to", "scores"]):
        out = [] if words[0] == "forget" else ["--out", str(tmp_path / "out")]
        assert main(["study", words[0], str(made[1]), *words[1:], *out]) == 2
        error = capsys.readouterr().err
        assert "database is damaged" in error and "from a backup" in error and error.count("\n") == 1
    assert not list(tmp_path.glob(".*"))


def test_a_locked_database_and_a_full_disk_change_nothing(store: Store, made: Made) -> None:
    item = made[0].items[0].id
    other = sqlite3.connect(made[1] / DATABASE, isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(Unavailable, match="busy"):
        store.save(1, item, A, True, 0)
    other.execute("rollback")
    with store.reading() as db:  # as full as it is: not a page more
        db.execute(f"pragma max_page_count = {db.execute('pragma page_count').fetchone()[0]}")
    with pytest.raises(Unavailable, match="full"):
        for one in made[0].items * 20:
            answers, revision = store.answers(1, one.id)
            store.save(1, one.id, B if answers == A else A, True, revision)
    with store.reading() as db:
        db.execute("pragma max_page_count = 100000")
    _, revision = store.answers(1, item)
    store.save(1, item, {"identity": "right", "prompt": "right"}, True, revision)
    assert store.answers(1, item)[0]["prompt"] == "right"


WRITER = """
import itertools, sys
from pathlib import Path
from cgrpo.study.manifest import read_study
from cgrpo.study.store import Store
folder = Path(sys.argv[1])
study, store = read_study(folder), Store(folder)
for n in itertools.count():
    item = study.items[n % len(study.items)].id
    _, revision = store.answers(1, item)
    choice = ("left", "tie", "right")[n // len(study.items) % 3]
    store.save(1, item, {"identity": choice, "prompt": choice}, True, revision)
    print(item, revision + 1, choice, flush=True)
"""


def test_a_kill_loses_nothing_that_was_acknowledged(made: Made) -> None:
    study, folder, _ = made
    with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(40)]
        writer.kill()
        told += [line for line in writer.stdout if line.endswith("\n")]
    last = {item: (int(revision), choice) for item, revision, choice in map(str.split, told)}
    store = Store(folder)
    for item, (revision, choice) in last.items():
        answers, known = store.answers(1, item)
        assert known >= revision and len(answers) == 2
        assert known > revision or set(answers.values()) == {choice}
    with store.reading() as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    store.close()
    assert len(last) == len(study.items)


def test_another_study_json_is_refused(made: Made) -> None:
    file = made[1] / "study.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"seed": 0', '"seed": 1'), encoding="utf-8")
    with pytest.raises(UserError, match="was changed after the study began"):
        Store(made[1])


def test_backup_while_serving(store: Store, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.save(1, made[0].items[0].id, A, True, 0)
    backup(made[1], out=tmp_path / "copy")
    assert "copy: 2 answers" in capsys.readouterr().out
    store.save(2, made[0].items[0].id, A, True, 0)
    with open_store(tmp_path / "copy") as copy:
        assert [one.rater for one in copy.responses()] == [1, 1]
    assert not (tmp_path / "copy" / "links.txt").exists()
    with pytest.raises(UserError, match="is there already"):
        backup(made[1], out=tmp_path / "copy")


def test_forgotten_is_forgotten(store: Store, made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """No byte of the link's hash or of the answers' times stays in the files."""
    study, folder, tokens = made
    store.consent(2)
    store.save(1, study.items[0].id, A, True, 0)
    time.sleep(0.002)  # at another millisecond
    store.save(2, study.items[0].id, A, True, 0)
    mine = [one for one in store.responses() if one.rater == 2]
    with store.reading() as db:
        (digest,) = db.execute("select token_hash from rater where number = 2").fetchone()
    assert main(["study", "forget", str(folder), "--link", f"http://127.0.0.1/r/{tokens[2]}/items/3?from=mail"]) == 0
    assert "rater 2: 2 answers deleted" in capsys.readouterr().out
    assert store.rater(tokens[2]) is None and store.rater(tokens[1])
    assert {one.rater for one in store.responses()} == {1}
    left = b"".join(file.read_bytes() for file in folder.glob("answers.sqlite*"))
    assert digest.encode() not in left
    assert mine[0].answered_at.encode() not in left
    with pytest.raises(UserError, match="no such rater"):
        forget(folder, rater=2)


def test_imported_raters_have_numbers_of_their_own(store: Store, made: Made) -> None:
    item = made[0].items[0].id
    one = Response(0, item, "identity", "left", True, 1, None, "2026-01-01T00:00:00+00:00")
    store.forget(4)
    assert store.import_answers("label-studio 7", [one]) == 1
    assert store.import_answers("label-studio 7", [one]) == 0
    assert [rater.number for rater in store.raters()] == [1, 2, 3, 1001]
