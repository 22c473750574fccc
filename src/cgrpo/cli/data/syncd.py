"""`cgrpo data syncd`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_verb, count, finite, path, positive, seed
from cgrpo.errors import UserError
from cgrpo.files import json_text

EXAMPLES = """\
cgrpo data syncd syncd/ --top 10000 --held-out 50 --out train.json
cgrpo data syncd syncd/ --min-similarity 0.7 --min-aesthetic 6 --share rigid=0.86 \\
    --out train.json"""


def add(verbs: argparse._SubParsersAction) -> None:
    syncd = add_verb(verbs, "syncd", "choose SynCD's best pairs (the paper's training set)", run, EXAMPLES)
    syncd.add_argument("root", type=path, help="SynCD's folder, unpacked or with its zips")
    syncd.add_argument("--top", type=positive, default=10000, metavar="N", help="objects to keep (default: 10000)")
    syncd.add_argument("--out", type=path, required=True, metavar="FILE", help="the manifest to write (.json)")
    syncd.add_argument(
        "--held-out",
        type=count,
        default=0,
        metavar="N",
        help="so many objects more, never trained on, into NAME.heldout.json (default: 0)",
    )
    syncd.add_argument("--seed", type=seed, default=0, help="of the pair taken from each object (default: 0)")
    syncd.add_argument(
        "--max-similarity", type=finite, default=0.98, metavar="S", help="near-duplicates lie above (default: 0.98)"
    )
    syncd.add_argument(
        "--min-similarity", type=finite, metavar="S", help="floor of a pair's similarity (upstream: 0.7)"
    )
    syncd.add_argument("--min-aesthetic", type=finite, metavar="A", help="floor of both pictures' score (upstream: 6)")
    syncd.add_argument(
        "--share", action="append", default=[], metavar="CATEGORY=SHARE", help="share of a category; repeatable"
    )
    syncd.add_argument("--dino", default="", metavar="FOLDER", help="compute similarities with this DINOv2")
    syncd.add_argument("--clip", default="", metavar="FOLDER", help="compute aesthetics with this CLIP ViT-L/14")
    syncd.add_argument("--head", type=path, metavar="FILE", help="and this converted LAION head")


def run(options: argparse.Namespace) -> None:
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
        held_out=options.held_out,
    )
    print(json_text(parameters, indent=2))
    beside = f" --set guard.source={options.out.with_suffix('.heldout.json')}" if options.held_out else ""
    print(f"train with --set data.source={options.out}{beside}")


def _shares(texts: list[str]) -> dict[str, float]:
    shares = {}
    for text in texts:
        name, _, share = text.partition("=")
        try:
            shares[name] = finite(share)
        except (ValueError, argparse.ArgumentTypeError):
            raise UserError(f"--share {text}: write it as CATEGORY=SHARE, such as rigid=0.86") from None
    return shares
