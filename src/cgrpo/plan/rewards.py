"""The models behind a recipe's rewards: parameters, bytes, operations for one picture.

Operations are approximate: 2 * parameters * tokens. What is unknown stays unknown (None) and is listed as such.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cgrpo.config import TOYBOX, Config
from cgrpo.errors import UserError
from cgrpo.plan.shapes import asset, read_json
from cgrpo.rewards import ModelSettings, RewardSettings
from cgrpo.rewards.dino_seg import DinoSegSettings
from cgrpo.rewards.hpsv3 import HpsV3Settings
from cgrpo.rewards.remote import RemoteSettings
from cgrpo.rewards.vlm import VlmSettings

# Parameters, and tokens that a picture comes to: (side / patch)^2 + 1 at the side the model's own preprocessing gives.
KNOWN = {
    "dinov2-small": (22_056_576, 257),
    "dinov2-base": (86_580_480, 257),
    "dinov2-large": (304_368_640, 257),
    "dinov2-giant": (1_136_480_768, 257),
    "dino-vits16": (21_665_664, 197),
    "clip-vit-base-patch32": (151_277_313, 50),
    "clip-vit-base-patch16": (149_620_737, 197),
    "clip-vit-large-patch14": (427_616_513, 257),
    # Swin-T and a deformable encoder over four scales of 800 pixels: as many tokens as give about 460 GFLOP.
    "grounding-dino-tiny": (172_250_626, 1350),
    "sam-vit-base": (93_735_728, 4096),
    "sam-vit-large": (312_343_088, 4096),
    "sam-vit-huge": (641_090_864, 4096),
}
# SAM's global attention adds a bias to its scores: two float32 tables of heads x 4096 x 4096 for a picture, 4 pictures
# at a time. What other models have at work is small beside a policy and left to the reserve.
SAM_HEADS = {"sam-vit-base": 12, "sam-vit-large": 16, "sam-vit-huge": 16}
SAM_CHUNK = 4
# Qwen2-VL-7B and a ranking head: 7.6 B over about 900 tokens of prompt and picture, 0.68 B over 1,024 patches.
HPSV3_PARAMETERS = 8_288_000_000
HPSV3_FLOPS = 2 * (7.6e9 * 900 + 0.68e9 * 1024)


@dataclass(frozen=True)
class RewardModel:
    """One model of one reward, sizes in bytes. ``flops`` and ``work`` (memory while it runs): for one picture,
    ``chunk`` of which are scored at a time. ``offload``: it waits in the CPU's memory between calls."""

    reward: str
    model: str
    parameters: int | None
    memory: int | None
    flops: float | None
    work: int = 0
    chunk: int = 1
    offload: bool = False


def reward_models(rewards: Mapping[str, RewardSettings]) -> list[RewardModel]:
    """The models of all rewards, in the configuration's order. Raises UserError for an unreadable local folder."""
    return [
        replace(model, offload=isinstance(settings, ModelSettings) and settings.offload)
        for name, settings in rewards.items()
        for model in _models(name, settings)
    ]


def guard_models(cfg: Config) -> list[RewardModel]:
    """Those of the held-out guard's own scorers, where there is one."""
    return reward_models(cfg.guard.scorers) if has_guard(cfg) else []


def has_guard(cfg: Config) -> bool:
    """Whether held-out tasks are watched while the run trains."""
    guard = cfg.guard
    return 0 < guard.every <= cfg.training.iterations and bool(guard.source or cfg.data.source == TOYBOX)


def _models(name: str, settings: RewardSettings) -> Iterator[RewardModel]:
    match settings:
        case DinoSegSettings():
            yield _model(name, settings.path, "dino")
            if settings.masks != "none":
                # References are segmented once and remembered; generated pictures with "both" alone.
                runs = settings.masks == "both"
                if settings.detector:
                    yield _model(name, settings.detector, "", runs=runs)
                yield _model(name, settings.segmenter, "segmenter", runs=runs)
        case HpsV3Settings():
            size = 4 if settings.dtype == "float32" else 2
            yield RewardModel(name, "HPSv3", HPSV3_PARAMETERS, HPSV3_PARAMETERS * size, HPSV3_FLOPS)
        case RemoteSettings():
            yield RewardModel(name, f"at {settings.url}", 0, 0, 0.0)
        case VlmSettings():
            yield RewardModel(name, f"{settings.model} by API", 0, 0, 0.0)
        case ModelSettings():
            folders = [key for key, wanted in settings.checkpoints().items() if wanted == "folder"]
            yield from (_model(name, getattr(settings, key), "clip") for key in folders)
        case _:
            yield RewardModel(name, settings.type, None, None, None)


def _model(reward: str, path: str, own: str, *, runs: bool = True) -> RewardModel:
    """A float32 model: the package's ``own``, one in a local folder, or a well-known one by the end of its path."""
    folder = asset(own) if path == TOYBOX else Path(path)
    title = f"{TOYBOX} {own}" if path == TOYBOX else path
    name = path.rstrip("/").split("/")[-1].split("@")[0].lower()
    known = KNOWN.get(name)
    if known is not None:
        parameters, tokens = known
    elif folder.is_dir():
        parameters, tokens = stored_parameters(folder), _tokens(folder)
    else:
        return RewardModel(reward, title, None, None, None)
    flops = 2.0 * parameters * tokens if tokens else None
    work = 2 * 4 * SAM_HEADS.get(name, 0) * 4096**2
    return RewardModel(reward, title, parameters, 4 * parameters, flops if runs else 0.0, work, SAM_CHUNK)


def stored_parameters(folder: Path) -> int:
    """Numbers in a folder's safetensors files, by their headers alone. UserError where there are none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder}: no safetensors file; give the folder of a transformers checkpoint")
    return sum(_numbers(file) for file in files)


def _numbers(file: Path) -> int:
    """A safetensors file opens with the length of its header (8 bytes, little-endian) and the header in JSON."""
    try:
        with file.open("rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError) as error:
        raise UserError(f"{file}: not a readable safetensors file; copy it anew") from error


def _tokens(folder: Path) -> int | None:
    """Tokens of a picture, by the side of the preprocessed picture and the patch; None where they can't be told."""
    config = read_json(folder / "config.json")
    vision = config.get("vision_config") or config
    side, patch = _side(folder) or vision.get("image_size"), vision.get("patch_size")
    if isinstance(vision.get("strides"), list):  # a Segformer: its last stage
        patch = math.prod(vision["strides"])
    if not isinstance(side, int) or not isinstance(patch, int) or patch < 1:
        return None
    return (side // patch) ** 2 + 1


def _side(folder: Path) -> int | None:
    """Of the square that the preprocessor makes."""
    file = folder / "preprocessor_config.json"
    table: dict[str, Any] = read_json(file) if file.is_file() else {}
    for key in ("crop_size", "size"):
        size = table.get(key)
        side = size.get("height") if isinstance(size, dict) else size
        if isinstance(side, int):
            return side
    return None
