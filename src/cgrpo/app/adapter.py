"""`cgrpo adapter`: convert, merge, blend and inspect adapter files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cgrpo.app.options import File, Folder, Settings, Shares, command, group
from cgrpo.files import json_text

JOIN = (
    "the starting adapter that was merged into the base, a file or owner/name/file.safetensors of the hub: join both "
    "by rank, for the plain base"
)


def convert(
    file: File,
    /,
    *,
    to: Literal["diffusers", "uno", "comfyui"],
    out: File,
    join: Annotated[str | None, Parameter(metavar="START", help=JOIN)] = None,
    delta_only: bool = False,
) -> Path:
    """Write an adapter in another format.

    Args:
        file: an adapter file or folder: ours, diffusers', peft's, UNO's, kohya's, ComfyUI's
        to: format of the result
        out: file to write
        delta_only: of an adapter on a merged base: only what was trained on top
    """
    from cgrpo.hub import locate
    from cgrpo.policies.adapters.exchange import convert_adapter

    return convert_adapter(file, to, out, locate(join, "file") if join else None, only_delta=delta_only)


def merge(
    file: File,
    /,
    *,
    recipe: Annotated[str, Parameter(metavar="RECIPE")] = "toybox",
    settings: Settings = (),
    out: Folder,
) -> Path:
    """Write a whole diffusers folder with the adapter in its weights.

    Args:
        file: an adapter file or folder
        recipe: describes the base; an adapter that it starts with is merged too
        out: folder to write
    """
    from cgrpo.config import load_config
    from cgrpo.policies.merge import merge_adapter

    return merge_adapter(file, load_config(recipe, settings).policy, out)


def blend(first: Annotated[Folder, Parameter(metavar="RUN")], others: Shares, /, *, out: Folder) -> Path:
    """Mix adapters of one base, exactly.

    Args:
        first: a run or an adapter; its share is what the others leave of 1
        others: other runs or adapters, with shares from 0 to 1
        out: file or folder to write
    """
    return blend_runs(first, others, out)


def blend_runs(first: Path, others: Sequence[tuple[Path, float]], out: Path) -> Path:
    """The mix of runs' adapters, or of adapter files or folders; see ``blend_adapters``."""
    from cgrpo.policies.adapters.exchange import blend_adapters

    return blend_adapters(_adapter(first), [(_adapter(run), share) for run, share in others], out)


def _adapter(run: Path) -> Path:
    """The adapter of a run directory; anything else is an adapter."""
    from cgrpo.training.record import RunRecord

    return RunRecord(run).adapter if (run / "config.json").exists() else run


def inspect(file: File, /) -> None:
    """What an adapter file holds.

    Args:
        file: an adapter file or folder
    """
    from cgrpo.policies.adapters.exchange import inspect_adapter

    print(json_text(inspect_adapter(file), indent=2))


CONVERT_EXAMPLES = """\
cgrpo adapter convert outputs/paper/adapter --to diffusers \\
    --join bytedance-research/UNO/dit_lora.safetensors \\
    --out for-flux-dev.safetensors
cgrpo adapter convert dit_lora.safetensors --to diffusers \\
    --out uno-for-diffusers.safetensors
cgrpo adapter convert outputs/kontext/adapter --to comfyui \\
    --out ComfyUI/models/loras/toy.safetensors"""
MERGE_EXAMPLES = "cgrpo adapter merge outputs/paper/adapter --recipe uno-dinoseg-hpsv3 --out flux"
BLEND_EXAMPLES = """\
cgrpo adapter blend outputs/identity outputs/prompt=0.3 --out between
cgrpo sample between --reference toy.png --prompt "a toy in the snow" \\
    --out pictures"""

app = group(
    "adapter",
    "Convert, merge, blend and inspect adapter files.",
    command("convert", convert, CONVERT_EXAMPLES, print),
    command("merge", merge, MERGE_EXAMPLES, print),
    command("blend", blend, BLEND_EXAMPLES, print),
    command("inspect", inspect, "cgrpo adapter inspect outputs/paper/adapter"),
)
