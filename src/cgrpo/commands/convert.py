"""`cgrpo rewards convert`: pickled reward checkpoints, once, to safetensors."""

from __future__ import annotations

from pathlib import Path

from cgrpo.errors import UserError
from cgrpo.hub import locate
from cgrpo.rewards.convert import convert_aesthetic_head, convert_folder, convert_image_reward, convert_open_clip

# Whose configuration and tokenizer a published file goes with.
REFERENCES = {"hpsv2": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "image-reward": "google-bert/bert-base-uncased"}
KINDS = ("aesthetic-v1", "aesthetic-v2", "hpsv2", "image-reward", "folder")


def convert_reward(file: Path, kind: str, out: Path, reference: str = "") -> Path:
    """``file`` as ``out``, one of ``KINDS``; ``reference``: a folder or hub id, by default the published one."""
    reference = reference or REFERENCES.get(kind, "")
    if kind == "folder" and not reference:
        raise UserError("--to folder needs --reference: the folder or hub id of its configuration and tokenizer")
    match kind:
        case "aesthetic-v1":
            return convert_aesthetic_head(file, out, "v1")
        case "aesthetic-v2":
            return convert_aesthetic_head(file, out, "v2")
        case "hpsv2":
            convert_open_clip(file, out, locate(reference, "settings"))
        case "image-reward":
            convert_image_reward(file, out, locate(reference, "settings"))
        case "folder":
            convert_folder(file, out, locate(reference, "settings"))
        case _:
            raise UserError(f"--to {kind}: must be one of {', '.join(KINDS)}")
    return out
