"""Qwen-Image-Edit against the stock QwenImageEditPlusPipeline on the same tiny random weights: parts and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageEditPlusPipeline
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as stock
from PIL import Image
from support import tiny_qwen
from support.policies import from_folder, shake
from support.stock import LONG, NEAR, PROMPT, STEPS, near, task
from torch import Tensor

from cgrpo.algorithm import integrate
from cgrpo.policies.encodings.latents import unpack
from cgrpo.policies.encodings.preprocess import prepare_reference
from cgrpo.policies.qwen_edit.inputs import qwen_sigmas
from cgrpo.policies.qwen_edit.policy import NEGATIVE, QwenEditPolicy
from cgrpo.types import Batch

SIDE = 64  # of references for the autoencoder, where the stock pipeline's constant is 1024


@pytest.fixture(scope="module")
def folder(tiny_qwen_folder: Path) -> Path:
    """Of 2511, whose references have a time of their own."""
    return tiny_qwen_folder


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    return tiny_qwen.stock_pipeline(folder)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock, "VAE_IMAGE_SIZE", SIDE**2)


def edit(folder: Path, **settings: Any) -> QwenEditPolicy:
    usual = {"height": 48, "width": 80, "reference_size": SIDE, "reference_rule": "qwen", "guidance": 4.0}
    return from_folder(QwenEditPolicy, folder, **usual | settings)


@pytest.fixture(scope="module")
def policy(folder: Path) -> QwenEditPolicy:
    return edit(folder)


def ours(policy: QwenEditPolicy, batch: Batch) -> tuple[Tensor, Tensor]:
    """The last latents and the picture from seed 7."""
    cond, sigmas = policy.encode(batch), policy.sigmas(STEPS, "qwen")
    with torch.no_grad():
        x_NLC = integrate(lambda x, sigma: policy.velocity(x, sigma, cond), policy.noise(7), sigmas)
    return x_NLC, policy.decode(x_NLC)


def theirs(pipeline: Any, references: tuple[Image.Image, ...], size: tuple[int, int], guidance: float, prompt=PROMPT):
    request: dict[str, Any] = {
        "image": list(references), "prompt": prompt, "height": size[0], "width": size[1],
        "num_inference_steps": STEPS, "true_cfg_scale": guidance,
        "negative_prompt": NEGATIVE if guidance > 1 else None,
    }  # fmt: skip
    latents = pipeline(**request, generator=torch.Generator().manual_seed(7), output_type="latent").images
    (picture,) = pipeline(**request, generator=torch.Generator().manual_seed(7)).images
    return latents, torch.from_numpy(np.array(picture))


CASES = [
    ((48, 80), 1, 1, PROMPT), ((48, 80), 2, 4, PROMPT), ((48, 80), 3, 4, LONG), ((64, 64), 3, 1, ""),
    ((64, 64), 1, 4, ""), ((32, 96), 2, 2.5, LONG),
]  # fmt: skip


@pytest.mark.parametrize(("size", "count", "guidance", "prompt"), CASES)
def test_pictures(folder: Path, pipeline, references, size, count: int, guidance: float, prompt: str) -> None:
    same_picture(folder, pipeline, references, size, count, guidance, prompt)


def test_pictures_of_2509(references, tmp_path: Path) -> None:
    """Whose references have the target's time."""
    folder = tiny_qwen.build_folder(tmp_path / "2509", zero_cond_t=False)
    same_picture(folder, tiny_qwen.stock_pipeline(folder), references, (48, 80), 3, 4, PROMPT)


def same_picture(folder: Path, pipeline, references, size, count: int, guidance: float, prompt: str) -> None:
    policy = edit(folder, height=size[0], width=size[1], guidance=guidance)
    latents, picture = theirs(pipeline, references[:count], size, guidance, prompt)
    made, drawn_NHWC = ours(policy, task(references[:count], prompt))
    near(made, latents)
    differs = (drawn_NHWC[0].int() - picture.int()).abs()
    assert differs.max() <= 1 and differs.float().mean() < 1e-3 and picture.float().std() > 5


def test_tasks_of_unequal_prompts_share_a_batch(policy: QwenEditPolicy, pipeline, references) -> None:
    """The mask keeps what pads the shorter one out."""
    prompts = (PROMPT, LONG, "")
    batch = Batch(("0", "1", "2"), prompts, (references[:2],) * 3, ("cube",) * 3)
    cond, sigmas = policy.encode(batch), policy.sigmas(STEPS, "qwen")
    noise = policy.noise(7).expand(3, -1, -1)
    with torch.no_grad():
        x_NLC = integrate(lambda x, sigma: policy.velocity(x, sigma, cond), noise, sigmas)
    for row, prompt in enumerate(prompts):
        near(x_NLC[row : row + 1], theirs(pipeline, references[:2], (48, 80), 4, prompt)[0])
    assert len({int(count) for count in cond.mask_NL.sum(1)}) == 3


def test_the_comparison_can_fail(policy: QwenEditPolicy, pipeline, references) -> None:
    latents, _ = theirs(pipeline, references[:2], (48, 80), 4)
    for wrong in (task(references[1::-1]), task(references[:1]), task(references[:2], "a red cube")):
        made, _ = ours(policy, wrong)
        assert (made - latents).abs().max() > 10 * NEAR * latents.abs().max()


@pytest.mark.parametrize("picture", ["64x64", "70x100", "301x97"])
def test_how_references_are_resized(pipeline, picture: str) -> None:
    """The sizes of both readings, at the published constants; pixels at the autoencoder's."""
    width, height = map(int, picture.split("x"))
    image = Image.effect_noise((width, height), 90).convert("RGB")
    for side in (384, 1024):
        size = stock.calculate_dimensions(side**2, width / height)
        mine = prepare_reference(image, "qwen", side, 16)
        assert mine.size == size and mine == pipeline.image_processor.resize(image, size[1], size[0])
    pixels = pipeline.image_processor.preprocess(image, size[1], size[0])
    assert torch.equal(torch.from_numpy(np.array(mine)).permute(2, 0, 1)[None].float() / 255 * 2 - 1, pixels)


def test_the_encoder_places_pictures_as_it_was_trained(policy: QwenEditPolicy, pipeline, folder, references) -> None:
    """By rows and columns, which the stock pipeline of diffusers 0.42.1 with transformers 5 does not."""
    text = policy.read_texts(policy.settings, task(references[:2]))[0]
    assert policy.prompts is not None
    (states_LC,), _ = policy.prompts.encode([text])
    fixed, _ = pipeline.encode_prompt(PROMPT, image=list(text.pictures))
    near(states_LC[None], fixed.detach())
    stale, _ = tiny_qwen.stock_pipeline(folder, fixed=False).encode_prompt(PROMPT, image=list(text.pictures))
    assert (stale - fixed).abs().max() > 10 * NEAR * fixed.abs().max()


@pytest.mark.parametrize(("steps", "tokens"), [(2, 16), (10, 1024), (50, 4096), (28, 9216)])
def test_schedule(steps: int, tokens: int) -> None:
    """Bit for bit, with the settings that Qwen-Image's checkpoints have."""
    scheduler = FlowMatchEulerDiscreteScheduler(
        max_image_seq_len=8192, max_shift=0.9, shift_terminal=0.02, use_dynamic_shifting=True
    )
    mu = stock.calculate_shift(tokens, 256, 8192, 0.5, 0.9)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)  # pyright: ignore
    assert torch.equal(qwen_sigmas(steps, tokens), scheduler.sigmas)


def test_the_autoencoder_keeps_nothing_and_gives_the_same(policy: QwenEditPolicy, pipeline, references) -> None:
    assert policy.codec is not None
    x0_NLC = policy.encode_targets(references[:1])
    raw = policy.codec.raw(unpack(x0_NLC, *policy.geometry.grid))
    with torch.no_grad():
        assert torch.equal(policy.codec.vae.decode(raw).sample, pipeline.vae.decode(raw).sample)  # pyright: ignore
        pixels = torch.rand(1, 3, 1, 32, 64)
        assert torch.equal(policy.codec.vae.encode(pixels).latent_dist.mean, pipeline.vae.encode(pixels)[0].mean)  # pyright: ignore
    torch.testing.assert_close(policy.codec.scaled(raw), unpack(x0_NLC, *policy.geometry.grid))


def test_a_trained_adapter_gives_the_same_picture_in_the_stock_pipeline(folder: Path, references, tmp_path) -> None:
    """With two references and guidance; and one that the stock pipeline saved is read and trained on."""
    trained = edit(folder)
    trained.add_adapter(rank=3, seed=0)
    shake(trained, 1, 0.2)
    trained.save(tmp_path / "adapter")
    pipeline = tiny_qwen.stock_pipeline(folder)
    plain, _ = theirs(pipeline, references[:2], (48, 80), 4)
    pipeline.load_lora_weights(str(tmp_path / "adapter"))
    found, picture = theirs(pipeline, references[:2], (48, 80), 4)
    made, drawn_NHWC = ours(trained, task(references[:2]))
    near(made, found)
    assert (drawn_NHWC[0].int() - picture.int()).abs().max() <= 1
    assert (plain - found).abs().max() > 100 * NEAR * found.abs().max()  # the adapter does something

    layers = {key: value for key, value in trained.trainable_parameters().items()}
    renamed = {key.replace(".default.", "."): value.detach() for key, value in layers.items()}
    QwenImageEditPlusPipeline.save_lora_weights(tmp_path / "stock", transformer_lora_layers=renamed)
    again = edit(folder)
    again.begin_with(tmp_path / "stock" / "pytorch_lora_weights.safetensors", "continue")
    near(ours(again, task(references[:2]))[0], found)
    assert again.trainable_parameters().keys() == layers.keys()
