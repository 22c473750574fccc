"""What `cgrpo data` does with data sets: check them, encode their tasks, choose SynCD's best pairs."""

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from cgrpo.app.needs import (
    cut_lines,
    make_final_tasks,
    make_guard_tasks,
    missing,
    print_cut,
    prompts_of,
    to_fetch,
    unfit,
)
from cgrpo.build import make_source
from cgrpo.config import Config, load_config
from cgrpo.data import CheckReport, ManifestSource, Scorers, check_manifest
from cgrpo.data.notes import shared_with
from cgrpo.data.readers import scan
from cgrpo.errors import UserError, page
from cgrpo.hub import whereabouts
from cgrpo.policies.build import family_of
from cgrpo.policies.encodings.store import Encoded
from cgrpo.rewards.aesthetic import AestheticSettings
from cgrpo.rewards.dino import DinoSegSettings, SubjectPicture
from cgrpo.rewards.fingerprint import reward_fingerprint
from cgrpo.section import TOYBOX_POLICIES, TOYBOX_WORLDS
from cgrpo.types import Task

TASKS_PER_READ = 8


def check_data(path: Path, *, root: Path | None = None, quick: bool = False) -> CheckReport:
    """Every problem of a data set, never stopping at the first; ``quick`` opens no picture."""
    with tqdm(desc="check", unit=" pictures", delay=0.5) as bar:
        report = check_manifest(path, root=root, quick=quick, progress=functools.partial(advance, bar))
    if report.left_out:
        rows = f"{report.left_out} of {report.rows} rows"
        print(f"the data set's own quality filter leaves out {rows}: {page('reference/data')}")
    return report


def check_recipe(
    recipe: str, settings: Sequence[str] = (), *, quick: bool = False
) -> tuple[list[CheckReport], list[str], list[str]]:
    """Every data set that a recipe names, what the run needs and lacks, and remarks; loads no model.

    Raises UserError for settings that are wrong, and for sets that can't be read at all.
    """
    cfg = load_config(recipe, settings)
    needs, notes = missing(cfg), [f"fetched from the hub when the run begins: {line}" for line in to_fetch(cfg)]
    root = Path(cfg.data.root) if cfg.data.root else None
    sets = {} if cfg.data.source in TOYBOX_WORLDS else {cfg.data.source: root}
    sets |= {path: None for path in (cfg.guard.source, cfg.evaluation.source) if path}
    reports = [check_data(Path(path), root=place, quick=quick) for path, place in sets.items()]
    rows = {path: [row for row in scan(Path(path), place) if isinstance(row, Task)] for path, place in sets.items()}
    training = rows.get(cfg.data.source, [])
    cut = _cut(cfg)
    for path, tasks in rows.items():
        needs += [f"{path}: {line}" for line in unfit(cfg, tasks, trained=path == cfg.data.source)]
        prompts, names = prompts_of(tasks)
        notes += [f"{path}: {line}" for line in cut_lines(cut(prompts), names)]
        if path != cfg.data.source:
            needs += [f"{path}: {line}" for line in shared_with(tasks, training)]
    return reports, needs, notes


def _cut(cfg: Config) -> Callable[[Sequence[str]], dict[str, list[int]]]:
    """Finds the prompts that are cut; none where the base isn't here, which is reported anyway."""
    policy = cfg.policy
    try:
        if policy.path in TOYBOX_POLICIES or whereabouts(policy.path, "folder") != "hub":
            return family_of(policy).make_cut(policy)
    except UserError:  # a single file, whose parts lie beside it or nowhere; or none
        pass
    return lambda prompts: {}


def encode_tasks(cfg: Config, out: Path) -> Encoded:
    """Fill the store ``out`` with the encodings of all tasks of ``cfg``'s data, and of its held-out ones if it has any.

    What the store holds already is kept. The transformer is not loaded. Raises UserError for the endless toy world, and
    for a store made with other settings.
    """
    source = make_source(cfg)
    if source.size is None:
        raise UserError("data.source = 'toybox' draws tasks without end; give a manifest with --set data.source=FILE")
    if isinstance(source, ManifestSource):
        prompts, names = prompts_of(source.tasks)
        print_cut(family_of(cfg.policy).make_cut(cfg.policy)(prompts), names)
    fill = family_of(cfg.policy).make_encoder(
        cfg.policy, out, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    )
    starts = range(0, source.size, TASKS_PER_READ)
    batches = (source.batch(range(start, min(start + TASKS_PER_READ, source.size))) for start in starts)
    watched = [make_guard_tasks(cfg)] if cfg.guard.every else []
    final = make_final_tasks(cfg)
    heldout = [tasks for tasks in (*watched, final.batch if final else None) if tasks is not None]
    with tqdm(total=source.size + sum(map(len, heldout)), desc="encode") as bar:
        return fill(itertools.chain(batches, heldout), lambda done: bar.update(done - bar.n))


def syncd_scorers(dino: str, clip: str, head: Path) -> Scorers:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    identity = DinoSegSettings(path=dino, segmenter="", masks="reference").build("identity", device)
    beauty = AestheticSettings(path=clip, head=str(head)).build("aesthetic", device)

    def features(pictures: list[Image.Image], masks: Sequence[Image.Image | None]) -> Tensor:
        pairs = zip(pictures, masks, strict=True)
        return identity.encoder.pictures(
            identity.crops([SubjectPicture(picture, "", mask) for picture, mask in pairs])[0]
        )

    @torch.no_grad()
    def aesthetic(pictures: list[Image.Image]) -> Tensor:
        return beauty.head(beauty.encoder.pictures(pictures))[:, 0]

    name = f"{reward_fingerprint(identity)[:16]}-{reward_fingerprint(beauty)[:16]}"
    return Scorers(name, features, aesthetic)


def advance(bar: tqdm, done: int, total: int) -> None:
    """Move a progress bar to ``done`` of ``total``."""
    bar.total = total
    bar.update(done - bar.n)
