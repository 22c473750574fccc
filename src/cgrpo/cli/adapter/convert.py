"""`cgrpo adapter convert`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_verb, path

EXAMPLES = """\
cgrpo adapter convert outputs/paper/adapter --to diffusers \\
    --join bytedance-research/UNO/dit_lora.safetensors --out for-flux-dev.safetensors
cgrpo adapter convert dit_lora.safetensors --to diffusers --out uno-for-diffusers.safetensors
cgrpo adapter convert outputs/kontext/adapter --to comfyui \\
    --out ComfyUI/models/loras/toy.safetensors"""


def add(verbs: argparse._SubParsersAction) -> None:
    convert = add_verb(verbs, "convert", "write an adapter in another format", run, EXAMPLES)
    convert.add_argument(
        "file", type=path, help="an adapter file or folder: ours, diffusers', peft's, UNO's, kohya's, ComfyUI's"
    )
    convert.add_argument("--to", choices=["diffusers", "uno", "comfyui"], required=True, help="format of the result")
    convert.add_argument("--out", type=path, required=True, metavar="FILE", help="file to write")
    convert.add_argument(
        "--join",
        metavar="START",
        help="the starting adapter that was merged into the base, a file or owner/name/file.safetensors of the hub: "
        "join both by rank, for the plain base",
    )
    convert.add_argument(
        "--delta-only", action="store_true", help="of an adapter on a merged base: only what was trained on top"
    )


def run(options: argparse.Namespace) -> None:
    from cgrpo.commands.adapter import convert_adapter
    from cgrpo.hub import locate

    start = locate(options.join, "file") if options.join else None
    print(convert_adapter(options.file, options.to, options.out, start, only_delta=options.delta_only))
