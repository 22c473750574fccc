"""References by a sample of the posterior: N(0, 1) noise that belongs to the picture."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from cgrpo.fingerprint import of_picture
from cgrpo.policies.encodings.latents import LatentCodec
from cgrpo.policies.flux.policy import FluxPolicy


def picture(seed: int, width: int = 32, height: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_sample_is_the_posteriors(tiny_policy: FluxPolicy) -> None:
    """mean + std * noise with N(0, 1) noise, scaled as latents are (shift 0.1, scale 0.7)."""
    assert tiny_policy.codec is not None
    vae = tiny_policy.codec.vae
    image = picture(1, 256, 256)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        posterior = vae.encode(pixels).latent_dist  # pyright: ignore
    noise = ((LatentCodec(vae, "sample").encode([image]) / 0.7 + 0.1) - posterior.mean) / posterior.std
    assert noise.numel() == 32768
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.02  # 5 standard errors
    correlation = torch.corrcoef(torch.stack([noise.flatten(), posterior.mean.flatten()]))[0, 1]
    assert abs(correlation) < 0.03


def test_sample_belongs_to_the_picture(tiny_policy: FluxPolicy) -> None:
    """Whatever the batch, its order, the global random state, and the codec's instance."""
    assert tiny_policy.codec is not None
    vae = tiny_policy.codec.vae
    pictures = [picture(seed) for seed in range(3)]
    torch.manual_seed(1)
    together = LatentCodec(vae, "sample").encode(pictures)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    turned = LatentCodec(vae, "sample").encode(pictures[::-1]).flip(0)
    assert torch.equal(torch.get_rng_state(), before)
    codec = LatentCodec(vae, "sample")
    codec.chunk = 1
    means = tiny_policy.codec.encode(pictures)
    for other in (turned, codec.encode(pictures)):
        assert torch.allclose(together, other, atol=1e-5)
    noise_NC = (together - means).flatten(1)
    assert (noise_NC.abs().mean(1) > 0.01).all()
    assert torch.corrcoef(noise_NC)[0, 1].abs() < 0.25  # 384 numbers each: 5 standard errors


def test_of_picture() -> None:
    """Pixels alone don't tell 32 x 24 from 24 x 32."""
    flat = bytes(32 * 24 * 3)
    wide, tall = Image.frombytes("RGB", (32, 24), flat), Image.frombytes("RGB", (24, 32), flat)
    assert of_picture(wide) != of_picture(tall)
    assert of_picture(picture(1)) == of_picture(picture(1).copy()) != of_picture(picture(2))
