"""What a run is made of, by content: resumed on anything else it would be another run under the same name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cgrpo.config import Config
from cgrpo.data import ManifestSource, PairSource, Source
from cgrpo.data.archives import container, is_private, length
from cgrpo.errors import UserError
from cgrpo.files import json_text, write_text
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward
from cgrpo.rewards.fingerprint import reward_fingerprint
from cgrpo.rewards.remote.client import RemoteReward
from cgrpo.training.preference.settings import PreferenceConfig
from cgrpo.training.record import Record
from cgrpo.types import Task

SIZES = 4096  # pictures whose bytes are counted, evenly spaced: a look at each of a million would take minutes
PIECE = 1 << 14  # bytes of a file's beginning and of its end


def check_materials(
    record: Record, cfg: Config, source: Source, policy: Policy, rewards: Mapping[str, Reward], *, resumed: bool
) -> None:
    """Keep what the run is made of in materials.json; a resumed one must find it as it was.

    Data set, base, start, and rewards that are computed here (of a server's, servers.json knows). Raises UserError
    that names what is another one, and where the run began: paths in its settings are looked up there first.
    """
    file = record.folder / "materials.json"
    found = _materials(cfg, source, policy, rewards)
    if not (resumed and file.exists()):  # a run of an earlier version kept none
        write_text(file, json_text({"folder": str(Path.cwd()), **found}, indent=2) + "\n")
        return
    try:
        began = json.loads(file.read_text(encoding="utf-8-sig"))
        for name, mark in found.items():
            if began.get(name, mark) != mark:
                raise UserError(
                    f"{name}: is another one than when the run began, in {began['folder']}; resume there or give the "
                    "old one, or start a new run"
                )
    except (ValueError, AttributeError, LookupError) as error:
        raise UserError(f"{file}: can't be read ({error}); delete it, if nothing has changed") from error


def began_in(record: Record) -> Path:
    """The folder in which a run began, and in which its relative paths are looked up; this one where that is gone."""
    try:
        return Path(json.loads((record.folder / "materials.json").read_text(encoding="utf-8-sig"))["folder"])
    except (OSError, ValueError, LookupError, TypeError):  # of an earlier version; check_materials tells of the rest
        return Path.cwd()


def _materials(cfg: Config, source: Source, policy: Policy, rewards: Mapping[str, Reward]) -> dict[str, str]:
    """What marks each material, by the setting that names it."""
    found = {}
    if isinstance(source, PairSource) and isinstance(cfg, PreferenceConfig):
        records = [*source.tasks, *source.losing]
        found[f"preference.pairs = {cfg.preference.pairs}"] = records_fingerprint(records)
        found[f"preference.pairs = {cfg.preference.pairs}, its pictures"] = pictures_fingerprint(records)
    elif isinstance(source, ManifestSource):
        found[f"data.source = {cfg.data.source}"] = records_fingerprint(source.tasks)
        found[f"data.source = {cfg.data.source}, its pictures"] = pictures_fingerprint(source.tasks)
    names = {"path": cfg.policy.path, "start": cfg.policy.start}
    found |= {f"policy.{key} = {names[key]}": mark for key, mark in policy.materials().items()}
    for name, reward in rewards.items():
        if not isinstance(reward, RemoteReward):
            found[f"rewards.{name}"] = reward_fingerprint(reward)
    return found


def records_fingerprint(records: Sequence[Task]) -> str:
    """SHA-256 over the records' texts, their pictures' names, and the sizes in bytes of up to 4,096 of these.

    Where the set lies doesn't matter.
    """
    digest, files = hashlib.sha256(), []
    for record in records:
        paths = [*record.references, record.target, *record.masks]
        files += [path for path in paths if path is not None and not is_private(path)]
        names = [path and path.name for path in paths]
        row = [record.id, record.prompt, record.subject, record.mask_threshold, names]
        digest.update(f"{json.dumps(row)}\n".encode())
    for place in range(min(len(files), SIZES)):
        digest.update(f"{_size(files[place * len(files) // min(len(files), SIZES)])}\n".encode())
    return digest.hexdigest()


def pictures_fingerprint(records: Sequence[Task]) -> str:
    """SHA-256 over the beginnings and ends of up to 4,096 of the files that hold the records' pictures, archives too:
    another picture of as many bytes is another one, and so is a shard packed anew."""
    paths = (path for record in records for path in (*record.references, record.target, *record.masks))
    files = list(dict.fromkeys(container(path) for path in paths if path is not None))
    digest = hashlib.sha256()
    for place in range(min(len(files), SIZES)):
        with suppress(OSError), files[place * len(files) // min(len(files), SIZES)].open("rb") as file:
            digest.update(file.read(PIECE))
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - PIECE, 0))
            digest.update(file.read(PIECE) + f"{end}\n".encode())
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return length(path)
    except (OSError, LookupError):  # training will tell
        return -1
