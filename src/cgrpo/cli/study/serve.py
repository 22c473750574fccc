"""`cgrpo study serve`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_verb, path, port

EXAMPLES = """\
cgrpo study serve study
cgrpo study serve study --host 0.0.0.0 --port 8421"""


def add(verbs: argparse._SubParsersAction) -> None:
    serve = add_verb(verbs, "serve", "the study's pages, a link a rater", run, EXAMPLES)
    serve.add_argument("study", type=path, help="folder that cgrpo study create wrote")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    serve.add_argument("--port", type=port, default=8421, help="port (default: 8421; 0: any free one)")


def run(options: argparse.Namespace) -> None:
    from cgrpo.commands.study import serve_study

    serve_study(options.study, options.host, options.port)
