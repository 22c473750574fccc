"""`cgrpo sample`: pictures of a subject."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cgrpo.app.options import BaseRecipe, Files, Folder, Many, Run, Settings, Shares, Whole, check_pictures, command
from cgrpo.errors import UserError
from cgrpo.files import save_picture, writing
from cgrpo.text import is_blank

if TYPE_CHECKING:
    from cgrpo.config import Config
    from cgrpo.policies.base import Policy


def sample(
    run: Run = None,
    /,
    *,
    reference: Files = (),
    prompts: Annotated[Sequence[str], Parameter(name="--prompt", metavar="TEXT")],
    out: Folder,
    seeds: Many = 4,
    seed: Whole = 0,
    steps: Annotated[str | None, Parameter(metavar="T")] = None,
    shift: Annotated[str | None, Parameter(metavar="S")] = None,
    guidance: Annotated[str | None, Parameter(metavar="G")] = None,
    size: Annotated[str | None, Parameter(metavar="WxH")] = None,
    blend: Shares = (),
    recipe: BaseRecipe = "toybox",
    settings: Settings = (),
) -> list[Path]:
    """Make pictures of a subject.

    Args:
        reference: pictures of the subject (default: none)
        prompts: what to show; repeatable
        out: folder for the pictures
        seeds: pictures per prompt
        seed: first seed; UNO's own begin at 3407
        steps: denoising steps (default: as trained)
        shift: sigma schedule: a number, or a rule of the model's family, such as flux (default: as trained)
        guidance: guidance (default: as evaluated; UNO: 4)
        size: pixels of the pictures (default: as trained)
        blend: mix in another run of the same base, with a share from 0 to 1; repeatable

    Returns:
        A PNG file per prompt and seed, and a sheet of them all. A seed is the same noise for every prompt, as
        diffusers' pipelines draw it.

    Raises:
        UserError: one of the files exists already.
    """
    from cgrpo.config import load_config

    if not prompts or any(map(is_blank, prompts)):
        raise UserError("--prompt is empty; say what the picture should show")
    if blend and run is None:
        raise UserError("--blend mixes RUN with others; name the run")
    check_pictures(reference, "--reference ")
    count = len(prompts)
    files = [out / f"prompt{number}-seed{seed + offset}.png" for number in range(count) for offset in range(seeds)]
    files.append(out / "sheet.png")
    existing = next((file for file in files if file.exists()), None)
    if existing is not None:
        raise UserError(f"{existing}: is there already, maybe of other prompts, and is kept; give another --out")
    shortcuts = _as_settings(steps, shift, guidance, size)
    cfg, adapter = configuration(run, load_config(recipe), [*settings, *shortcuts])

    # What is wrong above is said before torch is loaded.
    from cgrpo.app.adapter import blend_runs
    from cgrpo.app.needs import print_cut, unknown_words
    from cgrpo.build import make_policy
    from cgrpo.data.archives import open_picture
    from cgrpo.evaluation.sampling import follow, seed_noise
    from cgrpo.evaluation.show.sheets import sample_sheet
    from cgrpo.rewards.base import to_pictures
    from cgrpo.types import Batch

    pictures = tuple(open_picture(path, cfg.policy.reference_alpha) for path in reference)
    with TemporaryDirectory() as scratch:
        if blend and run is not None:
            adapter = blend_runs(run, blend, Path(scratch))
        policy = make_policy(cfg, adapter=adapter)
    if unknown := unknown_words(cfg, prompts):
        print(f"cgrpo: {unknown}", file=sys.stderr)
    print_cut(policy.cut_prompts(prompts), [f"prompt {number}" for number in range(count)])
    batch = Batch(tuple(map(str, range(count))), tuple(prompts), (pictures,) * count, ("",) * count).repeat(seeds)
    noise_NLC = seed_noise(policy, range(seed, seed + seeds)).repeat(count, 1, 1)
    sigmas = policy.sigmas(cfg.sampling.steps, cfg.sampling.shift)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        images_NHWC = follow(policy, batch, noise_NLC, sigmas, cfg.evaluation.batch)
        for file, picture in zip(files[:-1], to_pictures(images_NHWC), strict=True):
            save_picture(picture, file)
        save_picture(sample_sheet(images_NHWC, batch.select(range(0, len(batch), seeds)), seeds), files[-1])
    return files


def _as_settings(steps: str | None, shift: str | None, guidance: str | None, size: str | None) -> list[str]:
    values = {
        "sampling.steps": steps,
        "sampling.shift": shift,
        "policy.guidance": guidance,
        "policy.evaluation_guidance": guidance,
    }
    if size is not None:
        width, times, height = size.partition("x")
        if not (times and width.isdecimal() and height.isdecimal()):
            raise UserError(f"--size {size}: write it as WIDTHxHEIGHT, such as 512x512")
        values |= {"policy.width": width, "policy.height": height}
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def configuration(run: Path | None, cfg: Config, settings: Sequence[str] = ()) -> tuple[Config, Path | None]:
    """What describes the policy of ``run``, and its adapter.

    A run brings its own configuration, also to its folders best/ and adapter/; otherwise ``cfg`` describes the base.
    ``settings`` go on top of either. No store of encodings is used: other prompts must work too.
    """
    from cgrpo.config import override
    from cgrpo.training.record import RunRecord

    adapter = run
    if run is not None and (run / "config.json").exists():
        record, cfg = RunRecord.open(run)
        adapter = record.adapter
    elif run is not None and run.name in ("adapter", "best") and (run.parent / "config.json").exists():
        _, cfg = RunRecord.open(run.parent)
    return override(cfg, ["data.cache=", *settings]), adapter


def open_policy(run: Path | None, cfg: Config, settings: Sequence[str] = ()) -> tuple[Config, Policy]:
    """The policy of a run directory or of an adapter file or folder; None is the base. See ``configuration``."""
    from cgrpo.build import make_policy

    cfg, adapter = configuration(run, cfg, settings)
    return cfg, make_policy(cfg, adapter=adapter)


def show_files(files: list[Path]) -> None:
    print(f"{len(files) - 1} pictures and {files[-1]}")


EXAMPLES = """\
cgrpo sample outputs/naive-1 --reference toy.png \\
    --prompt "a toy in the snow" --out pictures
cgrpo sample outputs/identity --blend outputs/prompt=0.3 --reference toy.png \\
    --prompt "a toy in the snow" --out pictures
cgrpo sample --recipe uno-dinoseg-hpsv3 --reference cat.png hat.png \\
    --prompt "a cat wearing the hat" --shift uno --guidance 4 --seed 3407 \\
    --out uno"""

app = command("sample", sample, EXAMPLES, show_files)
