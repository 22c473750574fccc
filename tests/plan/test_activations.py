"""Activation memory against the tensors that autograd really saves, and against the live ones."""

from __future__ import annotations

import pytest
import torch
from measured import CASES, Case, Live, adapted, run, saved_bytes, small
from torch.nn import functional as F

from cgrpo.plan.activations import Checkpointing, Precision, activations, block_saved
from cgrpo.plan.flux2 import Flux2
from cgrpo.plan.transformer import Flux, Tokens
from cgrpo.policies.memory import set_checkpointing

KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@pytest.fixture
def like_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms as CUDA's autocast computes them: in float32, on a copy of their own."""
    layer_norm, rms_norm = F.layer_norm, F.rms_norm
    monkeypatch.setattr(F, "layer_norm", lambda x, *rest: layer_norm(x.float(), *rest))
    monkeypatch.setattr(F, "rms_norm", lambda x, shape, w, eps: rms_norm(x.float(), shape, w.float(), eps))


def planned(case: Case, mode: Checkpointing, precision: Precision) -> int:
    found = activations(case.flux, case.tokens, case.rank, case.samples, mode, precision)
    return found.kept + (found.copies if found.copies_kept else 0)


@pytest.mark.parametrize("mode", ["off", "full"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_saved_tensors(name: str, kind: str, mode: Checkpointing) -> None:
    case = CASES[name]
    model = adapted(case, KINDS[kind])
    set_checkpointing(model, mode)
    assert planned(case, mode, Precision.of(kind, "cpu")) == pytest.approx(
        saved_bytes(model, case, KINDS[kind]), rel=0.01
    )


@pytest.mark.parametrize("name", CASES)
def test_saved_tensors_with_cudas_norms(name: str, like_cuda: None) -> None:
    case = CASES[name]
    found = saved_bytes(adapted(case, torch.bfloat16), case, torch.bfloat16)
    assert planned(case, "off", Precision.of("bfloat16", "cuda")) == pytest.approx(found, rel=0.01)
    assert planned(case, "off", Precision.of("bfloat16", "cpu")) < 0.98 * found


# Wide enough for what is per token to outweigh what is per sample, as it does in FLUX.
WIDE = Case(small(1, 4, 2, 64), 16, 2, Tokens(64, 64, 32))
WIDE2 = Case(Flux2(1, 4, 2, 64, 12, 12, 20), 16, 2, Tokens(64, 64, 32))


@pytest.mark.parametrize("mode", ["off", "selective", "full"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wide", [WIDE, WIDE2], ids=["flux", "flux2"])
def test_live_tensors(wide: Case, kind: str, mode: Checkpointing, like_cuda: None) -> None:
    model = adapted(wide, KINDS[kind])
    set_checkpointing(model, mode)
    precision = Precision.of(kind, "cuda")
    found = activations(wide.flux, wide.tokens, wide.rank, wide.samples, mode, precision)
    with Live() as live:
        loss = run(model, wide, KINDS[kind]).float().square().sum()
        assert planned(wide, mode, precision) == pytest.approx(live.now, rel=0.03)
        loss.backward()
    gradients = 4 * wide.flux.lora_parameters(wide.rank)
    peak = planned(wide, mode, precision) + found.again + found.backward_work + gradients
    assert peak == pytest.approx(live.peak, rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wide", [WIDE, WIDE2], ids=["flux", "flux2"])
def test_live_tensors_without_a_backward(wide: Case, kind: str, like_cuda: None) -> None:
    model, precision = adapted(wide, KINDS[kind]), Precision.of(kind, "cuda")
    found = activations(wide.flux, wide.tokens, wide.rank, wide.samples, "off", precision)
    with torch.no_grad(), Live() as live:
        run(model, wide, KINDS[kind])
    copies = wide.flux.lora_parameters(wide.rank) * 2 if kind == "bfloat16" else 0
    assert found.forward_work + copies == pytest.approx(live.peak, rel=0.15)


def test_a_single_block_of_flux_at_512_pixels() -> None:
    """By hand, in numbers a token, D = 3072, r = 512, H = 24. Two bytes each: LoRA inputs D + 5 D and middles 2 r;
    q, k, v 3 D; rotated q, k 2 D; attention's output D; activation's input 4 D. Four bytes each: copies of q and k
    2 D, their scales 2 H, log-sum H, layer norm's input and statistics D + 2. Two bytes a sample: modulation 4 D."""
    d, r, h = 3072, 512, 24
    per_token = 2 * (16 * d + 2 * r) + 4 * (3 * d + 3 * h + 2)
    found = block_saved(Flux(), Tokens(1024, 1024, 512), r, 1, Precision.of("bfloat16"), double=False, first=False)
    assert found == 2560 * per_token + 2 * 4 * d
