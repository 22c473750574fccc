"""`cgrpo data encode`: prompts and references encoded once, so that training needs no text encoders."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import torch
from tqdm import tqdm

from cgrpo.build import DTYPES, make_checkpoint, make_guard_tasks, make_mark, make_source
from cgrpo.config import Config
from cgrpo.errors import UserError
from cgrpo.policies import LatentCodec, PromptEncoder, prepare_references
from cgrpo.policies.checkpoints.loading import load_encoders
from cgrpo.policies.encodings.store import Encoded, EncodingStore, encode_records

TASKS_PER_READ = 8


def encode(cfg: Config, out: Path) -> Encoded:
    """Fill the store ``out`` with the encodings of all tasks of ``cfg``'s data, and of its guard's if it has any.

    What the store holds already is kept. The transformer is not loaded. Raises UserError for data without an end, and
    for a store of another making.
    """
    source, settings = make_source(cfg), cfg.policy
    if source.size is None:
        raise UserError("data.source = 'toybox' draws tasks without end; give a manifest with --set data.source=FILE")
    store = EncodingStore.create(out, make_mark(cfg))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vae, clip, t5, clip_tokenizer, t5_tokenizer = load_encoders(make_checkpoint(cfg), DTYPES[settings.dtype], device)
    codec = LatentCodec(vae, settings.reference_latents)
    prepare = functools.partial(
        prepare_references,
        rule=settings.reference_rule,
        one_size=settings.reference_size,
        several_size=settings.several_size,
        multiple=codec.pixels_per_token,
    )
    starts = range(0, source.size, TASKS_PER_READ)
    batches = (source.batch(range(start, min(start + TASKS_PER_READ, source.size))) for start in starts)
    heldout = make_guard_tasks(cfg) if cfg.guard.every else None
    watched = () if heldout is None else (heldout,)
    with tqdm(total=source.size + sum(map(len, watched)), desc="encode") as bar:
        return encode_records(
            itertools.chain(batches, watched),
            PromptEncoder(clip, t5, clip_tokenizer, t5_tokenizer),
            codec,
            store,
            prepare,
            lambda done: bar.update(done - bar.n),
        )
