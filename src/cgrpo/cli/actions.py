"""What each command does with its options: calls one function and says what came of it."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

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


def train(options: argparse.Namespace) -> None:
    from cgrpo.config import load_config, override

    if options.resume:
        from cgrpo.training.record import Record

        cfg = override(Record.open(options.resume)[1], options.settings)
    else:
        cfg = load_config(options.recipe, options.settings)
    from cgrpo.commands.train import train

    folder = train(cfg, options.out, resume=options.resume, name=Path(options.recipe).stem)
    _say_summary(folder)


def _say_summary(folder: Path) -> None:
    summary = folder / "summary.json"
    if not summary.exists():  # another process's business
        return
    table = json.loads(summary.read_text())
    metrics, guard = table["metrics"], table.get("guard")
    if metrics:
        print(f"\n{'held-out':20s} {'role':7s} {'axis':9s} {'base':>7s} {'trained':>8s} {'change':>8s}  95 % interval")
    for name, row in metrics.items():
        numbers = {key: math.nan if value is None else value for key, value in row.items()}
        print(
            "{name:20s} {role:7s} {axis:9s} {base:7.3f} {trained:8.3f} {difference:+8.3f}  "
            "[{low:+.3f}, {high:+.3f}]".format(name=name, **numbers)
        )
    if guard:
        print("", *filter(None, (guard["stopped"], guard["kept"])), sep="\n")
    print(f"\nreport: {folder / 'report.html'}\nadapter: {folder / 'adapter'}")
    if guard and guard["best"]:
        print(f"best: {folder / 'best'}")


def sample(options: argparse.Namespace) -> None:
    from cgrpo.commands.sample import sample

    settings = list(options.settings)
    for key, value in (
        ("sampling.steps", options.steps),
        ("sampling.shift", options.shift),
        ("policy.guidance", options.guidance),
    ):
        if value is not None:
            settings.append(f"{key}={value}")
    if options.size is not None:
        width, times, height = options.size.partition("x")
        if not (times and width.isdecimal() and height.isdecimal()):
            raise UserError(f"--size {options.size}: write it as WIDTHxHEIGHT, such as 512x512")
        settings += [f"policy.width={width}", f"policy.height={height}"]
    files = sample(
        options.run,
        options.reference,
        options.prompt,
        options.out,
        recipe=options.recipe,
        settings=settings,
        seeds=options.seeds,
        seed=options.seed,
    )
    print(f"{len(files) - 1} pictures and {files[-1]}")


def plan(options: argparse.Namespace) -> None:
    from cgrpo.config import load_config
    from cgrpo.plan import plan, render

    result = plan(
        load_config(options.recipe, options.settings),
        gpu=options.gpu,
        gpus=options.gpus,
        utilisation=options.utilisation,
        references=options.references,
        tflops=options.tflops,
        memory=options.memory,
    )
    print(render(result))
    if options.json:
        options.json.write_text(json.dumps(result.as_dict(), indent=2) + "\n")


def convert(options: argparse.Namespace) -> None:
    from cgrpo.commands.adapter import convert_adapter

    print(convert_adapter(options.file, options.to, options.out, options.join, only_delta=options.delta_only))


def merge(options: argparse.Namespace) -> None:
    from cgrpo.commands.adapter import merge_adapter
    from cgrpo.config import load_config

    print(merge_adapter(options.file, load_config(options.recipe, options.settings), options.out))


def inspect(options: argparse.Namespace) -> None:
    from cgrpo.commands.adapter import inspect_adapter

    print(json.dumps(inspect_adapter(options.file), indent=2))


def score(options: argparse.Namespace) -> None:
    from cgrpo.commands.score import score

    result = score(
        options.images,
        rewards=options.reward,
        references=options.reference,
        prompt=options.prompt,
        subject=options.subject,
        recipe=options.recipe,
        settings=options.settings,
        sheet=options.sheet,
    )
    for name, unit in result.units.items():
        print(f"{name}: {unit}")
    width = max(len(str(path)) for path, _ in result.rows)
    print("\n" + " " * width + "".join(f"  {name[:18]:>18s}" for name in result.units))
    for path, row in result.rows:
        print(f"{path!s:{width}s}" + "".join(f"  {value:18.4f}" for value in row.values()))
    if options.json:
        rows = [
            {
                "picture": str(path),
                "scores": {name: None if math.isnan(value) else value for name, value in row.items()},
            }
            for path, row in result.rows
        ]
        options.json.write_text(json.dumps({"units": result.units, "pictures": rows}, indent=2) + "\n")


def serve(options: argparse.Namespace) -> None:
    from cgrpo.commands.serve import serve
    from cgrpo.config import load_config

    serve(
        load_config(options.recipe, options.settings),
        options.host,
        options.port,
        names=options.reward,
        token_variable=options.token_variable,
        max_body=options.max_body,
        device=options.device,
    )


def convert_reward(options: argparse.Namespace) -> None:
    from cgrpo.commands.convert import convert_reward

    print(convert_reward(options.file, options.to, options.out, options.reference))


def encode(options: argparse.Namespace) -> None:
    from cgrpo.commands.encode import encode
    from cgrpo.config import load_config

    done = encode(load_config(options.recipe, options.settings), options.out)
    print(f"prompts: {done.texts_made} encoded, {done.texts_kept} already there")
    print(f"references: {done.references_made} encoded, {done.references_kept} already there")
    print(f"train with --set data.cache={options.out}")


def check_data(options: argparse.Namespace) -> int:
    from cgrpo.commands.data import check_data

    report = check_data(options.path, root=options.root, quick=options.quick)
    for problem in report.problems:
        print(f"{problem.kind:15s} {problem.id}: {problem.message}")
    counts = ", ".join(f"{count} {kind}" for kind, count in report.counts.items() if count) or "no problems"
    print(f"{report.rows} rows, {report.pictures} pictures: {counts}")
    if options.json:
        options.json.write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    return 1 if report.problems else 0


def syncd(options: argparse.Namespace) -> None:
    from cgrpo.commands.data import filter_data
    from cgrpo.data import Rules

    models = (options.dino, options.clip, options.head)
    if any(models) and not all(models):
        raise UserError("--dino, --clip and --head go together: the scores are computed with all three")
    parameters = filter_data(
        options.root,
        options.out,
        top=options.top,
        seed=options.seed,
        rules=Rules(options.max_similarity, options.min_similarity, options.min_aesthetic),
        shares=_shares(options.share) or None,
        dino=options.dino,
        clip=options.clip,
        head=options.head,
    )
    print(json.dumps(parameters, indent=2))
    print(f"train with --set data.source={options.out}")


def _shares(texts: list[str]) -> dict[str, float]:
    shares = {}
    for text in texts:
        name, _, share = text.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            raise UserError(f"--share {text}: write it as CATEGORY=SHARE, such as rigid=0.86") from None
    return shares


def cite(options: argparse.Namespace) -> None:
    print(CITATION)


def check_toybox(options: argparse.Namespace) -> None:
    from cgrpo.commands.toybox import check_toybox

    table, iou = check_toybox(options.settings)
    for name, row in table.items():
        print(f"{name:18s}" + "".join(f"  {scorer} {value:.3f}" for scorer, value in row.items()))
    print("segmenter IoU     " + "".join(f"  {name} {value:.3f}" for name, value in iou.items()))


def build_toybox(options: argparse.Namespace) -> None:
    from cgrpo.toybox.build import build_toybox

    build_toybox(options.out, options.seed, options.share, say=print)
