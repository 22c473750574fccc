"""What a run needs that can be told before anything is loaded: packages, checkpoints, and what its tasks must say."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cgrpo.config import (
    TOYBOX,
    AestheticSettings,
    Config,
    DinoSegSettings,
    FunctionSettings,
    HpsV3Settings,
    PickScoreSettings,
    RemoteSettings,
    RewardSettings,
    VlmSettings,
)
from cgrpo.errors import UserError
from cgrpo.hub import Wanted, whereabouts
from cgrpo.rewards.hpsv3_template import read_template
from cgrpo.section import TOYBOX_POLICIES
from cgrpo.types import Task

# Packages that are asked for by a setting, and what brings them.
INT8, REMOTE, VLM = "torchao", "httpx", "openai"


def check_needs(cfg: Config, records: Sequence[Task] = ()) -> None:
    """Raises UserError for the first thing that is missing, and says how many more there are."""
    faults = [*missing(cfg), *unfit(cfg, records)]
    if faults:
        more = f" (and {len(faults) - 1} more; cgrpo data check with the recipe lists them)" if faults[1:] else ""
        raise UserError(f"{faults[0]}{more}")


def missing(cfg: Config) -> list[str]:
    """Packages and checkpoints that are not there, and can't be fetched; a line each."""
    lines = list(_packages(cfg))
    for setting, text, wanted in checkpoints(cfg):
        try:
            whereabouts(text, wanted)
        except UserError as error:
            lines.append(f"{setting}: {error}")
    return lines


def to_fetch(cfg: Config) -> list[str]:
    """Checkpoints that the hub is asked for when the run begins, as ``setting = name``."""
    lines = []
    for setting, text, wanted in checkpoints(cfg):
        try:
            if whereabouts(text, wanted) == "hub":
                lines.append(f"{setting} = {text}")
        except UserError:
            continue
    return lines


def unfit(cfg: Config, records: Sequence[Task], *, trained: bool = True) -> list[str]:
    """What a data set's rows lack for the rewards or, if they are ``trained`` on, for the method; a line a lack."""
    if trained and cfg.method == "sft":  # which no reward sees
        return _told(records, lambda r: r.target is None, "no target picture, which method sft trains on")
    lines = []
    for name, settings in scored_by(cfg).items():
        if isinstance(settings, DinoSegSettings) and settings.masks != "none":
            lines += _of_segmented(name, settings, records)
    return lines


def scored_by(cfg: Config) -> dict[str, RewardSettings]:
    """Rewards and the guard's judges by the setting that names each."""
    named = {f"rewards.{name}": settings for name, settings in cfg.rewards.items()}
    return named | {f"guard.scorers.{name}": settings for name, settings in cfg.guard.scorers.items()}


def _of_segmented(name: str, settings: DinoSegSettings, records: Sequence[Task]) -> list[str]:
    if not settings.segmenter:
        words = f"no mask for each reference, and {name} has no segmenter"
        return _told(records, lambda r: not r.masks or None in r.masks, words)

    def wordless(record: Task) -> bool:
        masked = settings.masks == "reference" and record.masks and None not in record.masks
        return not record.subject.strip(" .") and not masked

    cure = f'no subject (such as "dog") for the segmenter of {name}; give each one, or set {name}.masks = none'
    return _told(records, wordless, cure)


def _told(records: Sequence[Task], lacks: Callable[[Task], bool], words: str) -> list[str]:
    found = [record.id for record in records if lacks(record)]
    return [f"{len(found)} of {len(records)} rows, the first of them {found[0]}, have {words}"] if found else []


def _packages(cfg: Config) -> Iterator[str]:
    if cfg.policy.quantise == "int8" and not _installed(INT8):
        yield f"policy.quantise = int8 needs {INT8}: pip install {INT8}, or set policy.quantise = none"
    for name, settings in scored_by(cfg).items():
        match settings:
            case HpsV3Settings():
                try:
                    read_template(Path(settings.template) if settings.template else None)
                except UserError as error:
                    yield f"{name}: {error}"
            case RemoteSettings() if not _installed(REMOTE):
                yield f"{name} needs {REMOTE}: pip install {REMOTE}"
            case VlmSettings() if not _installed(VLM):
                yield f"{name} needs {VLM}: pip install {VLM}"
            case FunctionSettings():
                module, _, function = settings.type.partition(":")
                try:
                    if function not in vars(importlib.import_module(module)):
                        yield f"{name}.type {settings.type!r}: the module has no {function}"
                except ImportError as error:
                    yield f"{name}.type {settings.type!r}: can't be imported ({error})"


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def checkpoints(cfg: Config) -> Iterator[tuple[str, str, Wanted]]:
    """(setting, path or name on the hub, what of it) of every checkpoint that is not the package's own."""
    policy = cfg.policy
    base: Wanted = "file" if policy.path.endswith(".safetensors") else "folder"
    listed: list[tuple[str, str, Wanted]] = [("policy.path", policy.path, base), ("policy.start", policy.start, "file")]
    for name, settings in scored_by(cfg).items():
        match settings:
            case HpsV3Settings():
                listed.append((f"{name}.path", settings.path, "file"))
                listed.append((f"{name}.backbone", settings.backbone, "settings"))
            case DinoSegSettings():
                listed.append((f"{name}.path", settings.path, "folder"))
                if settings.masks != "none":
                    listed.append((f"{name}.segmenter", settings.segmenter, "folder"))
                    listed.append((f"{name}.detector", settings.detector, "folder"))
            case AestheticSettings():
                listed.append((f"{name}.path", settings.path, "folder"))
                listed.append((f"{name}.head", settings.head, "file"))
            case PickScoreSettings():
                listed.append((f"{name}.path", settings.path, "folder"))
                listed.append((f"{name}.processor", settings.processor, "settings"))
            case RemoteSettings() | VlmSettings() | FunctionSettings():
                continue
            case _:
                listed.append((f"{name}.path", settings.path, "folder"))
    yield from (row for row in listed if row[1] not in ("", TOYBOX, *TOYBOX_POLICIES))
