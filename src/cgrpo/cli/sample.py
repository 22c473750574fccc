"""`cgrpo sample`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import RUN, add_settings, add_verb, listed, path, seed, share
from cgrpo.errors import UserError

EXAMPLES = """\
cgrpo sample outputs/naive-1 --reference toy.png --prompt "a toy in the snow" --out pictures
cgrpo sample outputs/identity --blend outputs/prompt=0.3 --reference toy.png \\
    --prompt "a toy in the snow" --out pictures
cgrpo sample --recipe uno-dinoseg-hpsv3 --reference cat.png hat.png \\
    --prompt "a cat wearing the hat" --shift uno --guidance 4 --seed 3407 --out uno"""


def add(verbs: argparse._SubParsersAction) -> None:
    sample = add_verb(verbs, "sample", "make pictures of a subject", run, EXAMPLES)
    sample.add_argument("run", nargs="?", type=path, help=RUN)
    sample.add_argument(
        "--reference", type=path, nargs="+", default=[], metavar="FILE", help="pictures of the subject (default: none)"
    )
    sample.add_argument("--prompt", action="append", required=True, metavar="TEXT", help="what to show; repeatable")
    sample.add_argument("--out", type=path, required=True, metavar="DIR", help="folder for the pictures")
    sample.add_argument("--seeds", type=listed, default=4, metavar="N", help="pictures per prompt (default: 4)")
    sample.add_argument(
        "--seed", type=seed, default=0, metavar="S", help="first seed (default: 0; UNO's own begin at 3407)"
    )
    sample.add_argument("--steps", metavar="T", help="denoising steps (default: as trained)")
    sample.add_argument(
        "--shift", metavar="S", help="sigma schedule: a number, flux, uno, or flux2 (default: as trained)"
    )
    sample.add_argument("--guidance", metavar="G", help="guidance (default: as evaluated; UNO: 4)")
    sample.add_argument("--size", metavar="WxH", help="pixels of the pictures (default: as trained)")
    sample.add_argument(
        "--blend",
        type=share,
        action="append",
        default=[],
        metavar="RUN=SHARE",
        help="mix in another run of the same base, with a share from 0 to 1; repeatable",
    )
    sample.add_argument("--recipe", default="toybox", help="describes the base, unless a run directory does")
    add_settings(sample)


def run(options: argparse.Namespace) -> None:
    from cgrpo.commands.sample import sample

    settings = list(options.settings)
    for key, value in (
        ("sampling.steps", options.steps),
        ("sampling.shift", options.shift),
        ("policy.guidance", options.guidance),
        ("policy.evaluation_guidance", options.guidance),
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
        blend=options.blend,
    )
    print(f"{len(files) - 1} pictures and {files[-1]}")
