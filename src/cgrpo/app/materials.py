"""Fingerprints of a run's inputs. A resumed run must match them."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cgrpo.config import Config
from cgrpo.data import ManifestSource, PairSource, Source
from cgrpo.data.archives import container, is_private, length
from cgrpo.errors import UserError
from cgrpo.files import json_text, write_text
from cgrpo.fingerprint import of_parts
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward
from cgrpo.rewards.fingerprint import reward_fingerprint
from cgrpo.rewards.remote.client import RemoteReward
from cgrpo.training.preference.settings import PreferenceConfig
from cgrpo.training.record import RunRecord
from cgrpo.types import Task

SIZES = 4096  # pictures whose bytes are counted, evenly spaced: a look at each of a million would take minutes
PIECE = 1 << 14  # bytes of a file's beginning and of its end


def check_materials(
    record: RunRecord,
    cfg: Config,
    source: Source,
    policy: Policy,
    rewards: Mapping[str, Reward],
    recipe: str,
    *,
    resumed: bool,
) -> None:
    """Write the fingerprints of a new run's inputs to materials.json, or compare a resumed run's with them.

    Inputs are the dataset, the base, the start, and the rewards' checkpoints, here or on servers. Raises UserError that
    names the input that changed, and the folder in which the run began.
    """
    inputs = _fingerprints(cfg, source, policy, rewards)
    began = record.beginning() if resumed else {}
    if not began:
        origin = {"folder": str(Path.cwd()), "recipe": recipe}
        write_text(record.materials, json_text(origin | inputs, indent=2) + "\n")
        return
    for name, fingerprint in inputs.items():
        if began.get(name, fingerprint) != fingerprint:
            where = began.get("folder", "another folder")
            raise UserError(f"{name} has changed since the run began in {where}", "restore it, or start a new run")


def _fingerprints(cfg: Config, source: Source, policy: Policy, rewards: Mapping[str, Reward]) -> dict[str, str]:
    inputs = {}
    if isinstance(source, PairSource) and isinstance(cfg, PreferenceConfig):
        tasks = [*source.tasks, *source.losing]
        inputs[f"preference.pairs = {cfg.preference.pairs}"] = tasks_fingerprint(tasks)
        inputs[f"preference.pairs = {cfg.preference.pairs}, its pictures"] = pictures_fingerprint(tasks)
    elif isinstance(source, ManifestSource):
        inputs[f"data.source = {cfg.data.source}"] = tasks_fingerprint(source.tasks)
        inputs[f"data.source = {cfg.data.source}, its pictures"] = pictures_fingerprint(source.tasks)
    names = {"path": cfg.policy.path, "start": cfg.policy.start}
    inputs |= {f"policy.{key} = {names[key]}": fingerprint for key, fingerprint in policy.materials().items()}
    for name, reward in rewards.items():
        if isinstance(reward, RemoteReward):
            inputs[f"rewards.{name}, on its server,"] = reward.checkpoint
        else:
            inputs[f"rewards.{name}"] = reward_fingerprint(reward)
    return inputs


def tasks_fingerprint(tasks: Sequence[Task]) -> str:
    """The fingerprint of the tasks' texts, their pictures' names, and the bytes of up to 4,096 pictures.

    The dataset's folder plays no part.
    """
    lines, files = [], []
    for task in tasks:
        paths = [*task.references, task.target, *task.masks]
        files += [path for path in paths if path is not None and not is_private(path)]
        names = [path and path.name for path in paths]
        lines.append(json.dumps([task.id, task.prompt, task.subject, task.mask_threshold, names]))
    lines += [str(_size(file)) for file in _evenly(files)]
    return of_parts(f"{line}\n".encode() for line in lines)


def pictures_fingerprint(tasks: Sequence[Task]) -> str:
    """The fingerprint of the first and last bytes of up to 4,096 files that hold the tasks' pictures, archives too."""
    paths = (path for task in tasks for path in (*task.references, task.target, *task.masks))
    files = list(dict.fromkeys(container(path) for path in paths if path is not None))
    return of_parts(part for file in _evenly(files) for part in _ends(file))


def _evenly(files: Sequence[Path]) -> list[Path]:
    count = min(len(files), SIZES)
    return [files[place * len(files) // count] for place in range(count)]


def _ends(path: Path) -> Iterator[bytes]:
    with suppress(OSError), path.open("rb") as file:
        yield file.read(PIECE)
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - PIECE, 0))
        yield file.read(PIECE) + f"{end}\n".encode()


def _size(path: Path) -> int:
    try:
        return length(path)
    except (OSError, LookupError):  # reading the picture reports it
        return -1
