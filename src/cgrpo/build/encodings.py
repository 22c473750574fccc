"""From the configuration to what fills a store of encodings."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from cgrpo.build.policy import DTYPES, make_checkpoint, make_mark
from cgrpo.config import Config
from cgrpo.policies.checkpoints.flux2 import flux2_places, is_flux2, load_flux2_encoders
from cgrpo.policies.checkpoints.loading import load_encoders, part_places
from cgrpo.policies.checkpoints.parts import read_tokenizer
from cgrpo.policies.encodings.latents import LatentCodec
from cgrpo.policies.encodings.preprocess import prepare_references
from cgrpo.policies.encodings.store import Encoded, EncodingStore, encode_records
from cgrpo.policies.encodings.text import PromptEncoder, Prompts, cut_prompts
from cgrpo.policies.flux2.latents import Flux2Codec
from cgrpo.policies.flux2.policy import NEGATIVE
from cgrpo.policies.flux2.text import Flux2PromptEncoder
from cgrpo.policies.flux2.text import cut_prompts as flux2_cut
from cgrpo.types import Batch


def make_encoder(cfg: Config, out: Path, device: torch.device) -> Callable[..., Encoded]:
    """``encode(batches, progress=None)``, which puts their prompts and references into the store ``out``.

    The transformer is not loaded. Raises UserError for a store of another making, before anything is.
    """
    settings, store = cfg.policy, EncodingStore.create(out, make_mark(cfg))
    codec, prompts, beside = _encoders(cfg, device)
    prepare = functools.partial(
        prepare_references,
        rule=settings.reference_rule,
        one_size=settings.reference_size,
        several_size=settings.several_size,
        multiple=codec.pixels_per_token,
    )

    def encode(batches: Iterable[Batch], progress: Callable[[int], object] | None = None) -> Encoded:
        return encode_records(itertools.chain(beside, batches), prompts, codec, store, prepare, progress)

    return encode


def make_cut(cfg: Config) -> Callable[[Sequence[str]], dict[str, list[int]]]:
    """What tells which prompts the base's text encoders don't read to the end, from its tokenizers alone.

    Raises UserError where one is missing.
    """
    checkpoint = make_checkpoint(cfg)
    if is_flux2(checkpoint):
        return functools.partial(flux2_cut, read_tokenizer(flux2_places(checkpoint)["tokenizer"]))
    places = part_places(checkpoint)
    return functools.partial(cut_prompts, *(read_tokenizer(places[f"{name}_tokenizer"]) for name in ("clip", "t5")))


def _encoders(cfg: Config, device: torch.device) -> tuple[LatentCodec, Prompts, list[Batch]]:
    """The checkpoint's encoders, and what is encoded beside the tasks: the negative prompt where there is one."""
    settings, checkpoint = cfg.policy, make_checkpoint(cfg)
    if is_flux2(checkpoint):
        vae, qwen, tokenizer = load_flux2_encoders(checkpoint, DTYPES[settings.dtype], device)
        negative = Batch((), (NEGATIVE,), (), ())
        return Flux2Codec(vae, settings.reference_latents), Flux2PromptEncoder(qwen, tokenizer), [negative]
    vae, clip, t5, clip_tokenizer, t5_tokenizer = load_encoders(checkpoint, DTYPES[settings.dtype], device)
    return LatentCodec(vae, settings.reference_latents), PromptEncoder(clip, t5, clip_tokenizer, t5_tokenizer), []
