"""All commands and their options."""

from __future__ import annotations

import argparse
from pathlib import Path

from cgrpo import __version__
from cgrpo.cli import actions, evaluation

RUN = "a run directory or an adapter (default: the base)"
RECIPE = "a packaged recipe or a TOML file (default: toybox)"


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    core = argparse.ArgumentParser(
        prog="cgrpo", description="Customized-GRPO: reinforcement learning of subject-driven image generators."
    )
    core.add_argument("--version", action="version", version=f"cgrpo {__version__}")
    commands = core.add_subparsers(title="commands", metavar="COMMAND")
    _train(commands)
    _sample(commands)
    _evaluate(commands.add_parser("evaluate", help="score a run, the base, or any pictures on an evaluation set"))
    _plan(commands)
    _adapter(commands.add_parser("adapter", help="adapter files: convert, merge, inspect"))
    _rewards(commands.add_parser("rewards", help="score pictures; serve or convert rewards"))
    _data(commands.add_parser("data", help="data sets"))
    _toybox(commands.add_parser("toybox", help="the embedded world"))
    cite = commands.add_parser("cite", help="how to cite the paper")
    cite.set_defaults(command=actions.cite)
    return core


def _train(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser("train", help="train a policy, compare it with its base, write a report")
    train.add_argument("recipe", nargs="?", default="toybox", help=RECIPE)
    _settings(train)
    train.add_argument("--out", type=Path, metavar="DIR", help="run directory (default: outputs/RECIPE-TIME)")
    train.add_argument("--resume", type=Path, metavar="RUN", help="continue the run in this directory")
    train.set_defaults(command=actions.train)


def _sample(commands: argparse._SubParsersAction) -> None:
    sample = commands.add_parser("sample", help="make pictures of a subject")
    sample.add_argument("run", nargs="?", type=Path, help=RUN)
    sample.add_argument(
        "--reference", type=Path, nargs="+", default=[], metavar="FILE", help="pictures of the subject (default: none)"
    )
    sample.add_argument("--prompt", action="append", required=True, metavar="TEXT", help="what to show; repeatable")
    sample.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the pictures")
    sample.add_argument("--seeds", type=_positive, default=4, metavar="N", help="pictures per prompt (default: 4)")
    sample.add_argument("--seed", type=int, default=0, metavar="S", help="first seed (default: 0; UNO: 3407)")
    sample.add_argument("--steps", metavar="T", help="denoising steps (default: as trained)")
    sample.add_argument("--shift", metavar="S", help="sigma schedule: a number, flux, or uno (default: as trained)")
    sample.add_argument("--guidance", metavar="G", help="distilled guidance (default: as trained; UNO: 4)")
    sample.add_argument("--size", metavar="WxH", help="pixels of the pictures (default: as trained)")
    sample.add_argument("--recipe", default="toybox", help="describes the base, unless a run directory does")
    _settings(sample)
    sample.set_defaults(command=actions.sample)


def _evaluate(evaluate: argparse.ArgumentParser) -> None:
    verbs = evaluate.add_subparsers(metavar="SET", required=True)
    toybox = verbs.add_parser("toybox", help="the toy world's held-out subjects and prompts")
    _benchmark(toybox)
    toybox.add_argument("--subjects", type=_positive, default=30, metavar="N", help="held-out subjects (default: 30)")
    toybox.add_argument("--prompts", type=_positive, default=25, metavar="N", help="prompts a subject (default: 25)")
    toybox.set_defaults(command=evaluation.toybox)
    bench = verbs.add_parser("dreambench", help="DreamBench: generate and score, or score pictures of any system")
    _benchmark(bench)
    bench.add_argument("--data", type=Path, required=True, metavar="DIR", help="the photographs: SUBJECT/NN.jpg")
    bench.add_argument("--list", choices=["single", "multi"], default="single", help="the official list")
    bench.add_argument("--subjects", nargs="+", default=[], metavar="NAME", help="some of its subjects (default: all)")
    bench.set_defaults(command=evaluation.dreambench)
    own = verbs.add_parser("manifest", help="the same for references and prompts of your own")
    own.add_argument("manifest", type=Path, help="a data set: a manifest, a folder, or an archive")
    _benchmark(own)
    own.add_argument("--root", type=Path, metavar="DIR", help="where the pictures lie, if not beside it")
    own.add_argument("--limit", type=int, default=0, metavar="N", help="its first N rows alone (default: 0, all)")
    own.set_defaults(command=evaluation.manifest)
    compare = verbs.add_parser("compare", help="methods scored into one folder: intervals, tests, tables, a page")
    compare.add_argument("folder", type=Path, help="the --out of cgrpo evaluate")
    compare.add_argument("--baseline", metavar="METHOD", help="what the others are compared with (default: base)")
    compare.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for tables, figures and page")
    compare.set_defaults(command=evaluation.compare)


def _benchmark(bench: argparse.ArgumentParser) -> None:
    """What all benchmarks are asked."""
    bench.add_argument("run", nargs="?", type=Path, help=RUN)
    bench.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="pictures and scores; go on where it ended"
    )
    bench.add_argument("--seeds", type=_positive, default=4, metavar="N", help="pictures a prompt (default: 4)")
    bench.add_argument("--first-seed", type=int, default=3407, metavar="S", help="default: 3407, as the paper's code")
    bench.add_argument("--images", type=Path, metavar="DIR", help="score these instead of generating")
    bench.add_argument(
        "--layout",
        default="rows",
        metavar="NAMES",
        help="their names: rows (SUBJECT/PP_SEED.png), uno (ROW_IMAGE.png), or a template such as "
        "{subject}/{slug}/{image} of subject, word, index, prompt, slug, row, image, seed",
    )
    bench.add_argument("--method", default="", metavar="NAME", help="name of the rows (default: the folder's)")
    bench.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="TYPE or TYPE=PATH (dino, clip-i, clip, hpsv3, dino-seg, ...), a reward of the recipe, copy_paste, "
        "brightness, edge_density, saturation, or a judge of the toy world; repeatable (default: dino, clip-i, clip; "
        "for the toy world its rewards and judges)",
    )
    bench.add_argument(
        "--protocol",
        action="append",
        choices=["one", "all"],
        default=[],
        help="what identity is scored against: the one reference of a subject (default), the mean over all its "
        "photographs, or, repeated, both",
    )
    bench.add_argument("--recipe", default="toybox", help="describes the base, unless a run directory does")
    _settings(bench)


def _plan(commands: argparse._SubParsersAction) -> None:
    plan = commands.add_parser("plan", help="parameters, FLOPs, memory and hours of a recipe, before loading anything")
    plan.add_argument("recipe", nargs="?", default="toybox", help=RECIPE)
    _settings(plan)
    plan.add_argument("--gpu", default="a100-80gb", metavar="NAME", help="a GPU by name (default: a100-80gb)")
    plan.add_argument("--tflops", type=float, metavar="T", help="bf16 peak of a GPU that has no name here, TFLOP/s")
    plan.add_argument("--memory", type=float, metavar="GIB", help="its memory, GiB")
    plan.add_argument("--gpus", type=_positive, default=1, metavar="N", help="how many (default: 1)")
    plan.add_argument(
        "--utilisation", type=float, default=0.4, metavar="U", help="share of its bf16 peak, 0 to 1 (default: 0.4)"
    )
    plan.add_argument("--references", type=int, default=1, metavar="N", help="references per task (default: 1)")
    plan.add_argument("--json", type=Path, metavar="FILE", help="also write the plan as JSON")
    plan.set_defaults(command=actions.plan)


def _adapter(adapter: argparse.ArgumentParser) -> None:
    verbs = adapter.add_subparsers(metavar="ACTION", required=True)
    convert = verbs.add_parser("convert", help="write an adapter in another format")
    convert.add_argument("file", type=Path, help="an adapter file or folder: ours, stock diffusers', or UNO's")
    convert.add_argument("--to", choices=["diffusers", "uno"], required=True, help="format of the result")
    convert.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    convert.add_argument(
        "--join",
        type=Path,
        metavar="START",
        help="the starting adapter that was merged into the base: join both by rank, for the plain base",
    )
    convert.add_argument(
        "--delta-only", action="store_true", help="of an adapter on a merged base: only what was trained on top"
    )
    convert.set_defaults(command=actions.convert)
    merge = verbs.add_parser("merge", help="write a whole diffusers folder with the adapter in its weights")
    merge.add_argument("file", type=Path, help="an adapter file or folder")
    merge.add_argument("--recipe", default="toybox", help="describes the base")
    _settings(merge)
    merge.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    merge.set_defaults(command=actions.merge)
    inspect = verbs.add_parser("inspect", help="what an adapter file holds")
    inspect.add_argument("file", type=Path, help="an adapter file or folder")
    inspect.set_defaults(command=actions.inspect)


def _rewards(rewards: argparse.ArgumentParser) -> None:
    verbs = rewards.add_subparsers(metavar="ACTION", required=True)
    score = verbs.add_parser("score", help="a table of scores of pictures, best first")
    score.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="pictures to score")
    score.add_argument(
        "--reward",
        action="append",
        default=[],
        metavar="NAME",
        help="a reward of the recipe, or TYPE=PATH; repeatable (default: all of the recipe)",
    )
    score.add_argument("--reference", type=Path, nargs="+", default=[], metavar="FILE", help="pictures of the subject")
    score.add_argument("--prompt", default="", metavar="TEXT", help="what the pictures should show")
    score.add_argument("--subject", default="", metavar="WORD", help="what a segmenter looks for")
    score.add_argument("--recipe", default="toybox", help="where the rewards are described (default: toybox)")
    _settings(score)
    score.add_argument("--sheet", type=Path, metavar="FILE", help="also write the pictures in that order (PNG)")
    score.add_argument("--json", type=Path, metavar="FILE", help="also write the table as JSON")
    score.set_defaults(command=actions.score)

    serve = verbs.add_parser("serve", help="score for other processes and machines over HTTP")
    serve.add_argument("recipe", nargs="?", default="toybox", help=RECIPE)
    _settings(serve)
    serve.add_argument("--reward", action="append", default=[], metavar="NAME", help="which; repeatable (default: all)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    serve.add_argument("--port", type=int, default=8420, help="port (default: 8420; 0: any free one)")
    serve.add_argument(
        "--token-variable",
        default="",
        metavar="NAME",
        help="environment variable with the token that clients must send; needed for other machines",
    )
    serve.add_argument(
        "--max-body", type=_positive, default=512 * 2**20, metavar="BYTES", help="largest request (default: 512 MiB)"
    )
    serve.add_argument("--device", default="", help="where the rewards compute (default: the first GPU, or the CPU)")
    serve.set_defaults(command=actions.serve)
    convert = verbs.add_parser("convert", help="turn a pickled reward checkpoint into safetensors, once")
    convert.add_argument("file", type=Path, help="a published .pth, .pt or .bin file")
    convert.add_argument(
        "--to",
        required=True,
        choices=["aesthetic-v1", "aesthetic-v2", "hpsv2", "image-reward", "folder"],
        help="what it holds; folder: a transformers checkpoint that is a pytorch_model.bin alone",
    )
    convert.add_argument(
        "--reference", default="", metavar="FOLDER", help="configuration and tokenizer (default: the published one)"
    )
    convert.add_argument("--out", type=Path, required=True, metavar="PATH", help="file or folder to write")
    convert.set_defaults(command=actions.convert_reward)


def _data(data: argparse.ArgumentParser) -> None:
    verbs = data.add_subparsers(metavar="ACTION", required=True)
    encode = verbs.add_parser("encode", help="encode all prompts and references once, so that training needs no T5")
    encode.add_argument("recipe", nargs="?", default="toybox", help=RECIPE)
    _settings(encode)
    encode.add_argument("--out", type=Path, required=True, metavar="DIR", help="the cache; use it as data.cache")
    encode.set_defaults(command=actions.encode)
    check = verbs.add_parser("check", help="every missing, broken, duplicate or suspicious row of a data set")
    check.add_argument("path", type=Path, help="a manifest, a folder, or an archive")
    check.add_argument("--root", type=Path, metavar="DIR", help="where the pictures lie, if not beside it")
    check.add_argument("--quick", action="store_true", help="open no picture: damage and likeness are not looked for")
    check.add_argument("--json", type=Path, metavar="FILE", help="also write the problems as JSON")
    check.set_defaults(command=actions.check_data)
    syncd = verbs.add_parser("syncd", help="choose SynCD's best pairs (the paper's training set)")
    syncd.add_argument("root", type=Path, help="SynCD's folder, unpacked or with its zips")
    syncd.add_argument("--top", type=_positive, default=10000, metavar="N", help="objects to keep (default: 10000)")
    syncd.add_argument("--out", type=Path, required=True, metavar="FILE", help="the manifest to write (.json)")
    syncd.add_argument("--seed", type=int, default=0, help="of the pair taken from each object (default: 0)")
    syncd.add_argument(
        "--max-similarity", type=float, default=0.98, metavar="S", help="near-duplicates lie above (default: 0.98)"
    )
    syncd.add_argument("--min-similarity", type=float, metavar="S", help="floor of a pair's similarity (upstream: 0.7)")
    syncd.add_argument("--min-aesthetic", type=float, metavar="A", help="floor of both pictures' score (upstream: 6)")
    syncd.add_argument(
        "--share", action="append", default=[], metavar="CATEGORY=SHARE", help="share of a category; repeatable"
    )
    syncd.add_argument("--dino", default="", metavar="FOLDER", help="compute similarities with this DINOv2")
    syncd.add_argument("--clip", default="", metavar="FOLDER", help="compute aesthetics with this CLIP ViT-L/14")
    syncd.add_argument("--head", type=Path, metavar="FILE", help="and this converted LAION head")
    syncd.set_defaults(command=actions.syncd)


def _toybox(toybox: argparse.ArgumentParser) -> None:
    verbs = toybox.add_subparsers(metavar="ACTION", required=True)
    check = verbs.add_parser("check", help="how well rewards and judges rank known corruptions; the segmenter's IoU")
    _settings(check)
    check.set_defaults(command=actions.check_toybox)
    build = verbs.add_parser("build", help="make its checkpoints again from a seed")
    build.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the checkpoints")
    build.add_argument("--seed", type=int, default=0, help="seed of all data and weights (default: 0)")
    build.add_argument("--share", type=float, default=1.0, help="share of the full training steps, for a quick try")
    build.set_defaults(command=actions.build_toybox)


def _settings(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="change a setting"
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value
