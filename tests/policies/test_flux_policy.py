"""A whole checkpoint folder, end to end: what goes in comes out, and mistakes are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FluxPipeline
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from support.policies import from_folder
from support.tiny_flux import golden_transformer, tiny_transformer

from cgrpo.errors import BrokenPicture, UserError
from cgrpo.policies.base import Policy
from cgrpo.policies.encodings.latents import pack
from cgrpo.policies.flux.inputs import position_ids
from cgrpo.policies.flux.policy import FluxPolicy
from cgrpo.policies.settings import PolicySettings
from cgrpo.types import Batch


def batch(prompts: tuple[str, ...], colours: tuple[str, ...], size: tuple[int, int] = (40, 30)) -> Batch:
    pictures = tuple((Image.new("RGB", size, colour),) for colour in colours)
    return Batch(tuple(f"task{i}" for i in range(len(prompts))), prompts, pictures, ("cube",) * len(prompts))


TWO = batch(("a red cube", "a blue ball on the beach"), ("red", "blue"))


def start(policy: Policy, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, *policy.latent_shape, generator=generator), torch.linspace(0.2, 0.9, n)


def test_shapes(tiny_policy: FluxPolicy) -> None:
    policy: Policy = tiny_policy  # the protocol holds
    cond = tiny_policy.encode(TWO)
    assert policy.latent_shape == (24, 32)
    assert cond.text_NLC.shape == (2, 12, 24) and cond.pooled_NC.shape == (2, 20)
    assert cond.reference_NLC.shape == (2, 12, 32) and cond.ids_LD.shape == (24 + 12, 3)
    assert torch.equal(cond.ids_LD, position_ids((4, 6), [(3, 4)], "d")) and cond.ids_LD.dtype == torch.float32
    assert policy.trainable_parameters() == {}


@torch.no_grad()
def test_equals_the_stock_pipeline(tiny_folder: Path, tiny_policy: FluxPolicy) -> None:
    """Without references we are FluxPipeline: text, time, guidance, packing, autoencoder and rounding."""
    pipeline = FluxPipeline.from_pretrained(tiny_folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    x_NLC, _ = start(tiny_policy, 2)
    prompts = (TWO.prompts[0], "a red ball on the beach in the snow " * 3)  # the second is cut
    theirs = pipeline(
        list(prompts), height=32, width=48, num_inference_steps=3, guidance_scale=3.5, latents=x_NLC.clone(),  # pyright: ignore
        max_sequence_length=12, output_type="np", return_dict=False,
    )[0]  # fmt: skip
    cond = tiny_policy.encode(Batch(TWO.ids, prompts, ((), ()), TWO.subjects))
    sigmas = pipeline.scheduler.sigmas
    for sigma, following in zip(sigmas, sigmas[1:], strict=False):
        x_NLC = x_NLC + (following - sigma) * tiny_policy.velocity(x_NLC, sigma.expand(2), cond)
    ours = tiny_policy.decode(x_NLC)
    assert ours.float().std() > 1
    differs = (ours.int() - torch.from_numpy(theirs * 255).round().int()).abs()
    assert differs.max() <= 1 and differs.float().mean() < 0.01


@torch.no_grad()
def test_references_are_encoded_like_the_stock_kontext_pipeline(tiny_folder: Path, tiny_policy: FluxPolicy) -> None:
    """(posterior mean - shift) * scale of pixels in [-1, 1], by the autoencoder alone."""
    picture = Image.effect_noise((32, 24), 90).convert("RGB")
    vae = AutoencoderKL.from_pretrained(tiny_folder / "vae")
    pixels = VaeImageProcessor(vae_scale_factor=4).preprocess(picture)
    expected = (vae.encode(pixels).latent_dist.mode() - 0.1) * 0.7  # pyright: ignore
    cond = tiny_policy.encode(Batch(("a",), ("a",), ((picture, picture),), ("cube",)))
    assert torch.allclose(cond.reference_NLC[:, :12], pack(expected), atol=1e-5)
    assert torch.equal(cond.reference_NLC[:, :12], cond.reference_NLC[:, 12:])
    assert torch.equal(cond.ids_LD, position_ids((4, 6), [(3, 4), (3, 4)], "d"))


@torch.no_grad()
def test_everything_matters(tiny_policy: FluxPolicy) -> None:
    """Prompt (through T5 and CLIP), reference, sigma and guidance each change the velocity."""
    x_NLC, sigma_N = start(tiny_policy, 1)
    cond = tiny_policy.encode(batch(("a red cube",), ("red",)))
    other = tiny_policy.encode(batch(("a blue ball",), ("green",)))
    base = tiny_policy.velocity(x_NLC, sigma_N, cond)
    texts = cond.text_NLC, cond.pooled_NC
    latents = [cond.reference_NLC.reshape(1, 3, 4, 8, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(1, 8, 6, 8)]
    assert torch.equal(tiny_policy.velocity(x_NLC, sigma_N, tiny_policy.condition(*texts, latents)), base)
    variants = {
        "t5": tiny_policy.condition(other.text_NLC, texts[1], latents),
        "clip": tiny_policy.condition(texts[0], other.pooled_NC, latents),
        "no reference": tiny_policy.condition(*texts),
        "guidance": tiny_policy.condition(*texts, latents, guidance=1.0),
        "guidance tensor": tiny_policy.condition(*texts, latents, guidance=torch.tensor([1.0])),
        "reference": replace(cond, reference_NLC=other.reference_NLC),
    }
    for name, variant in variants.items():
        assert not torch.allclose(tiny_policy.velocity(x_NLC, sigma_N, variant), base, atol=1e-6), name
    assert not torch.allclose(tiny_policy.velocity(x_NLC, sigma_N / 2, cond), base, atol=1e-6)


@torch.no_grad()
def test_decode_in_chunks(tiny_policy: FluxPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    x_NLC, _ = start(tiny_policy, 3)
    whole = tiny_policy.decode(x_NLC)
    monkeypatch.setattr(type(tiny_policy.codec), "chunk", 2)
    assert (tiny_policy.decode(x_NLC).int() - whole.int()).abs().max() <= 1


# ---------------------------------------------------------------- the time hook


@torch.no_grad()
@pytest.mark.parametrize("mode", ["autocast", "bf16 weights"])
def test_time_is_exact_in_bf16(mode: str) -> None:
    """Stock diffusers rounds 1000 * sigma to bf16, so that 0.986 and 0.984 are one time; here they differ."""
    seen: list[torch.Tensor] = []
    transformer = golden_transformer()
    transformer.time_text_embed.time_proj.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    if mode == "bf16 weights":
        transformer = transformer.bfloat16()
    for _ in range(2):  # the hooks of the first policy must not disturb the second's
        policy = FluxPolicy(transformer, None, None, PolicySettings(height=32, width=32, reference_size=32))
    cond = policy.condition(torch.randn(2, 5, 24), torch.randn(2, 20))
    sigma_N = torch.tensor([0.986, 0.984])
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
        v_NLC = policy.velocity(torch.ones(2, 4, 64), sigma_N, cond)
    assert torch.equal(seen[0], sigma_N * 1000) and torch.equal(seen[1], torch.full((2,), 3500.0))
    assert seen[0].dtype == torch.float32 and v_NLC.dtype == torch.float32


@torch.no_grad()
def test_stock_time_is_not_exact() -> None:
    """The reason for the hook; if this fails, diffusers has changed and the hook can go."""
    seen: list[torch.Tensor] = []
    transformer = golden_transformer()
    transformer.time_text_embed.time_proj.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.autocast("cpu", torch.bfloat16):
        transformer(
            hidden_states=torch.ones(1, 4, 64), encoder_hidden_states=torch.ones(1, 5, 24), guidance=torch.ones(1),
            pooled_projections=torch.ones(1, 20), timestep=torch.tensor([0.986]), img_ids=torch.zeros(4, 3),
            txt_ids=torch.zeros(5, 3),
        )  # fmt: skip
    assert seen[0].item() == 984


@torch.no_grad()
def test_no_guidance_embedding() -> None:
    """FLUX.1-schnell's layout: guidance is not passed and the hook copes with two arguments."""
    torch.manual_seed(0)
    transformer = tiny_transformer(guidance_embeds=False)
    policy = FluxPolicy(transformer, None, None, PolicySettings(height=32, width=32, reference_size=32))
    texts = torch.randn(1, 5, 24), torch.randn(1, 20)
    x_NLC, sigma_N = start(policy, 1)
    one, two = (policy.velocity(x_NLC, sigma_N, policy.condition(*texts, guidance=g)) for g in (1.0, 4.0))
    assert torch.equal(one, two)


# ---------------------------------------------------------------- mistakes


def test_sizes_that_are_no_whole_tokens(tiny_folder: Path) -> None:
    with pytest.raises(UserError, match="multiples of 8"):
        from_folder(FluxPolicy, tiny_folder, height=33, width=32, reference_size=32)


def test_reference_sizes_and_counts_must_agree(tiny_policy: FluxPolicy) -> None:
    wide, tall = batch(("a cube",), ("red",)), batch(("a cube",), ("red",), size=(30, 40))
    mixed = Batch(("wide", "tall"), ("a", "a"), wide.references + tall.references, ("cube", "cube"))
    with pytest.raises(UserError, match="task tall is 24 x 32.*task wide 32 x 24"):
        tiny_policy.encode(mixed)
    uneven = Batch(("one", "none"), ("a", "a"), (*wide.references, ()), ("cube", "cube"))
    with pytest.raises(UserError, match="number of references"):
        tiny_policy.encode(uneven)


def test_which_prompts_are_cut(tiny_policy: FluxPolicy) -> None:
    found = tiny_policy.cut_prompts(["a red cube", "a red cube on the beach in the snow", "on " * 9, "on " * 10])
    assert found == {"CLIP at 10 tokens": [3], "T5 at 12 tokens": []}


def test_latents_that_are_no_picture(tiny_policy: FluxPolicy) -> None:
    x_NLC = torch.zeros(3, *tiny_policy.latent_shape)
    assert tiny_policy.decode(x_NLC).shape == (3, 32, 48, 3)
    x_NLC[1, 0, 0] = torch.nan
    x_NLC[2, -1, -1] = torch.inf
    with pytest.raises(BrokenPicture, match="2 of 3 sampled pictures are NaN or infinite"):
        tiny_policy.decode(x_NLC)
