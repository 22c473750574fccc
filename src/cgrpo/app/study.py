"""`cgrpo study`: ask people which pictures are better: pages, answers, statistics."""

import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cgrpo.app.options import File, Folder, Many, Port, Positive, Share, Whole, command, group
from cgrpo.errors import UserError
from cgrpo.files import alone, json_text, reading, whole_folder, write_text, writing
from cgrpo.text import read_text

Study = Annotated[Folder, Parameter(help="folder that cgrpo study create wrote")]
Served = Annotated[Folder, Parameter(help="folder that cgrpo study create wrote; it may be served meanwhile")]


def create(
    scores: Folder,
    /,
    *,
    out: Folder,
    methods: Annotated[Sequence[str], Parameter(name="--method", metavar="NAME")] = (),
    mode: Literal["pairwise", "rating"] = "pairwise",
    items: Many = 200,
    raters: Many = 8,
    raters_per_item: Positive = 3,
    checks: Whole | None = None,
    tutorial: File | None = None,
    pass_mark: Share = 0.75,
    consent: File | None = None,
    completion_code: Annotated[str, Parameter(metavar="CODE")] = "",
    url: str = "http://127.0.0.1:8421",
    seed: Whole = 0,
) -> None:
    """Draw and freeze a study of evaluated pictures.

    Args:
        scores: the --out of cgrpo evaluate
        out: the study's new folder
        methods: what to ask about; repeatable, what the others are compared with first (default: all, base first)
        mode: which of two pictures is better, or 0 to 5 for one
        items: pages to ask about
        raters: links to make
        raters_per_item: who answers a page, 1 to 8
        checks: hidden items with a known answer, the same for each rater (default: 5 % of a rater's, 5 at least)
        tutorial: JSON list of items to learn from (default: four, made from the pictures)
        pass_mark: share of right tutorial answers
        consent: text that raters agree to (default: a short one)
        completion_code: shown at the end, for paid panels
        url: where raters reach the server, for the links
        seed: seed of the design
    """
    from cgrpo.study.create import CONSENT, LINKS, StudyRequest, create_study, power_line

    text = CONSENT
    if consent is not None:
        with reading(consent, "give a text file as --consent"):
            text = read_text(consent).strip()
    ask = StudyRequest(
        methods=methods,
        mode=mode,
        items=items,
        raters=raters,
        per_item=raters_per_item,
        checks=checks,
        tutorial=tutorial,
        pass_mark=pass_mark,
        consent=text,
        completion_code=completion_code,
        url=url,
        seed=seed,
    )
    study = create_study(scores, out, ask)
    pages = sorted({len(one) for one in study.lists})
    rules = study.rules
    print(f"{out}: {items} items of {', '.join(study.methods)}; {' or '.join(map(str, pages))} pages a rater")
    if study.source["left out"]:
        print(f"left out: {study.source['left out']} subjects with prompts, of which a method has no picture")
    print(
        f"checks: {rules.checks} a rater; more than {rules.failed_at_most} failed exclude one "
        f"(answers at random pass with probability {rules.chance_to_pass:.3f})"
    )
    if study.power:
        print(power_line(dict(study.power)))
    print(f"links: {out / LINKS} (the only copy); then: cgrpo study serve {out}")


def serve(study: Study, /, *, host: str = "127.0.0.1", port: Port = 8421) -> None:
    """Serve the study's pages, a link per rater, until interrupted.

    Args:
        host: address to listen at, by default for this machine alone
        port: port; 0 for any free one

    Raises:
        UserError: the study is served already, or its pictures were changed.
    """
    from cgrpo.serving import check_installed, listen, run

    check_installed("cgrpo study serve")
    from cgrpo.study.app.server import create_app
    from cgrpo.study.create import LINKS, move_links
    from cgrpo.study.manifest import PICTURES, changed_pictures, read_study
    from cgrpo.study.store import open_store

    with open_store(study) as store, alone(study) as free:
        if not free:
            raise UserError(f"{study} is served already", "stop that server first")
        manifest = read_study(study)
        changed = list(changed_pictures(study, manifest))
        if changed:
            raise UserError(
                f"{study / PICTURES / changed[0]}.png is not as it was when the study was made",
                f"restore {len(changed)} such pictures from a backup",
            )
        with listen(host, port) as bound:
            if move_links(study, number := bound.getsockname()[1]):
                print(f"the links in {study / LINKS} have port {number} now", file=sys.stderr)
            if host not in ("127.0.0.1", "localhost", "::1"):
                print("cgrpo: links travel unencrypted; put a server with TLS in front", file=sys.stderr, flush=True)
            run(create_app(manifest, store), bound, host, str(study))


def report(study: Served, /, *, out: Folder) -> Path:
    """Wins, ties and losses with intervals, agreement, checks; a page.

    Args:
        out: folder for report.json, .md and .html
    """
    from cgrpo.study.report import write_report

    return write_report(study, out)


def show_report(page: Path) -> None:
    """Print the verdicts, and where the page is."""
    print(*json.loads(read_text(page.parent / "report.json"))["verdicts"], f"page: {page}", sep="\n")


def export(
    study: Served,
    /,
    *,
    to: Literal["pairs", "scores", "label-studio"],
    out: Annotated[File, Parameter(metavar="PATH")],
    question: Literal["both", "identity", "prompt"] = "both",
    url: str = "http://127.0.0.1:8099",
) -> None:
    """Answers to train on, for other statistics, or for Label Studio. Raters whom the rule excludes don't count.

    Args:
        to: pairs: for method preference; scores: rows for cgrpo evaluate compare; label-studio: tasks and interface
        out: file of pairs, or a folder
        question: pairs: by which answers; both: better on one and no worse on the other
        url: label-studio: where the study's pictures/ is served
    """
    from cgrpo.study import labelstudio
    from cgrpo.study.exports import write_pairs, write_ratings
    from cgrpo.study.manifest import read_study
    from cgrpo.study.statistics.raters import kept
    from cgrpo.study.store import open_store

    manifest = read_study(study)
    if to == "label-studio":
        tasks = labelstudio.tasks(manifest, url)
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            write_text(out / "tasks.json", json_text(tasks, indent=1, ensure_ascii=False) + "\n")
            write_text(out / "config.xml", labelstudio.config(manifest))
        print(f"{out}: {len(tasks)} tasks; serve {study / 'pictures'} at {url}, with CORS allowed")
        return
    with open_store(study) as store:
        answers = kept(manifest, store.responses())
    if to == "pairs":
        pairs = write_pairs(manifest, study, answers, question, out)
        print(f"{out}: {pairs.written} pairs; {pairs.undecided} items undecided")
    else:
        print(f"{out}: {write_ratings(manifest, study, answers, out)} rows")


def import_answers(study: Study, file: File, /) -> None:
    """Answers that were given in Label Studio.

    Args:
        study: the study whose tasks were exported to Label Studio
        file: what Label Studio exported as JSON
    """
    from cgrpo.study import labelstudio
    from cgrpo.study.manifest import read_study
    from cgrpo.study.store import open_store

    with open_store(study) as store:
        imported = labelstudio.import_export(read_study(study), store, file)
    print(f"{imported.answers} new answers of {imported.raters} raters; {imported.skipped} annotations skipped")


def backup(study: Study, /, *, out: Folder) -> None:
    """A whole copy of a study, also while it is served.

    The links are not copied: whoever has a backup can answer for nobody.

    Args:
        out: the copy's new folder
    """
    from cgrpo.study.database import DATABASE
    from cgrpo.study.manifest import MANIFEST, PICTURES
    from cgrpo.study.store import open_store

    if out.exists():
        raise UserError(f"{out}: is there already; give a new folder as --out")
    with open_store(study) as store, whole_folder(out) as partial:
        shutil.copy2(study / MANIFEST, partial / MANIFEST)
        shutil.copytree(study / PICTURES, partial / PICTURES)
        store.backup(partial / DATABASE)
        with open_store(partial) as copy:
            count = len(copy.responses())
    print(f"{out}: {count} answers")


def forget(
    study: Served, /, *, rater: Positive | None = None, link: Annotated[str, Parameter(metavar="URL")] = ""
) -> None:
    """Delete a rater's answers, times and link for good.

    Args:
        rater: number, as in links.txt and in the report
        link: the rater's link, or its last part; instead of a number
    """
    from cgrpo.study.create import LINKS
    from cgrpo.study.store import open_store

    if (rater is None) == (not link):
        raise UserError("say whom to forget, either by --rater or by --link")
    with open_store(study) as store:
        token = (re.search("[0-9a-f]{48}", link) or [link])[0]
        rows = [row for row in store.raters() if row.number == rater] if rater else [store.rater(token)]
        if not rows or rows[0] is None:
            raise UserError(f"{study}: no such rater; the numbers are in {LINKS} and in the report")
        number, count = rows[0].number, store.forget(rows[0].number)
    print(f"rater {number}: {count} answers deleted; backups and earlier reports are yours to delete")


CREATE_EXAMPLES = """\
cgrpo study create dreambench-scores --method uno --method ours --out study
cgrpo study create dreambench-scores --items 200 --raters 8 \\
    --raters-per-item 3 --out study
cgrpo study create dreambench-scores --method ours --mode rating \\
    --out ratings \\
    --url https://study.example.org"""
SERVE_EXAMPLES = """\
cgrpo study serve study
cgrpo study serve study --host 0.0.0.0 --port 8421"""
EXPORT_EXAMPLES = """\
cgrpo study export study --to pairs --out pairs.jsonl
cgrpo study export ratings --to scores --out people
cgrpo study export study --to label-studio --url http://127.0.0.1:8099 \\
    --out for-label-studio"""
FORGET_EXAMPLES = """\
cgrpo study forget study --rater 3
cgrpo study forget study --link http://127.0.0.1:8421/r/..."""

app = group(
    "study",
    "Ask people which pictures are better: pages, answers, statistics.",
    command("create", create, CREATE_EXAMPLES),
    command("serve", serve, SERVE_EXAMPLES),
    command("report", report, "cgrpo study report study --out study-report", show_report),
    command("export", export, EXPORT_EXAMPLES),
    command("import", import_answers, "cgrpo study import study project-1.json"),
    command("backup", backup, "cgrpo study backup study --out study-monday"),
    command("forget", forget, FORGET_EXAMPLES),
)
