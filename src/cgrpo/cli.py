"""The command line. Heavy imports happen inside the commands, so that help is instant."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cgrpo import __version__
from cgrpo.errors import UserError

CITATION = """\
@inproceedings{huang2026customizedgrpo,
  title     = {From Competition to Synergy: Unlocking Reinforcement Learning for Subject-Driven Image Generation},
  author    = {Huang, Ziwei and Shu, Yin and Fang, Hao and Long, Quanyu and Wang, Wenya and Guo, Qiushi and
               Ge, Tiezheng and Gan, Leilei},
  booktitle = {Annual Meeting of the Association for Computational Linguistics (ACL)},
  year      = {2026},
  note      = {arXiv:2510.18263}
}"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; a user's mistake is one line on standard error and exit code 2."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # one bar: the training's
    core = parser()
    options = core.parse_args(arguments)
    if "command" not in options:
        core.print_help()
        return 2
    try:
        options.command(options)
    except UserError as error:
        print(f"cgrpo: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that can't be written
        print(f"cgrpo: {error.filename or 'disk'}: {error.strerror or error}; what is written is kept", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cgrpo: interrupted; a training run continues with cgrpo train --resume RUN", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    core = argparse.ArgumentParser(
        prog="cgrpo", description="Customized-GRPO: reinforcement learning of subject-driven image generators."
    )
    core.add_argument("--version", action="version", version=f"cgrpo {__version__}")
    commands = core.add_subparsers(title="commands", metavar="COMMAND")

    train = commands.add_parser("train", help="train a policy, compare it with its base, write a report")
    train.add_argument("recipe", nargs="?", default="toybox", help="a packaged recipe or a TOML file (default: toybox)")
    train.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="change a setting"
    )
    train.add_argument("--out", type=Path, metavar="DIR", help="run directory (default: outputs/RECIPE-TIME)")
    train.add_argument("--resume", type=Path, metavar="RUN", help="continue the run in this directory")
    train.set_defaults(command=_train)

    sample = commands.add_parser("sample", help="make pictures of a subject")
    sample.add_argument("run", nargs="?", type=Path, help="a run directory or an adapter (default: the base)")
    sample.add_argument(
        "--reference", type=Path, nargs="+", required=True, metavar="FILE", help="pictures of the subject"
    )
    sample.add_argument("--prompt", action="append", required=True, metavar="TEXT", help="what to show; repeatable")
    sample.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the pictures")
    sample.add_argument("--seeds", type=_positive, default=4, metavar="N", help="pictures per prompt (default: 4)")
    sample.add_argument("--steps", type=_positive, metavar="T", help="denoising steps (default: as trained)")
    sample.set_defaults(command=_sample)

    evaluate = commands.add_parser("evaluate", help="score a run, or the base, against reference rows")
    evaluate.add_argument("what", choices=["toybox"], help="the evaluation set")
    evaluate.add_argument("run", nargs="?", type=Path, help="a run directory or an adapter (default: the base)")
    evaluate.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="change a setting"
    )
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="also write the table as JSON")
    evaluate.add_argument("--sheet", type=Path, metavar="FILE", help="also write a contact sheet of 24 tasks (PNG)")
    evaluate.set_defaults(command=_evaluate)

    toybox = commands.add_parser("toybox", help="the embedded world")
    actions = toybox.add_subparsers(metavar="ACTION", required=True)
    check = actions.add_parser("check", help="how well rewards and judges rank known corruptions; the segmenter's IoU")
    check.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="change a setting"
    )
    check.set_defaults(command=_check)
    build = actions.add_parser("build", help="make its checkpoints again from a seed")
    build.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the checkpoints")
    build.add_argument("--seed", type=int, default=0, help="seed of all data and weights (default: 0)")
    build.add_argument("--share", type=float, default=1.0, help="share of the full training steps, for a quick try")
    build.set_defaults(command=_build)

    cite = commands.add_parser("cite", help="how to cite the paper")
    cite.set_defaults(command=lambda options: print(CITATION))
    return core


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


def _train(options: argparse.Namespace) -> None:
    from cgrpo.config import load_config, override

    if options.resume:
        from cgrpo.training.record import Record

        cfg = override(Record.open(options.resume)[1], options.settings)
    else:
        cfg = load_config(options.recipe, options.settings)
    from cgrpo.run import train

    folder = train(cfg, options.out, resume=options.resume, name=Path(options.recipe).stem)
    _say_summary(folder)


def _say_summary(folder: Path) -> None:
    summary = folder / "summary.json"
    if not summary.exists():  # another process's business
        return
    metrics = json.loads(summary.read_text())["metrics"]
    if metrics:
        print(f"\n{'held-out':20s} {'role':7s} {'axis':9s} {'base':>7s} {'trained':>8s} {'change':>8s}  95 % interval")
    for name, row in metrics.items():
        numbers = {key: math.nan if value is None else value for key, value in row.items()}
        print(
            "{name:20s} {role:7s} {axis:9s} {base:7.3f} {trained:8.3f} {difference:+8.3f}  "
            "[{low:+.3f}, {high:+.3f}]".format(name=name, **numbers)
        )
    print(f"\nreport: {folder / 'report.html'}\nadapter: {folder / 'adapter'}")


def _sample(options: argparse.Namespace) -> None:
    from cgrpo.run import sample

    files = sample(
        options.run, options.reference, options.prompt, options.out, seeds=options.seeds, steps=options.steps
    )
    print(f"{len(files) - 1} pictures and {files[-1]}")


def _evaluate(options: argparse.Namespace) -> None:
    from cgrpo.run import evaluate_toybox

    result = evaluate_toybox(options.run, options.settings, options.sheet)
    names = list(result["metrics"])
    print(f"{result['tasks']} held-out tasks ({result['split']})")
    print(f"{'':22s}" + "".join(f"{name:>19s}" for name in names))
    for row, scores in result["rows"].items():
        print(f"{row:22s}" + "".join(f"{scores[name]:19.3f}" for name in names))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def _check(options: argparse.Namespace) -> None:
    from cgrpo.run import check_toybox

    table, iou = check_toybox(options.settings)
    for name, row in table.items():
        print(f"{name:18s}" + "".join(f"  {scorer} {value:.3f}" for scorer, value in row.items()))
    print("segmenter IoU     " + "".join(f"  {name} {value:.3f}" for name, value in iou.items()))


def _build(options: argparse.Namespace) -> None:
    from cgrpo.toybox.build import build_toybox

    build_toybox(options.out, options.seed, options.share, say=print)


if __name__ == "__main__":
    sys.exit(main())
