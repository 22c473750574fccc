"""`cgrpo data check` and `cgrpo data syncd`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from cgrpo.build.needs import missing, to_fetch, unfit
from cgrpo.commands.prompts import cut_lines, prompts_of
from cgrpo.config import TOYBOX, Config, load_config, recipes
from cgrpo.data import CheckReport, Rules, Scorers, check_manifest, filter_syncd, hold_out, write_manifest
from cgrpo.data.notes import shared_with
from cgrpo.data.readers import scan
from cgrpo.errors import UserError
from cgrpo.hub import whereabouts
from cgrpo.policies.build import make_cut
from cgrpo.rewards.aesthetic import AestheticSettings
from cgrpo.rewards.dino_seg import DinoSegSettings, Subject
from cgrpo.rewards.fingerprint import reward_fingerprint
from cgrpo.section import TOYBOX_POLICIES
from cgrpo.types import Task


def check_data(path: Path, *, root: Path | None = None, quick: bool = False) -> CheckReport:
    """Every problem of a data set, never stopping at the first; ``quick`` opens no picture."""
    with tqdm(desc="check", unit=" pictures") as bar:
        report = check_manifest(path, root=root, quick=quick, progress=functools.partial(_to, bar))
    if report.left_out:
        print(f"{report.left_out} of {report.rows} rows are left out by the set's own quality filter: docs/data.md")
    return report


def is_recipe(path: Path) -> bool:
    """Whether it names a recipe: a packaged one, unless a file of that name is there, or a TOML file."""
    return path.suffix == ".toml" or (not path.exists() and str(path) in recipes())


def check_recipe(
    recipe: str, settings: Sequence[str] = (), *, quick: bool = False
) -> tuple[list[CheckReport], list[str], list[str]]:
    """Every data set that a recipe names, what the run needs and lacks, and remarks; loads no model.

    Raises UserError for settings that are wrong, and for sets that can't be read at all.
    """
    cfg = load_config(recipe, settings)
    told, notes = missing(cfg), [f"fetched from the hub when the run begins: {line}" for line in to_fetch(cfg)]
    root = Path(cfg.data.root) if cfg.data.root else None
    sets = {} if cfg.data.source == TOYBOX else {cfg.data.source: root}
    sets |= {path: None for path in (cfg.guard.source, cfg.evaluation.source) if path}
    reports = [check_data(Path(path), root=place, quick=quick) for path, place in sets.items()]
    rows = {path: [row for row in scan(Path(path), place) if isinstance(row, Task)] for path, place in sets.items()}
    training = rows.get(cfg.data.source, [])
    cut = _counter(cfg)
    for path, records in rows.items():
        told += [f"{path}: {line}" for line in unfit(cfg, records, trained=path == cfg.data.source)]
        prompts, names = prompts_of(records)
        notes += [f"{path}: {line}" for line in cut_lines(cut(prompts), names)]
        if path != cfg.data.source:
            told += [f"{path}: {line}" for line in shared_with(records, training)]
    return reports, told, notes


def _counter(cfg: Config) -> Callable[[Sequence[str]], dict[str, list[int]]]:
    """What tells the prompts that are cut; nothing where the base isn't here, as is told of it anyway."""
    policy = cfg.policy
    try:
        if policy.path in TOYBOX_POLICIES or whereabouts(policy.path, "folder") != "hub":
            return make_cut(policy)
    except UserError:  # a single file, whose parts lie beside it or nowhere; or none
        pass
    return lambda prompts: {}


def filter_data(
    root: Path,
    out: Path,
    *,
    top: int,
    seed: int = 0,
    rules: Rules | None = None,
    shares: Mapping[str, float] | None = None,
    dino: str = "",
    clip: str = "",
    head: Path | None = None,
    held_out: int = 0,
) -> dict[str, Any]:
    """SynCD's best pairs as the manifest ``out``; returns its parameters.

    ``held_out`` objects more, spread over the same ranking, go into ``NAME.heldout.json`` beside it.
    Scores come from the metadata; where ``dino`` (DINOv2 with registers), ``clip`` (ViT-L/14) and ``head`` (LAION's,
    converted) are given, they are computed, kept beside ``out``, and not computed again.
    """
    scorers = _scorers(dino, clip, head) if dino and clip and head else None
    with tqdm(desc="syncd", unit=" objects") as bar:
        manifest = filter_syncd(
            root,
            top=top + held_out,
            seed=seed,
            rules=rules,
            shares=shares,
            scorers=scorers,
            cache=out.with_suffix(".scores.jsonl") if scorers else None,
            progress=functools.partial(_to, bar),
        )
    if held_out:
        manifest, held = hold_out(manifest, held_out)
        write_manifest(out.with_suffix(".heldout.json"), root, held)
    write_manifest(out, root, manifest)
    return manifest["parameters"]


def _scorers(dino: str, clip: str, head: Path) -> Scorers:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    identity = DinoSegSettings(path=dino, segmenter="", masks="reference").build("identity", device)
    beauty = AestheticSettings(path=clip, head=str(head)).build("aesthetic", device)

    def features(pictures: list[Image.Image], masks: Sequence[Image.Image | None]) -> Tensor:
        pairs = zip(pictures, masks, strict=True)
        return identity.encoder.pictures(identity.crops([Subject(picture, "", mask) for picture, mask in pairs])[0])

    @torch.no_grad()
    def aesthetic(pictures: list[Image.Image]) -> Tensor:
        return beauty.head(beauty.encoder.pictures(pictures))[:, 0]

    name = f"{reward_fingerprint(identity)[:16]}-{reward_fingerprint(beauty)[:16]}"
    return Scorers(name, features, aesthetic)


def _to(bar: tqdm, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)
