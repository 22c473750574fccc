"""`cgrpo study create`."""

from __future__ import annotations

import argparse
from pathlib import Path

from cgrpo.cli.shared import add_verb, count, listed, path, positive, seed
from cgrpo.errors import UserError
from cgrpo.text import read_text

EXAMPLES = """\
cgrpo study create dreambench-scores --method uno --method ours --out study
cgrpo study create dreambench-scores --items 200 --raters 8 --raters-per-item 3 --out study
cgrpo study create dreambench-scores --method ours --mode rating --out ratings \\
    --url https://study.example.org"""


def add(verbs: argparse._SubParsersAction) -> None:
    create = add_verb(verbs, "create", "draw and freeze a study of evaluated pictures", run, EXAMPLES)
    create.add_argument("scores", type=path, help="the --out of cgrpo evaluate")
    create.add_argument("--out", type=path, required=True, metavar="DIR", help="the study's new folder")
    create.add_argument(
        "--method",
        action="append",
        default=[],
        metavar="NAME",
        help="what to ask about; repeatable, what the others are compared with first (default: all, base first)",
    )
    create.add_argument(
        "--mode",
        choices=["pairwise", "rating"],
        default="pairwise",
        help="which of two pictures (default), or 0 to 5 for one",
    )
    create.add_argument("--items", type=listed, default=200, metavar="N", help="pages to ask about (default: 200)")
    create.add_argument("--raters", type=listed, default=8, metavar="N", help="links to make (default: 8)")
    create.add_argument(
        "--raters-per-item", type=positive, default=3, metavar="N", help="who answers a page, 1 to 8 (default: 3)"
    )
    create.add_argument(
        "--checks",
        type=count,
        metavar="N",
        help="hidden items with a known answer, the same for each rater (default: 5 %% of a rater's, 5 at least)",
    )
    create.add_argument(
        "--tutorial", type=path, metavar="FILE", help="JSON list of items to learn from (default: four, made)"
    )
    create.add_argument(
        "--pass-mark", type=share, default=0.75, metavar="SHARE", help="of right tutorial answers (default: 0.75)"
    )
    create.add_argument("--consent", type=path, metavar="FILE", help="text that raters agree to (default: a short one)")
    create.add_argument("--completion-code", default="", metavar="CODE", help="shown at the end, for paid panels")
    create.add_argument(
        "--url", default="http://127.0.0.1:8421", help="where raters reach the server, for the links (default: here)"
    )
    create.add_argument("--seed", type=seed, default=0, metavar="S", help="of the design (default: 0)")


def share(text: str) -> float:
    """0 to 1, as argparse takes types."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be 0 to 1, got {text}")
    return value


def run(options: argparse.Namespace) -> None:
    from cgrpo.study.create import CONSENT, LINKS, Wanted, create_study
    from cgrpo.study.power import power_line

    ask = Wanted(
        options.method,
        options.mode,
        options.items,
        options.raters,
        options.raters_per_item,
        options.checks,
        options.tutorial,
        options.pass_mark,
        _text(options.consent) if options.consent else CONSENT,
        options.completion_code,
        options.url,
        options.seed,
    )
    study = create_study(options.scores, options.out, ask)
    pages = sorted({len(one) for one in study.lists})
    rules = study.rules
    print(
        f"{options.out}: {ask.items} items of {', '.join(study.methods)}; {' or '.join(map(str, pages))} pages a rater"
    )
    print(
        f"checks: {rules.checks} a rater; more than {rules.failed_at_most} failed exclude one "
        f"(answers at random pass with probability {rules.chance_to_pass:.3f})"
    )
    if study.power:
        print(power_line(dict(study.power)))
    print(f"links: {options.out / LINKS} (the only copy); then: cgrpo study serve {options.out}")


def _text(file: Path) -> str:
    try:
        return read_text(file).strip()
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: can't be read ({error}); give a text file as --consent") from None
