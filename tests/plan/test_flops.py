"""Operations against PyTorch's own counter, and against FLUX.1-dev's figures worked out by hand."""

from __future__ import annotations

import pytest
import torch
from measured import CASES, adapted, counter, run

from cgrpo.plan.encoders import Vae
from cgrpo.plan.flops import Flops, backward, blocks_forward, forward
from cgrpo.plan.transformer import Flux, Tokens
from cgrpo.policies.memory import set_checkpointing

PAPER = Tokens(target=1024, references=1024, text=512)  # 512 x 512 pixels each


@pytest.mark.parametrize("mode", ["off", "selective", "full"])
@pytest.mark.parametrize("name", CASES)
def test_every_product_is_counted(name: str, mode) -> None:
    case = CASES[name]
    model = adapted(case)
    set_checkpointing(model, mode)
    sizes = case.flux, case.tokens, case.rank
    with counter() as seen:
        out = run(model, case)
    assert seen.get_total_flops() == case.samples * forward(*sizes).total
    with counter() as seen:
        out.square().sum().backward()
    whole = blocks_forward(*sizes)
    again = {"off": Flops(), "selective": Flops(lora=whole.lora), "full": whole}[mode]
    assert seen.get_total_flops() == case.samples * (backward(*sizes) + again).total


def test_without_the_adapter() -> None:
    case = CASES["plain"]
    model = adapted(case)
    model.disable_adapters()
    with counter() as seen, torch.no_grad():
        run(model, case)
    assert seen.get_total_flops() == case.samples * forward(case.flux, case.tokens, 0).total


def test_flux_at_512_pixels_and_rank_512() -> None:
    """By hand, D = 3072, L = 2560: every block has 12 D^2 weights a token: 57 * 12 D^2 * 2 L = 33.05e12; attention
    57 * 4 L^2 D = 4.59e12; LoRA (19 * 6 + 38 * 10) * 512 * D * 2 L = 3.98e12."""
    found = forward(Flux(), PAPER, 512)
    assert found.linear / 1e12 == pytest.approx(33.0, abs=0.1)
    assert found.attention / 1e12 == pytest.approx(4.6, abs=0.05)
    assert found.lora / 1e12 == pytest.approx(4.0, abs=0.05)


def test_the_papers_iteration() -> None:
    """12 samples of 25 steps, int(0.6 * 24) = 14 of them trained: 300 forwards, 168 forward-backwards.

    The known 27 and 34 (with checkpointing) PFLOP take attention's backward to cost as much as its forward.
    """
    ahead, back = forward(Flux(), PAPER, 512), backward(Flux(), PAPER, 512)
    again = blocks_forward(Flux(), PAPER, 512).total
    simple = 300 * ahead.total + 168 * (ahead.total + back.linear + back.lora + ahead.attention)
    assert simple / 1e15 == pytest.approx(27.1, abs=0.05)
    assert (simple + 168 * again) / 1e15 == pytest.approx(34.1, abs=0.05)
    # Flash attention's backward has 5 products where its forward has 2: another 1.5 * 4.59e12 a pair.
    ours = 300 * ahead.total + 168 * (ahead + back).total
    assert ours / 1e15 == pytest.approx(28.3, abs=0.05)
    assert (ours + 168 * again) / 1e15 == pytest.approx(35.3, abs=0.05)


@pytest.mark.parametrize("channels", [(8, 8, 16), (8, 16, 24, 12)])
def test_autoencoder(channels: tuple[int, ...]) -> None:
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        block_out_channels=channels,
        layers_per_block=2,
        latent_channels=6,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
    )
    sizes = Vae.from_config(model.config)
    with torch.no_grad():
        with counter() as seen:
            latents = model.encode(torch.zeros(1, 3, 32, 48)).latent_dist.mean
        assert seen.get_total_flops() == sizes.encode_flops(32 * 48)
        with counter() as seen:
            model.decode(latents)
    assert seen.get_total_flops() == sizes.decode_flops(32 * 48)
