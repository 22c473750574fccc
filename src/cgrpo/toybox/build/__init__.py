"""Making the toybox's checkpoints again from a seed. Only this room and policies/ import diffusers."""

import time
from collections.abc import Callable
from pathlib import Path


def build_toybox(out: Path, seed: int = 0, share: float = 1.0, say: Callable[[str], None] = print) -> None:
    """All checkpoints, into ``out``: policy/ segmenter/ dino/ clip/ reader/. ``share`` scales the training steps.

    A folder that is already there is kept, so an interrupted build continues with the next model.
    """
    from cgrpo.toybox.build.policy import build_autoencoder, build_policy
    from cgrpo.toybox.build.scorers import build_clip, build_dino, build_reader, build_segmenter

    start = time.perf_counter()
    policy = out / "policy"
    policy.mkdir(parents=True, exist_ok=True)
    plan = (
        (policy / "vae", lambda steps: build_autoencoder(policy, seed, steps, say), 2200),
        (policy / "model_index.json", lambda steps: build_policy(policy, seed, steps, say), 6000),
        (out / "segmenter" / "model.safetensors", lambda steps: build_segmenter(out, seed, steps, say), 900),
        (out / "dino" / "model.safetensors", lambda steps: build_dino(out, seed, steps, say), 5000),
        (out / "clip" / "model.safetensors", lambda steps: build_clip(out, seed, steps, say), 2200),
        (out / "reader" / "model.safetensors", lambda steps: build_reader(out, seed, steps, say), 4000),
    )
    for product, build, steps in plan:
        if product.exists():
            say(f"{product}: already there")
        else:
            build(max(2, round(share * steps)))
            say(f"{product}: done after {time.perf_counter() - start:.0f} s")
