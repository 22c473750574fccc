"""Writing safetensors, so that equal tensors with equal words give files that are equal byte for byte."""

import errno
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save, save_file
from torch import Tensor

from cgrpo.files import partial_file

WORDS = "__metadata__"  # the header's entry for what is no tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], words: Mapping[str, str] | None = None) -> None:
    """Replace ``path`` in one move, so that a kill leaves the old file or the new; ``words`` stand in its header.

    Tensors may be of any device and layout, and share memory. Raises OSError.
    """
    try:
        with partial_file(path) as partial:
            save_file(_plain(tensors), partial, metadata=_given(words))
            with partial.open("r+b") as file:
                head = _sorted(file.read(int.from_bytes(file.read(8), "little")))
                file.seek(8)
                file.write(head)
    except SafetensorError as error:  # the library has a class of its own for a full disk
        match = re.search(r"os error (\d+)", str(error))
        code = int(match[1]) if match else errno.EIO
        raise OSError(code, os.strerror(code) if match else str(error), str(path)) from error


def tensor_bytes(tensors: Mapping[str, Tensor], words: Mapping[str, str] | None = None) -> bytes:
    """What ``write_tensors`` would write. Raises SafetensorError."""
    content = save(_plain(tensors), metadata=_given(words))
    end = 8 + int.from_bytes(content[:8], "little")
    return content[:8] + _sorted(content[8:end]) + content[end:]


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in memory of their own: the library refuses some that share it."""
    plain, storages = {}, set[int]()
    for name, tensor in tensors.items():
        own = tensor.detach().contiguous().cpu()
        place = own.untyped_storage().data_ptr()
        plain[name] = own.clone() if place in storages else own
        storages.add(place)
    return plain


def _given(words: Mapping[str, str] | None) -> dict[str, str] | None:
    return dict(words) if words else None


def _sorted(head: bytes) -> bytes:
    """The header with its words in alphabetic order, as long as before.

    A file opens with the header's length (8 bytes, little-endian) and the header in JSON, filled up with blanks. The
    library lists tensors in a fixed order, but words in one that differs from call to call.
    """
    header = json.loads(head)
    if WORDS in header:
        header[WORDS] = dict(sorted(header[WORDS].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(len(head))
    if len(text) != len(head):
        raise ValueError(f"a header of {len(head)} bytes became one of {len(text)}")
    return text
