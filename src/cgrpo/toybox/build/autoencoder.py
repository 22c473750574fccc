"""The toybox's autoencoder: an AutoencoderKL, 4x down, 8 channels; 32 x 32 pixels become 4 x 4 packed tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from cgrpo.toybox import drawing, world
from cgrpo.toybox.build.loop import optimise


def picture_pool(count: int, rng: torch.Generator, dial: float = 0.25) -> torch.Tensor:
    """``count`` pictures of the world, a third of them references, float [count, 3, 32, 32] in [0, 1]."""
    parts = []
    for first in range(0, count, 512):
        subjects = world.sample_subjects(min(512, count - first), rng)
        if (first // 512) % 3 == 0:
            parts.append(drawing.draw_references(subjects, rng)[0])
        else:
            parts.append(drawing.draw(subjects, world.sample_prompts(len(subjects), rng, dial), rng)[0])
    return torch.cat(parts)


def build_autoencoder(folder: Path, seed: int, steps: int, say: Callable[[str], None], batch: int = 64) -> None:
    """Train on pictures of the training split and save to ``folder/vae``."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed + 1)
    vae = AutoencoderKL(  # diffusers' annotations allow one block only
        down_block_types=("DownEncoderBlock2D",) * 3,  # pyright: ignore
        up_block_types=("UpDecoderBlock2D",) * 3,  # pyright: ignore
        block_out_channels=(24, 48, 48),  # pyright: ignore
        latent_channels=8,
        norm_num_groups=8,
        sample_size=drawing.SIZE,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    pool = picture_pool(min(16384, batch * steps), rng) * 2 - 1

    def loss_at(step: int) -> torch.Tensor:
        x = pool[torch.randint(len(pool), (batch,), generator=rng)]
        posterior = vae.encode(x, return_dict=False)[0]
        error = vae.decode(posterior.sample(rng), return_dict=False)[0].float() - x  # pyright: ignore
        return error.abs().mean() + 2 * error.square().mean() + 1e-3 * posterior.kl().mean() / 512

    optimise("autoencoder", [vae], loss_at, steps=steps, learning_rate=2e-3, say=say, average=0.995)
    vae.eval()
    with torch.no_grad():
        z = vae.encode(pool[:1024], return_dict=False)[0].mean
        decoded = vae.decode(z, return_dict=False)[0]  # pyright: ignore
        error = (decoded.clamp(-1, 1) - pool[:1024]).square().mean() / 4
    vae.register_to_config(scaling_factor=round(1 / z.std().item(), 4), shift_factor=round(z.mean().item(), 4))
    say(f"autoencoder: PSNR {-10 * error.log10().item():.1f} dB, latent std {z.std():.3f}")
    vae.half().save_pretrained(folder / "vae")
