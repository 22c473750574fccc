"""Adapter files: tensors, and a header that tells which weights they belong to."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.files import reading, writing
from cgrpo.fingerprint import of_tensors
from cgrpo.policies.adapters.keys import State, split_to_adapter
from cgrpo.policies.adapters.known import Known, read_keys
from cgrpo.policies.adapters.scales import config_settings, header_settings
from cgrpo.policies.family import refuse_other_family
from cgrpo.policies.layouts import Layout
from cgrpo.tensor_files import write_tensors
from cgrpo.weights import refuse_not_finite

FILE_NAME = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for
PEFT = "base_model.model."  # before the keys that peft saves
NAMES = (FILE_NAME, "adapter_model.safetensors")  # the other is peft's


@dataclass(frozen=True)
class Origin:
    """The weights that an adapter was, or is to be, trained on.

    base         what the base checkpoint is called; for people
    base_hash    its transformer's fingerprint (fingerprint.py), before any starting adapter; "" is unknown
    start_hash   the fingerprint of the adapter that training started from, "" without one
    start_mode   "merge": that adapter is part of the base now, and the trained one is valid there only;
                 "continue": it was trained further, and the result is valid on the plain base
    """

    base: str
    base_hash: str
    start_hash: str = ""
    start_mode: Literal["", "merge", "continue"] = ""

    @property
    def merged(self) -> str:
        """The fingerprint of the start that is part of the base now; "" without one."""
        return self.start_hash if self.start_mode == "merge" else ""

    def __str__(self) -> str:
        start = f"start {self.merged[:12]}" if self.merged else "nothing"
        return f"{self.base or 'a base'} ({self.base_hash[:12]}) with {start} merged in"


def adapter_file(path: Path) -> Path:
    """``path``, or the adapter in the folder that it is: of a known name, or the only one there."""
    if not path.is_dir():
        return path
    others = sorted(path.glob("*.safetensors"))
    only = others[0] if len(others) == 1 else path / FILE_NAME
    return next((path / name for name in NAMES if (path / name).is_file()), only)


def read_raw(path: str | Path) -> tuple[Path, State, dict[str, str]]:
    """(the file, its tensors under its own keys, its header); ``path`` is a file or a folder with one of NAMES.

    Raises UserError if there is none, it can't be read, or a number in it is not finite.
    """
    file = adapter_file(Path(path))
    if not file.is_file():
        raise UserError(f"{file}: no such adapter; give a safetensors file or a folder with {FILE_NAME}")
    pieces = re.search(r"-\d{5}-of-(\d{5})$", file.stem)
    if pieces and int(pieces[1]) > 1:
        raise UserError(f"{file}: one of {int(pieces[1])} pieces of an adapter; save it in one, and give that")
    with reading(file, "only safetensors are read", SafetensorError), safe_open(file, "pt") as opened:
        header = opened.metadata() or {}
        state = {key: opened.get_tensor(key).clone() for key in opened.keys()}  # noqa: SIM118
    refuse_not_finite(file, state)
    return file, state, header


def read_known(path: str | Path, layout: Layout | None = None) -> tuple[Known, dict[str, str], State]:
    """(what the file holds, its header, its tensors as they are).

    ``layout`` as in ``read_keys``. Raises UserError as ``read_raw`` does, and if it is of no known layout.
    """
    file, raw, header = read_raw(path)
    state = {  # floats of 8 bits fit into bfloat16
        key: value.bfloat16() if value.itemsize == 1 and value.is_floating_point() else value
        for key, value in raw.items()
    }
    settings = header_settings(file, header)
    alphas, peft = (any(key.endswith(".alpha") for key in state), any(key.startswith(PEFT) for key in state))
    if settings is None and (peft or (file.name == NAMES[1] and not alphas)):
        settings = config_settings(file)
        if settings is None and peft and not alphas:
            _say(f"{path}: no adapter_config.json beside it, so its alpha is taken to be its rank")
    with naming(file):
        return read_keys(state, settings, layout), header, raw


def read_split(path: str | Path, layout: Layout | None = None) -> tuple[State, dict[str, str]]:
    """(tensors by split key, scales within B, header): split adapters too; every A has its B.

    What is not carried is said on stderr, once.
    """
    known, header, _ = read_known(path, layout)
    if known.left_out:
        _say(f"{path}: {len(known.left_out)} tensors of its text encoders' part are left out: only the transformer's")
    return known.split, header


def read_for(path: str | Path, layout: Layout) -> tuple[State, dict[str, str]]:
    """(tensors by the names of the layout's layers, header).

    Raises UserError as ``read_known``, on another family's adapter, and on a split one where the layout is fused.
    """
    split, header = read_split(path, layout)
    refuse_other_family(path, split, layout)
    with naming(adapter_file(Path(path))):
        return (split_to_adapter(split) if layout.fused else split), header


@contextmanager
def naming(file: object) -> Iterator[None]:
    """Let a UserError within say the file, too."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


@functools.cache  # once in a process
def _say(text: str) -> None:
    print(f"cgrpo: {text}", file=sys.stderr)


def write_adapter(file: Path, state: Mapping[str, Tensor], header: Mapping[str, str]) -> Path:
    """Write ``state`` as it is to ``file`` in one move. Raises UserError if it can't be written.

    Equal tensors with equal headers give files that are equal byte for byte.
    """
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(file, state, {"format": "pt", **header})
    return file


def adapter_fingerprint(split: Mapping[str, Tensor]) -> str:
    """The fingerprint of an adapter by its ``read_split`` keys: the same for UNO's file and a stock one."""
    return of_tensors(split.items())


def origin_header(origin: Origin, rank: int) -> dict[str, str]:
    """What ``save_adapter`` writes beside the tensors."""
    return {"rank": str(rank), "alpha": str(rank), **asdict(origin)}


def header_origin(header: Mapping[str, str]) -> Origin | None:
    """The origin in a file's header; None where there is none (another program's file)."""
    if not header.get("base_hash"):
        return None
    mode = header.get("start_mode", "")
    if mode not in ("", "merge", "continue"):
        raise UserError(f"adapter: start_mode {mode!r} in its header is unknown; it's of a newer version")
    return Origin(header.get("base", ""), header["base_hash"], header.get("start_hash", ""), mode)


def check_origin(where: object, header: Mapping[str, str], here: Origin, base_differs: bool = False) -> None:
    """Refuse an adapter that was trained on other weights than those here; files that don't tell are accepted.

    ``base_differs`` is the user's word that the base is the same in another precision; it is reported on stderr.
    """
    there = header_origin(header)
    if there is None or not here.base_hash:
        return
    if there.base_hash != here.base_hash:
        differs = f"{where}: trained on {there}, but this base is {here}"
        if not base_differs:
            cure = "load it on its own base checkpoint, or set policy.base_differs=true if this is a copy of it"
            raise UserError(differs, f"{cure} in another precision")
        _say(f"{differs}; taken all the same, as policy.base_differs says")
    if there.merged != here.merged:
        raise UserError(
            f"{where}: trained on {there}, but this is {here}",
            "set policy.start as it was in training, or join the adapter with its start by `cgrpo adapter convert`",
        )
