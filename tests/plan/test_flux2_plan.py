"""Plans of FLUX.2-klein: sizes against the libraries' own models, and what guidance by a negative prompt costs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
from measured import counter
from support import tiny_flux2
from support.policies import from_folder
from torch import nn
from transformers import Qwen3Config, Qwen3Model

from cgrpo.config import Config, load_config
from cgrpo.plan import Plan, plan
from cgrpo.plan.encoders import Vae
from cgrpo.plan.flux2 import FLUX2_9B, QWEN3_8B, Flux2, Qwen3
from cgrpo.plan.shapes import FLUX2_VAE
from cgrpo.policies.flux2.policy import Flux2Policy

SIZES = {  # doubles, singles, heads, text width; Qwen3's width, hidden width
    "4B": (Flux2(), Qwen3(), (5, 20, 24, 7680), (2560, 9728), 3_875_544_576),
    "9B": (FLUX2_9B, QWEN3_8B, (8, 24, 32, 12288), (4096, 12288), 9_078_581_248),
}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", SIZES)
def test_parameters(name: str) -> None:
    flux, qwen, (doubles, singles, heads, text), (width, hidden), parameters = SIZES[name]
    with torch.device("meta"):
        model = Flux2Transformer2DModel(
            num_layers=doubles, num_single_layers=singles, num_attention_heads=heads, joint_attention_dim=text,
            guidance_embeds=False,
        )  # fmt: skip
        read = Qwen3Model(
            Qwen3Config(
                hidden_size=width, intermediate_size=hidden, num_hidden_layers=27, num_key_value_heads=8,
                num_attention_heads=32,
            )
        )  # fmt: skip
    assert flux.parameters == count(model) == parameters and Flux2.from_config(model.config) == flux
    assert qwen.parameters == count(read) - width  # the last norm, which is not read
    assert text == 3 * width


@pytest.mark.parametrize("decoder", [None, (4, 8, 4, 4)])
def test_autoencoder(decoder: tuple[int, ...] | None) -> None:
    model = AutoencoderKLFlux2(
        block_out_channels=(4, 4, 8, 8), latent_channels=4, norm_num_groups=2, decoder_block_out_channels=decoder
    )
    sizes = Vae.from_config(model.config)
    assert sizes.parameters == count(model)
    with torch.no_grad():
        with counter() as seen:
            latents = model.encode(torch.zeros(1, 3, 32, 48)).latent_dist.mean
        assert seen.get_total_flops() == sizes.encode_flops(32 * 48)
        with counter() as seen:
            model.decode(latents)
    assert seen.get_total_flops() == sizes.decode_flops(32 * 48)
    with torch.device("meta"):
        assert FLUX2_VAE.parameters == count(AutoencoderKLFlux2())


def klein(*settings: str) -> Config:
    return load_config("klein", settings)


def parts(found: Plan, name: str) -> float:
    return found.work.operations[name]


def test_the_recipe_by_hand() -> None:
    """8 prompts x 12 samples x 10 steps, each two forwards; int(0.6 * 9) = 5 pairs a sample; (512 / 16)^2 = 1,024."""
    found = plan(klein())
    assert (found.tokens.target, found.tokens.references, found.tokens.text) == (1024, 1024, 512)
    assert (found.work.sampling_forwards, found.work.pairs, found.work.updates) == (2 * 960, 480, 3)
    assert list(found.parameters)[:3] == ["transformer", "Qwen3 text encoder", "autoencoder"]
    # Rank 64: q, k, v, the output in both streams of 5 blocks; the two layers of 20, 3 + 2 * 3 and 1 + 3 widths.
    assert found.trained == 64 * 3072 * (5 * 2 * 4 * 2 + 20 * ((1 + 9) + (4 + 1)))


def test_what_guidance_costs() -> None:
    without, both, one = (
        plan(klein(f"policy.guidance={scale}", f"policy.guidance_gradient={gradient}"))
        for scale, gradient in ((1, "both"), (4, "both"), (4, "conditional"))
    )
    for name in ("sampling", "training, forward", "reference policy (kl)"):
        assert parts(both, name) == parts(one, name) == 2 * parts(without, name)
    for name in ("training, backward", "training, computed again"):
        assert parts(both, name) == 2 * parts(without, name) and parts(one, name) == parts(without, name)
    assert parts(both, "text encoders") == 9 / 8 * parts(without, "text encoders")  # the negative prompt, too
    told = [
        next(note for note in plan(klein("guard.source=x", *settings)).notes if "guard's time" in note)
        for settings in (["policy.guidance=1"], ["policy.guidance=1", "policy.evaluation_guidance=4"], [])
    ]
    assert ["64 x 10 f" in told[0], "64 x 20 f" in told[1], "64 x 20 f" in told[2]] == [True] * 3
    kept = [found.memory.backward["full"] for found in (without, both, one)]
    assert kept[1] > 1.5 * kept[0] and kept[2] == kept[0]
    drawn = [sum(part.size or 0 for part in found.memory.phases["sample"]) for found in (without, both, one)]
    assert drawn[1] > 1.5 * drawn[0] and drawn[2] == drawn[0]


def test_a_folder_is_read_and_a_name_is_assumed(tmp_path: Path) -> None:
    folder = tiny_flux2.build_folder(tmp_path)
    found = plan(klein(f"policy.path={folder}"))
    policy = from_folder(Flux2Policy, folder, height=32, width=32, reference_size=32)
    assert policy.prompts is not None and policy.codec is not None
    (qwen,), vae = policy.prompts.modules, policy.codec.vae
    assert list(found.parameters.values())[:3] == [count(policy.transformer), count(qwen), count(vae)]
    assert found.tokens.text == tiny_flux2.LENGTH and not any("assumed" in note for note in found.notes)
    for name, parameters in (("klein-base-4B", 3_875_544_576), ("klein-9B@main", 9_078_581_248)):
        assumed = plan(klein(f"policy.path=black-forest-labs/FLUX.2-{name}"))
        assert assumed.parameters["transformer"] == parameters and "are assumed" in assumed.notes[0]


@pytest.mark.parametrize("gpu", ["rtx-4090-24gb", "rtx-3090-24gb"])
def test_the_24_gb_recipe_fits_with_room_for_the_guards_scorers(gpu: str) -> None:
    found = plan(load_config("klein-24gb"), gpu=gpu)
    assert found.fits and found.memory.peak < 22 * 2**30
