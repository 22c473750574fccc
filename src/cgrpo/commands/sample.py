"""`cgrpo sample`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from cgrpo.build import make_policy
from cgrpo.commands.adapter import blend_runs
from cgrpo.commands.prompts import say_cut
from cgrpo.config import TOYBOX, Config, load_config, override
from cgrpo.data.archives import open_picture
from cgrpo.errors import UserError
from cgrpo.evaluation.sampling import follow, seed_noise
from cgrpo.evaluation.show.sheets import sample_sheet
from cgrpo.files import save_picture
from cgrpo.policies.base import Policy
from cgrpo.rewards.base import to_pictures
from cgrpo.text import is_blank
from cgrpo.training.record import Record
from cgrpo.types import Batch


def open_policy(run: Path | None, cfg: Config, settings: Sequence[str] = ()) -> tuple[Config, Policy]:
    """The policy of a run directory or of an adapter file or folder; None is the base. See ``configuration``."""
    cfg, adapter = configuration(run, cfg, settings)
    return cfg, make_policy(cfg, adapter=adapter)


def configuration(run: Path | None, cfg: Config, settings: Sequence[str] = ()) -> tuple[Config, Path | None]:
    """What describes the policy of ``run``, and its adapter.

    A run brings its own configuration, to its folders best/ and adapter/ too; else ``cfg`` describes the base.
    ``settings`` go on top of either.
    """
    adapter = run
    if run is not None and (run / "config.json").exists():
        record, cfg = Record.open(run)
        adapter = record.adapter
    elif run is not None and run.name in ("adapter", "best") and (run.parent / "config.json").exists():
        _, cfg = Record.open(run.parent)
    return override(cfg, ["data.cache=", *settings]), adapter  # prompts that were never encoded must do, too


def sample(
    run: Path | None,
    references: Sequence[Path],
    prompts: Sequence[str],
    out: Path,
    *,
    recipe: str = TOYBOX,
    settings: Sequence[str] = (),
    seeds: int = 4,
    seed: int = 0,
    blend: Sequence[tuple[Path, float]] = (),
) -> list[Path]:
    """Pictures of the referenced subject for each prompt and seed, as PNG files in ``out``, and a sheet of them all.

    Seeds are ``seed`` .. ``seed + seeds - 1``, each the same noise for every prompt, as diffusers' pipelines draw it.
    ``blend``: other runs of the same base, with their shares; the policy is then the mix of all (``blend_adapters``).
    Without ``references`` the prompt stands alone. ``recipe`` describes the base where ``run`` is no run directory.
    Raises UserError where one of the files is there already.
    """
    if not prompts or any(map(is_blank, prompts)):
        raise UserError("--prompt is empty; say what the picture should show")
    cfg, adapter = configuration(run, load_config(recipe), settings)
    with TemporaryDirectory() as scratch:
        if blend:
            if run is None:
                raise UserError("--blend mixes RUN with others; name the run")
            adapter = blend_runs(run, blend, Path(scratch))
        policy = make_policy(cfg, adapter=adapter)
    pictures = tuple(open_picture(path, cfg.policy.reference_alpha) for path in references)
    sigmas = policy.sigmas(cfg.sampling.steps, cfg.sampling.shift)
    count = len(prompts)
    files = [out / f"prompt{number}-seed{seed + offset}.png" for number in range(count) for offset in range(seeds)]
    files.append(out / "sheet.png")
    there = next((file for file in files if file.exists()), None)
    if there is not None:
        raise UserError(f"{there}: is there already, maybe of other prompts, and is kept; give another --out")
    say_cut(policy, prompts, [f"prompt {number}" for number in range(count)])
    batch = Batch(tuple(str(n) for n in range(count)), tuple(prompts), (pictures,) * count, ("",) * count).repeat(seeds)
    noise_NLC = seed_noise(policy, range(seed, seed + seeds)).repeat(count, 1, 1)
    try:
        out.mkdir(parents=True, exist_ok=True)
        images_NHWC = follow(policy, batch, noise_NLC, sigmas, cfg.evaluation.batch)
        for file, picture in zip(files[:-1], to_pictures(images_NHWC), strict=True):
            save_picture(picture, file)
        save_picture(sample_sheet(images_NHWC, batch.select(range(0, len(batch), seeds)), seeds), files[-1])
    except OSError as error:
        raise UserError(f"can't write to {out}: {error.strerror}; give another --out") from error
    return files
