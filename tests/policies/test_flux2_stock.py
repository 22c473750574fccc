"""FLUX.2-klein against the stock Flux2KleinPipeline on the same tiny random weights: every part, and whole pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from PIL import Image
from support.policies import from_folder, shake
from support.stock import NEAR, PROMPT, STEPS, near, task
from support.tiny_flux2 import LENGTH
from torch import Tensor

from cgrpo.algorithm import integrate
from cgrpo.policies.encodings.latents import pack, unpack
from cgrpo.policies.encodings.preprocess import prepare_reference
from cgrpo.policies.flux2.inputs import Flux2Geometry, flux2_sigmas
from cgrpo.policies.flux2.policy import Flux2Policy


@pytest.fixture(scope="module")
def pipeline(tiny_flux2_folder: Path) -> Any:
    made = Flux2KleinPipeline.from_pretrained(tiny_flux2_folder, local_files_only=True)
    made.set_progress_bar_config(disable=True)
    return made


def klein(folder: Path, **settings: Any) -> Flux2Policy:
    usual = {"height": 48, "width": 80, "reference_size": 1024, "reference_rule": "flux2", "guidance": 4.0}
    return from_folder(Flux2Policy, folder, **usual | settings)


@pytest.fixture(scope="module")
def policy(tiny_flux2_folder: Path) -> Flux2Policy:
    return klein(tiny_flux2_folder)


def test_ids(pipeline: Any) -> None:
    latents = [torch.zeros(1, 4, *size) for size in ((3, 5), (4, 2), (1, 7), (2, 2))]
    theirs = torch.cat((pipeline._prepare_latent_ids(latents[0]), pipeline._prepare_image_ids(latents[1:])), dim=1)
    geometry = Flux2Geometry(16, 4, (3, 5))
    assert torch.equal(geometry.ids([(4, 2), (1, 7), (2, 2)]), theirs[0].float())
    assert torch.equal(geometry.text_ids(6), pipeline._prepare_text_ids(torch.zeros(1, 6, 8))[0].float())


def test_text_states(pipeline: Any, policy: Flux2Policy) -> None:
    """Of several prompts in one go, one that is cut and the empty one among them; the pipeline keeps all layers."""
    prompts = [PROMPT, "the red ball on the beach in the snow " * 3, "", PROMPT]
    theirs, _ = pipeline.encode_prompt(prompts, max_sequence_length=LENGTH)
    ours, pooled_NC = policy.prompts.encode(prompts)
    gap = (ours - theirs.detach()).abs().max()  # 0 on many machines; kernels for other shapes may round otherwise
    assert gap <= 1e-5 * ours.abs().max() and pooled_NC.shape == (4, 0)
    assert len(pipeline.text_encoder.model.layers) == 29 and len(policy.prompts.modules[0].layers) == 27
    assert policy.cut_prompts(prompts) == {f"Qwen3 at {LENGTH} tokens": [1]}


@pytest.mark.parametrize(("size", "mode"), [((70, 100), "RGB"), ((1300, 900), "RGBA"), ((1100, 1000), "P")])
def test_how_references_are_resized(pipeline: Any, size: tuple[int, int], mode: str) -> None:
    """Steps 4 of the pipeline's call, whose area limit is 1024 x 1024."""
    picture = Image.effect_noise((50, 40), 90).resize(size).convert(mode)
    image, processor = picture, pipeline.image_processor
    if size[0] * size[1] > 1024**2:
        image = processor._resize_to_target_area(picture, 1024**2)
    width, height = (side // 16 * 16 for side in image.size)
    theirs = processor.preprocess(image, height=height, width=width, resize_mode="crop")
    ours = prepare_reference(picture, "flux2", 1024, 16)
    assert ours.size == (width, height)
    assert torch.equal(torch.from_numpy(np.array(ours)).permute(2, 0, 1)[None].float() / 255 * 2 - 1, theirs)


def test_latents_of_references(pipeline: Any, policy: Flux2Policy, references: tuple[Image.Image, ...]) -> None:
    pixels = [pipeline.image_processor.preprocess(p, height=p.height // 16 * 16, width=p.width // 16 * 16,
                                                  resize_mode="crop") for p in references]  # fmt: skip
    with torch.no_grad():
        theirs, ids = pipeline.prepare_image_latents(pixels, 1, None, "cpu", torch.float32)
    cond = policy.encode(task(references))
    near(cond.reference_NLC, theirs)
    assert torch.equal(cond.ids_LD[15:], ids[0].float())


def test_decoding_takes_the_normalisation_back(policy: Flux2Policy, references: tuple[Image.Image, ...]) -> None:
    codec = policy.codec
    assert codec is not None
    raw = torch.randn(2, 4, 6, 4, generator=torch.Generator().manual_seed(0))
    near(codec.raw(codec.scaled(raw)), raw)
    x0_NLC = policy.encode_targets(references[:1])
    assert x0_NLC.shape == (1, *policy.latent_shape) and policy.decode(x0_NLC).shape == (1, 48, 80, 3)


def test_noise(pipeline: Any, policy: Flux2Policy) -> None:
    generator = torch.Generator().manual_seed(7)
    theirs, _ = pipeline.prepare_latents(1, 4, 48, 80, torch.float32, "cpu", generator)
    assert torch.equal(policy.noise(7), theirs)


@pytest.mark.parametrize(("steps", "tokens"), [(2, 16), (10, 1024), (50, 4096), (4, 4301), (28, 9216)])
def test_schedule(steps: int, tokens: int) -> None:
    """Bit for bit, where mu depends on the steps and where it doesn't."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=compute_empirical_mu(tokens, steps))  # pyright: ignore
    assert torch.equal(flux2_sigmas(steps, tokens), scheduler.sigmas)


def test_velocities(pipeline: Any, policy: Flux2Policy, references: tuple[Image.Image, ...]) -> None:
    """Of a batch at several times, with two references, against the pipeline's two forwards."""
    cond = policy.encode(task(references[:2])).repeat(3)
    assert cond.negative_LC is not None
    x_NLC, sigma_N = torch.cat([policy.noise(seed) for seed in range(3)]), torch.tensor([0.98, 0.5, 0.03])
    halves = []
    with torch.no_grad():
        for text_NLC in (cond.text_NLC, cond.negative_LC.expand(3, -1, -1)):
            (out,) = pipeline.transformer(
                hidden_states=torch.cat((x_NLC, cond.reference_NLC), dim=1), timestep=sigma_N, guidance=None,
                encoder_hidden_states=text_NLC, txt_ids=pipeline._prepare_text_ids(text_NLC), img_ids=cond.ids_LD,
                return_dict=False,
            )  # fmt: skip
            halves.append(out[:, : x_NLC.shape[1]])
        toward, away = halves
        near(policy.velocity(x_NLC, sigma_N, cond), away + 4 * (toward - away))
        near(policy.velocity(x_NLC, sigma_N, cond.conditional()), toward)


def ours(policy: Flux2Policy, references: tuple[Image.Image, ...]) -> tuple[Tensor, Tensor]:
    """The autoencoder's latents and the picture from seed 7."""
    cond, sigmas = policy.encode(task(references)), policy.sigmas(STEPS, "flux2")
    with torch.no_grad():
        x_NLC = integrate(lambda x, sigma: policy.velocity(x, sigma, cond), policy.noise(7), sigmas)
    assert policy.codec is not None
    return policy.codec.raw(unpack(x_NLC, *policy.geometry.grid)), policy.decode(x_NLC)


def theirs(pipeline: Any, references: tuple[Image.Image, ...], size: tuple[int, int], guidance: float):
    asked: dict[str, Any] = {
        "image": list(references) or None, "prompt": PROMPT, "height": size[0], "width": size[1],
        "num_inference_steps": STEPS, "guidance_scale": guidance, "max_sequence_length": LENGTH,
    }  # fmt: skip
    latents = pipeline(**asked, generator=torch.Generator().manual_seed(7), output_type="latent").images
    (picture,) = pipeline(**asked, generator=torch.Generator().manual_seed(7)).images
    return latents, torch.from_numpy(np.array(picture))


CASES = [((48, 80), 0, 1), ((48, 80), 1, 4), ((48, 80), 2, 4), ((64, 64), 0, 4), ((64, 64), 2, 1), ((64, 64), 3, 4)]


@pytest.mark.parametrize(("size", "count", "guidance"), CASES)
def test_pictures(tiny_flux2_folder: Path, pipeline, references, size, count, guidance) -> None:
    height, width = size
    policy = klein(tiny_flux2_folder, height=height, width=width, guidance=guidance)
    latents, picture = theirs(pipeline, references[:count], size, guidance)
    made, drawn_NHWC = ours(policy, references[:count])
    near(made, latents)
    differs = (drawn_NHWC[0].int() - picture.int()).abs()
    assert differs.max() <= 1 and differs.float().mean() < 1e-3 and picture.float().std() > 5


def test_the_comparison_can_fail(pipeline, policy: Flux2Policy, references, monkeypatch: pytest.MonkeyPatch) -> None:
    latents, _ = theirs(pipeline, references[:2], (48, 80), 4)
    made, _ = ours(policy, references[:2])
    near(made, latents)
    monkeypatch.setattr("cgrpo.policies.flux2.inputs.APART", 1)
    moved, _ = ours(policy, references[:2])
    swapped, _ = ours(policy, references[1::-1])
    for wrong in (moved, swapped):
        assert (wrong - latents).abs().max() > 10 * NEAR * latents.abs().max()


def test_a_trained_adapter_gives_the_same_picture_in_the_stock_pipeline(
    tiny_flux2_folder: Path, references: tuple[Image.Image, ...], tmp_path: Path
) -> None:
    """With two references and guidance; and one that the stock pipeline saved is read and trained on."""
    trained = klein(tiny_flux2_folder)
    trained.add_adapter(rank=3, seed=0)
    shake(trained, 1, 0.2)
    trained.save(tmp_path / "adapter")
    stock = Flux2KleinPipeline.from_pretrained(tiny_flux2_folder, local_files_only=True)
    stock.set_progress_bar_config(disable=True)
    plain, _ = theirs(stock, references[:2], (48, 80), 4)
    stock.load_lora_weights(str(tmp_path / "adapter"))
    found, picture = theirs(stock, references[:2], (48, 80), 4)
    made, drawn_NHWC = ours(trained, references[:2])
    near(made, found)
    assert (drawn_NHWC[0].int() - picture.int()).abs().max() <= 1
    assert (plain - found).abs().max() > 100 * NEAR * found.abs().max()  # the adapter does something

    layers = {key: value for key, value in trained.trainable_parameters().items()}
    renamed = {key.replace(".default.", "."): value.detach() for key, value in layers.items()}
    Flux2KleinPipeline.save_lora_weights(tmp_path / "stock", transformer_lora_layers=renamed)
    again = klein(tiny_flux2_folder)
    again.begin_with(tmp_path / "stock" / "pytorch_lora_weights.safetensors", "continue")
    near(ours(again, references[:2])[0], found)
    assert again.trainable_parameters().keys() == layers.keys()


def test_packing_is_the_pipelines(pipeline: Any) -> None:
    raw = torch.randn(2, 4, 6, 10, generator=torch.Generator().manual_seed(2))
    assert torch.equal(pack(raw), pipeline._pack_latents(pipeline._patchify_latents(raw)))
