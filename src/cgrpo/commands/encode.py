"""`cgrpo data encode`: prompts and references encoded once, so that training needs no text encoders."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from cgrpo.build import make_final_tasks, make_guard_tasks, make_source
from cgrpo.commands.prompts import cut_lines, prompts_of
from cgrpo.config import Config
from cgrpo.data import ManifestSource
from cgrpo.errors import UserError
from cgrpo.policies.build import make_cut, make_encoder
from cgrpo.policies.encodings.store import Encoded

TASKS_PER_READ = 8


def encode(cfg: Config, out: Path) -> Encoded:
    """Fill the store ``out`` with the encodings of all tasks of ``cfg``'s data, and of its held-out ones if it has any.

    What the store holds already is kept. The transformer is not loaded. Raises UserError for data without an end, and
    for a store of another making.
    """
    source = make_source(cfg)
    if source.size is None:
        raise UserError("data.source = 'toybox' draws tasks without end; give a manifest with --set data.source=FILE")
    if isinstance(source, ManifestSource):
        prompts, names = prompts_of(source.tasks)
        for line in cut_lines(make_cut(cfg.policy)(prompts), names):
            print(f"cgrpo: {line}", file=sys.stderr)
    fill = make_encoder(cfg.policy, out, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    starts = range(0, source.size, TASKS_PER_READ)
    batches = (source.batch(range(start, min(start + TASKS_PER_READ, source.size))) for start in starts)
    watched = [make_guard_tasks(cfg)] if cfg.guard.every else []
    final = make_final_tasks(cfg)
    heldout = [tasks for tasks in (*watched, final and final.batch) if tasks is not None]
    with tqdm(total=source.size + sum(map(len, heldout)), desc="encode") as bar:
        return fill(itertools.chain(batches, heldout), lambda done: bar.update(done - bar.n))
