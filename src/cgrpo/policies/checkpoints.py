"""Parts of a diffusers folder, loaded strictly: every fault of every part is named, where libraries only warn."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import safe_open

from cgrpo.errors import UserError
from cgrpo.extensions import is_installed
from cgrpo.files import read_table
from cgrpo.hub import asset, locate
from cgrpo.policies.settings import PolicySettings
from cgrpo.section import TOYBOX_POLICIES
from cgrpo.text import cure_for, first_bytes
from cgrpo.weights import read_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Part = TypeVar("Part")

_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")
_STORED = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_STORED |= {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}


def read_tokenizer(folder: Path, check: Callable[[PreTrainedTokenizerBase], object] = lambda tokenizer: None) -> Any:
    """The tokenizer in ``folder``. Raises UserError where there is none, and where ``check`` raises anything."""
    from transformers import AutoTokenizer

    def load(part: Path) -> PreTrainedTokenizerBase:
        found = [name for name in _VOCABULARIES if (part / name).is_file()]
        if not found:  # AutoTokenizer would make an empty one
            raise UserError(f"{part}: holds no tokenizer ({', '.join(_VOCABULARIES)}); copy it there")
        if found == ["spiece.model"] and not is_installed("sentencepiece"):
            raise UserError(f"{part}: its tokenizer is a spiece.model alone; `pip install sentencepiece` to read it")
        tokenizer_length(part, sys.maxsize)
        tokenizer = AutoTokenizer.from_pretrained(part, local_files_only=True)
        if tokenizer.pad_token_id is None:
            raise UserError(f"{part}: its tokenizer has no pad_token", "name one in tokenizer_config.json")
        check(tokenizer)
        return tokenizer

    return _read(folder, load, "copy its files anew")


def tokenizer_length(folder: Path, most: int) -> int:
    """Tokens of a prompt that are read, as ``encodings.text.Window`` counts them: ``most``, or what the tokenizer says.

    Raises UserError for a length that is none.
    """
    file = folder / "tokenizer_config.json"
    length = read_settings(file).get("model_max_length") if file.is_file() else None
    if length is None:
        return most
    if isinstance(length, bool) or not isinstance(length, int | float) or not length >= 1:
        raise UserError(f"{file}: model_max_length = {length!r}", "give the number of tokens that it reads")
    return int(min(most, length))


def _read(part: Path, load: Callable[[Path], Part], cure: str) -> Part:
    """``load(part)``; whatever the libraries raise at a checkpoint's files becomes a UserError of one line."""
    if not part.is_dir():
        raise UserError(f"{part}: this part of the checkpoint is missing; copy it whole, or say where the part is")
    try:
        return load(part)
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        cures = (cure_for(first_bytes(file), "") for file in sorted(part.iterdir()))
        raise UserError(f"{part}: can't be loaded ({reason})", next(filter(None, cures), cure)) from error


def read_weights(
    part: Path,
    kind: Any,
    dtype: torch.dtype | None,
    *,
    also: Collection[str] = (),
    spare: str = "(?!)",
    config: Any = None,
) -> Any:
    """The model of class ``kind`` in ``part``; its weights are all there, all used, and all of the right shape.

    dtype     None: each weight in the precision that it has on disk
    also      other classes that the folder may say it holds
    spare     a regular expression of weights that published checkpoints carry beside this model's
    config    in place of the folder's own
    Raises UserError naming every fault.
    """

    def load(folder: Path) -> Any:
        name = kind.__name__
        settings = read_settings(folder / "config.json")
        architectures = settings.get("architectures")
        found = settings.get("_class_name") or (
            architectures[0] if architectures and isinstance(architectures, list) else name
        )
        if found not in (name, *also):
            raise UserError(f"{folder}: holds a {found}, not a {name}; give a checkpoint of that kind")
        files = weight_files(folder)
        for file in files:
            refuse_integers(file)
        stored = {} if dtype else {key: value for file in files for key, value in stored_dtypes(file).items()}
        model = read_model(
            kind,
            folder,
            dtype or widest(stored.values()),
            where=folder,
            cure="copy the checkpoint anew",
            spare=spare,
            low_cpu_mem_usage=True,
            **({"config": config} if config else {}),
        )
        for key, parameter in model.named_parameters():
            parameter.data = parameter.data.to(stored.get(key, parameter.dtype))
        return model

    return _read(part, load, "only whole safetensors checkpoints are read")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model's folder that its library reads: not a variant's (``*.fp16.safetensors``).

    Raises UserError where one file and pieces of another saving lie there: libraries differ over which they take.
    """
    for name in ("model.safetensors", "diffusion_pytorch_model.safetensors"):
        index = folder / f"{name}.index.json"
        if index.is_file():
            if (folder / name).is_file():
                raise UserError(f"{folder}: holds weights twice, {name} and the pieces of {index.name}; move one away")
            pieces = read_settings(index).get("weight_map")
            return [folder / piece for piece in sorted(set(pieces.values()))] if isinstance(pieces, dict) else []
        if (folder / name).is_file():
            return [folder / name]
    return sorted(folder.glob("*.safetensors"))


def stored_dtypes(file: Path) -> dict[str, torch.dtype]:
    """The precision of each weight in a safetensors file; of floats alone."""
    with safe_open(file, "pt") as opened:
        kinds = {key: opened.get_slice(key).get_dtype() for key in opened.keys()}  # noqa: SIM118
    return {key: _STORED[kind] for key, kind in kinds.items() if kind in _STORED}


def widest(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    """The precision that holds all of them; bfloat16 holds floats of 8 bits."""
    wide = [torch.bfloat16 if dtype.itemsize == 1 else dtype for dtype in dtypes]
    return functools.reduce(torch.promote_types, wide or [torch.bfloat16])


def refuse_integers(file: Path) -> None:
    """Raise a UserError where a safetensors file holds weights of whole numbers: read as they are, their scale is lost.

    Long ones are positions and counts. Raises SafetensorError as the library does.
    """
    with safe_open(file, "pt") as opened:
        for key in opened.keys():  # noqa: SIM118
            kind = opened.get_slice(key).get_dtype()
            if kind in ("I8", "U8", "I16", "U16"):
                raise UserError(f"{file}: {key} holds {kind} numbers, whose scale is unknown; give weights in floats")


def load_together(loads: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """What each of ``loads`` returns, by its name. Raises one UserError with the faults of all that fail."""
    parts, faults = {}, dict[str, None]()
    for name, load in loads.items():
        try:
            parts[name] = load()
        except UserError as error:
            faults[str(error)] = None
    if faults:
        raise UserError(" | ".join(faults))
    return parts


def check_sizes(where: object, pairs: Mapping[str, tuple[int, int]]) -> None:
    """Raises UserError where two sizes that must agree between parts, as ``pairs`` calls them, do not."""
    for what, (one, other) in pairs.items():
        if one != other:
            raise UserError(f"{where}: {what} differ ({one} and {other}); the parts are of different checkpoints")


def read_settings(file: Path) -> dict[str, Any]:
    """A table of JSON in a checkpoint. Raises UserError where there is none."""
    return read_table(file, "copy the checkpoint anew")


def model_index(base: Path) -> dict[str, Any]:
    """What a diffusers folder's model_index.json says; nothing where there is none."""
    file = base / "model_index.json"
    return read_settings(file) if file.is_file() else {}


def locate_base(settings: PolicySettings) -> Path:
    """The checkpoint's folder, or its transformer as a single file, on disk. Raises UserError if there is neither."""
    if settings.path in TOYBOX_POLICIES:
        return asset("policy")
    if settings.path.endswith(".safetensors"):
        return locate(settings.path, "file")
    base = locate(settings.path, "folder")
    if not base.is_dir():
        raise UserError(f"{base}: no checkpoint; give a diffusers folder, or BFL's transformer as a safetensors file")
    return base


def locate_transformer(settings: PolicySettings) -> Path:
    """The transformer's folder on disk, or its single file."""
    base = locate_base(settings)
    return part_folder(base, "transformer", settings.path) if base.is_dir() else base


def part_folder(base: Path, part: str, path: str) -> Path:
    """The folder of a checkpoint's part; ``path`` is policy.path, whose own one counts where it names a toy world's."""
    return asset(f"policy/{part}", path) if path in TOYBOX_POLICIES else base / part


def transformer_class(settings: PolicySettings) -> str:
    """The class that the transformer's config.json names; "" for a single file, or where there is none."""
    file = locate_transformer(settings) / "config.json"
    return str(read_settings(file).get("_class_name", "")) if file.is_file() else ""


def locate_autoencoder(settings: PolicySettings, own: Path) -> Path:
    """The autoencoder's folder, or its file: what ``policy.autoencoder`` names, else the checkpoint's ``own``."""
    if not settings.autoencoder:
        return own
    place = locate(settings.autoencoder, "file" if settings.autoencoder.endswith(".safetensors") else "folder")
    return place / "vae" if (place / "vae").is_dir() else place
