"""A study's folder into a folder of results: numbers as JSON, and Markdown and a page that show the same ones."""

from __future__ import annotations

from pathlib import Path

from cgrpo.errors import UserError
from cgrpo.evaluation.show.plots import save
from cgrpo.files import json_text, write_text
from cgrpo.study.database import Unavailable
from cgrpo.study.manifest import read_study
from cgrpo.study.report.findings import Findings, find
from cgrpo.study.report.page import TITLE, figure5, report_page, verdicts
from cgrpo.study.report.tables import tables
from cgrpo.study.store import Rater, Response, Store


def read_findings(folder: Path) -> Findings:
    """What a study found so far; it may be served meanwhile. Raises UserError."""
    study = read_study(folder)
    return find(study, *_read(folder))


def read_answers(folder: Path) -> list[Response]:
    """All live answers. Raises UserError."""
    return _read(folder)[1]


def _read(folder: Path) -> tuple[list[Rater], list[Response]]:
    store = Store(folder)
    try:
        return store.raters(), store.responses()
    except Unavailable as error:
        raise UserError(f"{folder}: {error}; {error.cure}") from None
    finally:
        store.close()


def write_report(folder: Path, out: Path) -> Path:
    """report.json, report.md, report.html and, of comparisons, figure5.png in ``out``; returns the page. Raises
    UserError."""
    found = read_findings(folder)
    try:
        out.mkdir(parents=True, exist_ok=True)
        table = json_text(found.as_dict(), indent=1, ensure_ascii=False)
        write_text(out / "report.json", table + "\n")
        write_text(out / "report.md", markdown(found))
        write_text(out / "report.html", report_page(found).render())
        if found.shares:
            save(figure5(found.shares), out / "figure5.png")
    except OSError as error:
        raise UserError(f"can't write to {out}: {error.strerror}; give another --out") from error
    return out / "report.html"


def markdown(found: Findings) -> str:
    parts = [f"# {TITLE}", *(verdict.text for verdict in verdicts(found)), *(one.markdown() for one in tables(found))]
    return "\n\n".join(parts) + "\n"
