"""One part of a diffusers folder, loaded strictly: a model or a tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError

from cgrpo.errors import UserError
from cgrpo.policies.checkpoints.strict import refuse_integers, refuse_misfit, refuse_not_finite
from cgrpo.text import cure_for, first_bytes, read_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Part = TypeVar("Part")

# Which classes a folder may say it holds, by the class it is loaded as.
_HOLDS = {
    "CLIPTextModel": ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPModel"),
    "T5EncoderModel": ("T5EncoderModel", "T5ForConditionalGeneration", "T5Model"),
    "Qwen3Model": ("Qwen3ForCausalLM", "Qwen3Model"),
}
# Weights that published checkpoints carry beside the text encoder; nothing else may be left over.
_SPARE = {
    # a whole CLIPModel: the picture half and the heads over both; position_ids: a buffer in files of before 2023
    "CLIPTextModel": r"(vision_model|visual_projection|text_projection)\..*|logit_scale|(.*\.)?position_ids",
    # a whole T5: the decoder half; embed_tokens: the shared table once more
    "T5EncoderModel": r"(decoder|lm_head)\..*|encoder\.embed_tokens\.weight",
    # the layers that FLUX.2 does not read (flux2.py), and the head over words
    "Qwen3Model": r"(model\.)?layers\.(2[7-9]|[3-9]\d)\..*|lm_head\.weight",
}
_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in ``folder``. Raises UserError where there is none."""
    from transformers import AutoTokenizer

    def load(part: Path) -> PreTrainedTokenizerBase:
        found = [name for name in _VOCABULARIES if (part / name).is_file()]
        if not found:  # AutoTokenizer would make an empty one
            raise UserError(f"{part}: holds no tokenizer ({', '.join(_VOCABULARIES)}); copy it there")
        if found == ["spiece.model"] and find_spec("sentencepiece") is None:
            raise UserError(f"{part}: its tokenizer is a spiece.model alone; `pip install sentencepiece` to read it")
        return AutoTokenizer.from_pretrained(part, local_files_only=True)

    return _read(folder, load)


def _read(part: Path, load: Callable[[Path], Part]) -> Part:
    """``load(part)``, its failures told in one line."""
    if not part.is_dir():
        raise UserError(f"{part}: this part of the checkpoint is missing; copy it whole, or say where the part is")
    try:
        return load(part)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        told = (cure_for(first_bytes(file), "") for file in sorted(part.iterdir()))
        cure = next(filter(None, told), "only whole safetensors checkpoints are read")
        raise UserError(f"{part}: can't be loaded ({reason}); {cure}") from error


def read_weights(part: Path, kind: Any, settings: dict[str, Any]) -> Any:
    """The model of class ``kind`` in ``part``; its weights are all there, all used, and all of the right shape.

    ``settings`` go to its ``from_pretrained``: the dtype, under the name that the library has for it.
    """

    def load(folder: Path) -> Any:
        name = kind.__name__
        config = json.loads(read_text(folder / "config.json"))
        found = config.get("_class_name") or (config.get("architectures") or [name])[0]
        if found not in _HOLDS.get(name, (name,)):
            raise UserError(f"{folder}: holds a {found}, not a {name}; give a FLUX checkpoint")
        _refuse_two(folder)
        for file in sorted(folder.glob("*.safetensors")):
            refuse_integers(file)
        with _quiet():
            model, report = kind.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # told by the report, all at once
                low_cpu_mem_usage=True,
                **settings,
            )
        spare = re.compile(_SPARE.get(name, "(?!)"))
        refuse_misfit(
            folder,
            missing=report["missing_keys"],
            unknown=[key for key in report["unexpected_keys"] if not spare.fullmatch(key)],
            misshapen=[
                f"{key} ({list(there)} instead of {list(here)})" for key, there, here in report["mismatched_keys"]
            ],
            cure="copy the checkpoint anew",
        )
        refuse_not_finite(folder, model.state_dict())
        return model

    return _read(part, load)


def _refuse_two(folder: Path) -> None:
    """One file and pieces of another saving lie there: libraries differ over which they take."""
    for name in ("model.safetensors", "diffusion_pytorch_model.safetensors"):
        if (folder / name).is_file() and (folder / f"{name}.index.json").is_file():
            raise UserError(f"{folder}: holds weights twice, {name} and the pieces of {name}.index.json; move one away")


@contextmanager
def _quiet() -> Iterator[None]:
    """The libraries' own reports of what did not fit: ours are errors, and name less that doesn't matter."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    levels = [(log, log.get_verbosity()) for log in (diffusers_logging, transformers_logging)]
    for log, _ in levels:
        log.set_verbosity_error()
    try:
        yield
    finally:
        for log, level in levels:
            log.set_verbosity(level)
