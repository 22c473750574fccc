"""Qwen-Image-2.1 against the stock QwenImage21Pipeline on the same tiny random weights: parts and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import QwenImage21Pipeline
from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21KVCache
from PIL import Image
from support import tiny_qwen21
from support.policies import from_folder, shake
from support.stock import LONG, NEAR, PROMPT, STEPS, near, task
from support.stock21 import whole
from torch import Tensor

from cgrpo.algorithm import integrate
from cgrpo.policies.encodings.latents import unpack
from cgrpo.policies.qwen21.policy import NEGATIVE, Qwen21Policy
from cgrpo.types import Batch

SIDE = 64  # of references, where the stock pipeline's default is 1024


@pytest.fixture(scope="module")
def pipeline(tiny_qwen21_folder: Path) -> Any:
    return tiny_qwen21.stock_pipeline(tiny_qwen21_folder)


def make(folder: Path, **settings: Any) -> Qwen21Policy:
    usual = {"height": 64, "width": 96, "reference_size": SIDE, "reference_rule": "qwen", "guidance": 1.0}
    return from_folder(Qwen21Policy, folder, **usual | settings)


@pytest.fixture(scope="module")
def policy(tiny_qwen21_folder: Path) -> Qwen21Policy:
    return make(tiny_qwen21_folder)


def ours(policy: Qwen21Policy, batch: Batch) -> tuple[Tensor, Tensor]:
    """The last latents and the pictures from seed 7."""
    sigmas, noise_NLC = policy.sigmas(STEPS, "qwen"), policy.noise(7).expand(len(batch), -1, -1)
    with torch.no_grad(), policy.shared_prefix(policy.encode(batch)) as cond:
        x_NLC = integrate(lambda x, sigma: policy.velocity(x, sigma, cond), noise_NLC, sigmas)
    return x_NLC, policy.decode(x_NLC)


def theirs(pipeline: Any, references: tuple[Image.Image, ...], size: tuple[int, int], guidance: float, prompt=PROMPT):
    request: dict[str, Any] = {
        "image": list(references) or None, "prompt": prompt, "height": size[0], "width": size[1],
        "num_inference_steps": STEPS, "true_cfg_scale": guidance, "output_resolution": SIDE,
        "negative_prompt": NEGATIVE if guidance > 1 else None,
    }  # fmt: skip
    latents = pipeline(**request, generator=torch.Generator().manual_seed(7), output_type="latent").images
    (picture,) = pipeline(**request, generator=torch.Generator().manual_seed(7)).images
    return latents, tiny_qwen21.on_white(picture)


CASES = [
    ((64, 96), 0, 1, PROMPT), ((64, 96), 1, 1, PROMPT), ((64, 96), 2, 4, PROMPT), ((64, 96), 3, 4, LONG),
    ((64, 64), 3, 1, ""), ((64, 64), 0, 4, ""), ((32, 96), 2, 2.5, LONG),
]  # fmt: skip


@pytest.mark.parametrize(("size", "count", "guidance", "prompt"), CASES)
def test_pictures(
    tiny_qwen21_folder: Path, pipeline, references, size, count: int, guidance: float, prompt: str
) -> None:
    policy = make(tiny_qwen21_folder, height=size[0], width=size[1], guidance=guidance)
    latents, picture = theirs(pipeline, references[:count], size, guidance, prompt)
    made, drawn_NHWC = ours(policy, task(references[:count], prompt))
    near(made, latents)
    assert (drawn_NHWC[0].int() - picture.int()).abs().max() <= 1 and picture.float().std() > 5


def test_tasks_of_unequal_prompts_share_a_condition(policy: Qwen21Policy, pipeline, references) -> None:
    prompts = (PROMPT, LONG, "")
    x_NLC, _ = ours(policy, Batch(("0", "1", "2"), prompts, (references[:2],) * 3, ("cube",) * 3))
    for row, prompt in enumerate(prompts):
        near(x_NLC[row : row + 1], theirs(pipeline, references[:2], (64, 96), 1, prompt)[0])


def test_the_comparison_can_fail(policy: Qwen21Policy, pipeline, references) -> None:
    latents, _ = theirs(pipeline, references[:2], (64, 96), 1)
    for wrong in (task(references[1::-1]), task(references[:1]), task(references[:2], "a red cube")):
        made, _ = ours(policy, wrong)
        assert (made - latents).abs().max() > 10 * NEAR * latents.abs().max()


def test_the_prefix_sees_neither_the_picture_nor_the_time(policy: Qwen21Policy, references) -> None:
    """The stock transformer's own cache, filled at two points; ours has the same."""
    (prefix,) = policy.encode(task(references[:2])).prefixes
    with torch.no_grad():
        states = policy.keys_and_values(prefix)
        for seed, sigma in ((1, 0.9), (2, 0.1)):
            cache = QwenImage21KVCache(2)
            whole(policy, policy.noise(seed), torch.tensor([sigma]), prefix, kv_cache=cache, kv_cache_mode="extract")
            stock = [state for layer in cache.layer_caches for state in layer.get()]
            for own, other in zip(states, stock, strict=True):
                near(own, other)


def test_the_autoencoder_keeps_nothing_and_gives_the_same(policy: Qwen21Policy, pipeline, references) -> None:
    assert policy.codec is not None
    x0_NLC = policy.encode_targets(references[:1])
    raw = policy.codec.raw(unpack(x0_NLC, *policy.geometry.grid, 1))
    with torch.no_grad():
        assert torch.equal(policy.codec.vae.decode(raw).sample, pipeline.vae.decode(raw).sample)  # pyright: ignore
        pixels = torch.rand(1, 4, 1, 32, 64)
        assert torch.equal(policy.codec.vae.encode(pixels).latent_dist.mean, pipeline.vae.encode(pixels)[0].mean)  # pyright: ignore
    torch.testing.assert_close(policy.codec.scaled(raw), unpack(x0_NLC, *policy.geometry.grid, 1))


def test_a_trained_adapter_gives_the_same_picture_in_the_stock_pipeline(
    tiny_qwen21_folder: Path, references, tmp_path: Path
) -> None:
    """And one that the stock pipeline saved is read and trained on."""
    trained = make(tiny_qwen21_folder)
    trained.add_adapter(rank=3, seed=0)
    shake(trained, 1, 0.2)
    trained.save(tmp_path / "adapter")
    pipeline = tiny_qwen21.stock_pipeline(tiny_qwen21_folder)
    plain, _ = theirs(pipeline, references[:2], (64, 96), 1)
    pipeline.load_lora_weights(str(tmp_path / "adapter"))
    found, picture = theirs(pipeline, references[:2], (64, 96), 1)
    made, drawn_NHWC = ours(trained, task(references[:2]))
    near(made, found)
    assert (drawn_NHWC[0].int() - picture.int()).abs().max() <= 1
    assert (plain - found).abs().max() > 100 * NEAR * found.abs().max()  # the adapter does something

    layers = trained.trainable_parameters()
    renamed: dict[str, Any] = {key.replace(".default.", "."): value.detach() for key, value in layers.items()}
    QwenImage21Pipeline.save_lora_weights(tmp_path / "stock", transformer_lora_layers=renamed)
    again = make(tiny_qwen21_folder)
    again.begin_with(tmp_path / "stock" / "pytorch_lora_weights.safetensors", "continue")
    near(ours(again, task(references[:2]))[0], found)
    assert again.trainable_parameters().keys() == layers.keys()
