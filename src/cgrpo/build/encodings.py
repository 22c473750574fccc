"""From the configuration to what fills a store of encodings."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from cgrpo.build.policy import DTYPES, make_checkpoint, make_mark
from cgrpo.config import Config
from cgrpo.policies import LatentCodec, PromptEncoder, prepare_references
from cgrpo.policies.checkpoints.loading import load_encoders
from cgrpo.policies.encodings.store import Encoded, EncodingStore, encode_records
from cgrpo.types import Batch


def make_encoder(cfg: Config, out: Path, device: torch.device) -> Callable[..., Encoded]:
    """``encode(batches, progress=None)``, which puts their prompts and references into the store ``out``.

    The transformer is not loaded. Raises UserError for a store of another making, before anything is.
    """
    settings, store = cfg.policy, EncodingStore.create(out, make_mark(cfg))
    vae, clip, t5, clip_tokenizer, t5_tokenizer = load_encoders(make_checkpoint(cfg), DTYPES[settings.dtype], device)
    codec = LatentCodec(vae, settings.reference_latents)
    prompts = PromptEncoder(clip, t5, clip_tokenizer, t5_tokenizer)
    prepare = functools.partial(
        prepare_references,
        rule=settings.reference_rule,
        one_size=settings.reference_size,
        several_size=settings.several_size,
        multiple=codec.pixels_per_token,
    )

    def encode(batches: Iterable[Batch], progress: Callable[[int], object] | None = None) -> Encoded:
        return encode_records(batches, prompts, codec, store, prepare, progress)

    return encode
