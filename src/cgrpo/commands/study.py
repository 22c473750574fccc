"""`cgrpo study`: a study's folder served, copied, exported, and a rater taken out of it."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cgrpo.errors import UserError
from cgrpo.files import json_text, write_text
from cgrpo.study import labelstudio
from cgrpo.study.create import LINKS
from cgrpo.study.database import DATABASE, Unavailable
from cgrpo.study.exports import Pairs, write_pairs, write_ratings
from cgrpo.study.labelstudio import Imported
from cgrpo.study.manifest import MANIFEST, PICTURES, changed_pictures, read_study
from cgrpo.study.statistics.checks import kept
from cgrpo.study.store import Response, Store

SERVING = ".serving"


def serve_study(folder: Path, host: str = "127.0.0.1", port: int = 8421) -> None:
    """Serve a study until interrupted. Raises UserError, also where it is served already or pictures were changed."""
    for package in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"cgrpo study serve needs {package}: pip install fastapi httpx uvicorn")
    from cgrpo.serving.listening import listen, run
    from cgrpo.study.app.server import create_app

    with opened(folder) as store, _alone(folder):
        study = read_study(folder)
        changed = list(changed_pictures(folder, study))
        if changed:
            raise UserError(
                f"{folder / PICTURES / changed[0]}.png is not as it was when the study was made; restore "
                f"{len(changed)} such pictures from a backup"
            )
        with listen(host, port) as bound:
            shown = f"[{host}]" if ":" in host else host
            print(f"serving {folder} on http://{shown}:{bound.getsockname()[1]}", file=sys.stderr, flush=True)
            if host not in ("127.0.0.1", "localhost", "::1"):
                print("cgrpo: links travel unencrypted; put a server with TLS in front", file=sys.stderr, flush=True)
            try:
                run(create_app(study, store), bound)
            except KeyboardInterrupt:  # the usual end
                return


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    """A study's answers; what keeps them from being read or written is a UserError."""
    store = Store(folder)
    try:
        yield store
    except Unavailable as error:
        raise UserError(f"{folder / DATABASE}: {error}; nothing was changed; {error.cure}") from None
    finally:
        store.close()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One server a study: the lock goes with the process, however it ends."""
    lock = os.open(folder / SERVING, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"{folder} is served already; stop that server first") from None
    finally:
        os.close(lock)


def backup_study(folder: Path, out: Path) -> int:
    """Manifest, pictures and a consistent copy of the answers in the new folder ``out``, while others go on writing.

    The links are not copied: whoever has a backup can answer for nobody. Returns how many answers it holds. Raises
    UserError.
    """
    if out.exists():
        raise UserError(f"{out}: is there already; give a new folder as --out")
    partial = out.with_name(f".{out.name}.partial")
    try:
        with opened(folder) as store:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            shutil.copy2(folder / MANIFEST, partial / MANIFEST)
            shutil.copytree(folder / PICTURES, partial / PICTURES)
            store.backup(partial / DATABASE)
        with opened(partial) as copy:
            count = len(copy.responses())
        partial.rename(out)
        return count
    except OSError as error:
        raise UserError(f"can't write to {out}: {error.strerror or error}; give another --out") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def forget_rater(folder: Path, number: int | None = None, link: str = "") -> tuple[int, int]:
    """Delete everything of a rater, by number or by link; returns the number, and how many answers that were.

    Raises UserError for one who isn't there.
    """
    with opened(folder) as store:
        token = link.rstrip("/").rpartition("/")[2]
        known = [one for one in store.raters() if one.number == number] if number else [store.rater(token)]
        if not known or known[0] is None:
            raise UserError(f"{folder}: no such rater; the numbers are in {LINKS} and in the report")
        return known[0].number, store.forget(known[0].number)


def export_pairs(folder: Path, question: str, out: Path) -> Pairs:
    """See ``cgrpo.study.exports``; raters whom the rule excludes don't count. Raises UserError."""
    return write_pairs(read_study(folder), folder, _counted(folder), question, out)


def export_scores(folder: Path, out: Path) -> int:
    """The same for rows of scores."""
    return write_ratings(read_study(folder), folder, _counted(folder), out)


def _counted(folder: Path) -> list[Response]:
    with opened(folder) as store:
        return kept(read_study(folder), store.responses())


def export_label_studio(folder: Path, url: str, out: Path) -> int:
    """tasks.json and config.xml in ``out``; returns the number of tasks. Raises UserError."""
    study = read_study(folder)
    found = labelstudio.tasks(study, url)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "tasks.json", json_text(found, indent=1, ensure_ascii=False) + "\n")
        write_text(out / "config.xml", labelstudio.config(study))
    except OSError as error:
        raise UserError(f"can't write to {out}: {error.strerror}; give another --out") from error
    return len(found)


def import_label_studio(folder: Path, file: Path) -> Imported:
    """Answers that Label Studio exported into the study. Raises UserError."""
    with opened(folder) as store:
        return labelstudio.import_export(read_study(folder), store, file)
