"""`cgrpo rewards serve`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import RECIPE, add_settings, add_verb, port, positive

EXAMPLES = """\
cgrpo rewards serve uno-dinoseg-hpsv3 --reward prompt --port 8420
REWARD_TOKEN=secret cgrpo rewards serve uno-dinoseg-hpsv3 --host 0.0.0.0 \\
    --token-variable REWARD_TOKEN
cgrpo train uno-dinoseg-hpsv3 --set rewards.prompt.type=remote \\
    --set rewards.prompt.reward=prompt --set rewards.prompt.url=http://127.0.0.1:8420"""


def add(verbs: argparse._SubParsersAction) -> None:
    serve = add_verb(verbs, "serve", "score for other processes and machines over HTTP", run, EXAMPLES)
    serve.add_argument("recipe", nargs="?", default="toybox", help=RECIPE)
    add_settings(serve)
    serve.add_argument("--reward", action="append", default=[], metavar="NAME", help="which; repeatable (default: all)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    serve.add_argument("--port", type=port, default=8420, help="port (default: 8420; 0: any free one)")
    serve.add_argument(
        "--token-variable",
        default="",
        metavar="NAME",
        help="environment variable with the token that clients must send; needed for other machines",
    )
    serve.add_argument(
        "--max-body", type=positive, default=512 * 2**20, metavar="BYTES", help="largest request (default: 512 MiB)"
    )
    serve.add_argument("--device", default="", help="where the rewards compute (default: the first GPU, or the CPU)")


def run(options: argparse.Namespace) -> None:
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
