"""Where checkpoints lie: a path on disk, what the model hub holds under a name, or what the package carries."""

import functools
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from cgrpo.errors import UserError
from cgrpo.files import read_table

_REPOSITORY = re.compile(
    r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w.-]+))?(?P<file>(/[\w.-]+)+\.(safetensors|onnx))?"
)
_SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja")
_KINDS = ("*.safetensors", *_SETTINGS)

Wanted = Literal["folder", "file", "settings"]


def asset(name: str, world: str = "toybox") -> Path:
    """The folder of a toybox checkpoint: policy, policy/transformer, segmenter, dino, clip or reader.

    ``world``: "toybox", or one whose own checkpoint is taken where it has one, such as "toybox-pair".
    """
    folder = Path(__file__).with_name("toybox") / "assets" / name
    own = folder.with_name(folder.name + world.removeprefix("toybox"))
    return own if own.is_dir() else folder


def whereabouts(text: str, wanted: Wanted) -> Literal["disk", "cache", "hub"]:
    """Where ``locate`` would find it, without fetching anything: on disk, in the hub's cache, or maybe on the hub.

    Raises UserError for what is neither a path nor a name on the hub.
    """
    if text and Path(os.path.expanduser(text)).exists():
        return "disk"
    name = _name_of(text, wanted)
    folder = Path(_cache() or _default_cache()) / f"models--{name['repo'].replace('/', '--')}" / "snapshots"
    return "cache" if folder.is_dir() and any(folder.iterdir()) else "hub"


def _default_cache() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE


def _name_of(text: str, wanted: Wanted) -> re.Match[str]:
    name = _REPOSITORY.fullmatch(text)
    if name is None or (name["file"] is not None) != (wanted == "file"):
        example = "owner/name/file.safetensors" if wanted == "file" else "owner/name"
        kind = "file" if wanted == "file" else "folder"
        raise UserError(f"{text}: no such {kind}; give a path, or {example} of the model hub")
    return name


def locate(text: str, wanted: Wanted) -> Path:
    """Where ``text`` lies on disk, downloaded first if it names something on the hub.

    An existing path wins. Else "folder" takes ``owner/name`` or ``owner/name@revision``, "settings" the same
    without its weights (configuration and tokenizer), and "file" ``owner/name/folder/file.safetensors``
    (``owner/name@revision/...`` and ``.onnx`` too). Of a diffusers repository only the parts' folders are fetched: the
    same weights often lie beside them once more in one file. Without a network, or with HF_HUB_OFFLINE=1, the
    hub's cache serves what it holds.
    Raises UserError if there is neither, telling the cure.
    """
    path = Path(os.path.expanduser(text))  # as it is where no home is known; pathlib's own way would raise then
    if text and path.exists():
        return path
    name = _name_of(text, wanted)
    if wanted == "file":
        return _fetched(text, lambda: _file(name["repo"], name["revision"], name["file"].removeprefix("/")))
    kinds = _SETTINGS if wanted == "settings" else _KINDS
    return _fetched(text, lambda: _folder(name["repo"], name["revision"], kinds))


def read_settings(path: str | Path, file: str = "config.json") -> dict[str, Any] | None:
    """The JSON table in ``file`` of the checkpoint that ``path`` names, without its weights and without a network.

    A folder has its own. A name on the hub is looked up in the hub's cache, then in a published.json by what follows
    the owner. Returns None where none has it. Raises UserError for a folder's file that is missing or can't be read.
    """
    name, _, revision = str(path).partition("@")
    place = Path(os.path.expanduser(path))
    source = place / file if place.is_dir() else _cached(name, file, revision or None)
    if source is None:
        return _published().get(f"{name.rsplit('/', 1)[-1].lower()}/{file}")
    return read_table(source, "give a complete checkpoint folder")


def parts_of(index: Mapping[str, Any]) -> list[str]:
    """The parts' folders that a diffusers folder's model_index.json names."""
    return [name for name, kind in index.items() if isinstance(kind, list) and kind and isinstance(kind[0], str)]


def _cached(name: str, file: str, revision: str | None) -> Path | None:
    from huggingface_hub import errors, try_to_load_from_cache

    try:
        path = try_to_load_from_cache(name, file, cache_dir=_cache(), revision=revision)
    except errors.HFValidationError:  # not a name on the hub
        return None
    return Path(path) if isinstance(path, str) else None


@functools.cache
def _published() -> dict[str, dict[str, Any]]:
    """Configurations of published models: of every folder of this package that has some."""
    files = Path(__file__).parent.rglob("published.json")
    return {name: table for file in files for name, table in json.loads(file.read_text()).items()}


def _file(repo: str, revision: str | None, file: str) -> str:
    from huggingface_hub import hf_hub_download

    return hf_hub_download(repo, file, revision=revision, cache_dir=_cache(), local_files_only=_offline())


def _folder(repo: str, revision: str | None, kinds: tuple[str, ...]) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    def fetch(patterns: list[str]) -> str:
        return snapshot_download(
            repo, revision=revision, allow_patterns=patterns, cache_dir=_cache(), local_files_only=_offline()
        )

    try:
        # The small file first: it tells a pipeline, whose weights lie in folders, from a single model.
        folder = Path(fetch(["model_index.json", "config.json"]))
    except EntryNotFoundError:
        folder = Path()
    if (folder / "model_index.json").is_file():
        index = read_table(folder / "model_index.json", "give a complete checkpoint folder")
        return fetch(["model_index.json", *(f"{part}/{kind}" for part in parts_of(index) for kind in kinds)])
    return fetch(list(kinds))


def _fetched(text: str, fetch: Callable[[], str]) -> Path:
    """``fetch()``, its failures told in one line."""
    from huggingface_hub import errors

    try:
        return Path(fetch())
    except errors.GatedRepoError:
        cure = "it is gated: accept the licence on the model's page and run `hf auth login`; or give a folder"
    except errors.RepositoryNotFoundError:
        cure = "neither on disk nor on the hub; check the name, or run `hf auth login` if it is private"
    except errors.RevisionNotFoundError:
        cure = "the repository has no such revision; check what follows the @"
    except errors.LocalEntryNotFoundError:
        cure = "neither on disk nor in the hub's cache, and the hub can't be reached; go online or give a path"
    except errors.EntryNotFoundError:
        cure = "the repository has no such file; check the name after owner/name/"
    except Exception as error:  # the hub's own, the network library's, the file system's: none is ours to mend
        reason = " ".join(str(error).split())[:200]
        cure = f"can't be fetched from the hub ({reason}); try again, or give a path"
    raise UserError(f"{text}: {cure}")


def _offline() -> bool:
    """Read now: the hub's library reads it only once, when it is imported."""
    from huggingface_hub import constants

    value = os.environ.get("HF_HUB_OFFLINE")
    return constants.HF_HUB_OFFLINE if value is None else value.upper() in ("1", "ON", "YES", "TRUE")


def _cache() -> str | None:
    """The cache's folder as the environment names it now; None is the library's own choice."""
    home = os.environ.get("HF_HOME")
    return os.environ.get("HF_HUB_CACHE") or (os.path.join(os.path.expanduser(home), "hub") if home else None)
