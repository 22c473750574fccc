"""bf16 base, fp32 adapter; what saves memory or time must not change the numbers, or by how much it does is bounded."""

from __future__ import annotations

import functools

import pytest
import torch
from support.policies import add_adapter, golden_policy, shake
from support.tiny_flux import golden
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cgrpo.algorithm import all_steps, replay_logp, rollout, shifted_sigmas
from cgrpo.errors import UserError
from cgrpo.policies.adapters.layers import adapter_state, set_adapter_state
from cgrpo.policies.flux.policy import FluxCondition, FluxPolicy
from cgrpo.policies.memory import on_device, set_attention, set_checkpointing
from cgrpo.policies.settings import Attention

N, STEPS = 4, 3


def make(dtype: torch.dtype, seed: int = 1) -> tuple[FluxPolicy, FluxCondition]:
    """The golden transformer in ``dtype`` with an adapter that does something, and a condition of N rows."""
    policy = golden_policy(dtype)
    add_adapter(policy.transformer, rank=4, seed=0)
    shake(policy, seed)
    g = golden("golden_uno/tiny_forward.safetensors")
    rows = torch.arange(N) % 2
    return policy, policy.condition(g["txt"][rows], g["vec"][rows], [g["ref1_latent"][rows]], 3.5)


def noise(k: int, policy: FluxPolicy) -> Tensor:
    return torch.randn(N, *policy.latent_shape, generator=torch.Generator().manual_seed(k))


def gradients(policy: FluxPolicy, cond: FluxCondition) -> tuple[Tensor, list[Tensor]]:
    v_NLC = policy.velocity(noise(0, policy), torch.linspace(0.2, 0.8, N), cond)
    policy.transformer.zero_grad()
    v_NLC.square().mean().backward()
    return v_NLC.detach(), [p.grad.clone() for p in policy.trainable_parameters().values() if p.grad is not None]


def drift(dtype: torch.dtype, rows: int) -> float:
    """Largest |log ratio| when the transitions of a rollout of N samples are replayed ``rows`` at a time."""
    policy, cond = make(dtype)
    sigmas = shifted_sigmas(STEPS, 3.0)
    draw = functools.partial(noise, policy=policy)
    roll = rollout(functools.partial(policy.velocity, cond=cond), draw(99), sigmas, all_steps(STEPS, N), draw)
    worst = 0.0
    for index_B in torch.arange(len(roll.logp_M)).split(rows):
        velocity = functools.partial(policy.velocity, cond=cond.select(roll.sample_M[index_B]))
        logp_B, _, _ = replay_logp(velocity, roll, index_B, sigmas)
        assert logp_B.requires_grad
        worst = max(worst, (logp_B.detach() - roll.logp_M[index_B]).abs().max().item())
    return worst


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ratio_is_exactly_one_at_the_same_batch_shape(dtype: torch.dtype) -> None:
    assert drift(dtype, rows=N) == 0


@pytest.mark.parametrize("dtype,bound", [(torch.float32, 1e-6), (torch.bfloat16, 5e-3)])
def test_drift_at_other_batch_shapes_is_bounded(dtype: torch.dtype, bound: float) -> None:
    assert drift(dtype, rows=1) <= bound


def test_the_adapter_computes_in_bf16_and_is_kept_in_fp32() -> None:
    policy, cond = make(torch.bfloat16)
    seen: list[torch.dtype] = []
    for name, module in policy.transformer.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    _, grads = gradients(policy, cond)
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in policy.trainable_parameters().values()} == {torch.float32} == {g.dtype for g in grads}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", ["selective", "full"])
def test_checkpointing_changes_no_bit(dtype: torch.dtype, mode: str) -> None:
    policy, cond = make(dtype)
    v_NLC, plain = gradients(policy, cond)
    set_checkpointing(policy.transformer, mode)  # type: ignore[arg-type]
    again_NLC, found = gradients(policy, cond)
    assert torch.equal(v_NLC, again_NLC)
    assert plain and all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))


def cost(policy: FluxPolicy, cond: FluxCondition) -> tuple[int, int]:
    """(bytes that autograd keeps for the backward, parameters apart; FLOPs of forward and backward)."""
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in policy.transformer.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            v_NLC = policy.velocity(noise(0, policy), torch.full((N,), 0.5), cond)
        v_NLC.square().mean().backward()
    return sum(kept.values()), counter.get_total_flops()


def test_checkpointing_trades_memory_for_time() -> None:
    policy, cond = make(torch.float32)
    kept, flops = {}, {}
    for mode in ("off", "selective", "full"):
        set_checkpointing(policy.transformer, mode)  # type: ignore[arg-type]
        kept[mode], flops[mode] = cost(policy, cond)
    assert kept["full"] < 0.1 * kept["off"]
    # Only the adapter's products are repeated, not the base's or attention.
    assert flops["off"] < flops["selective"] < 1.05 * flops["off"]
    assert flops["full"] > 1.2 * flops["off"]


def test_compiled_blocks_give_the_same() -> None:
    policy, cond = make(torch.float32)
    v_NLC, plain = gradients(policy, cond)
    policy.compile("aot_eager")
    again_NLC, found = gradients(policy, cond)
    assert (v_NLC - again_NLC).abs().max() <= 1e-5
    assert max((a - b).abs().max() for a, b in zip(plain, found, strict=True)) <= 1e-4


@pytest.mark.parametrize(
    ("name", "operation"), [("math", "attention_math"), ("flash", "scaled_dot_product_flash_attention_for_cpu")]
)
def test_attention_is_the_same_by_another_way(name: Attention, operation: str) -> None:
    policy, cond = make(torch.float32)
    v_NLC, plain = gradients(policy, cond)
    set_attention(policy.transformer, name, torch.device("cpu"), torch.float32)
    with torch.profiler.profile() as profile:
        again_NLC, found = gradients(policy, cond)
    used = {event.key for event in profile.key_averages() if "scaled_dot_product" in event.key}
    assert any(operation in key for key in used) and len([key for key in used if "backward" not in key]) == 2
    assert (v_NLC - again_NLC).abs().max() <= 1e-5
    assert max((a - b).abs().max() for a, b in zip(plain, found, strict=True)) <= 1e-4


@pytest.mark.parametrize("name", ["efficient", "cudnn", "flash-attn-2", "flash-attn-3"])
def test_attention_that_does_not_work_here_is_one_line(name: Attention) -> None:
    policy, _ = make(torch.float32)
    with pytest.raises(UserError, match=rf"policy\.attention = {name}.*on cpu in float32.*default"):
        set_attention(policy.transformer, name, torch.device("cpu"), torch.float32)


def test_int8_base_trains_near_the_exact_one() -> None:
    exact, cond = make(torch.float32)
    v_NLC, plain = gradients(exact, cond)
    policy = golden_policy()
    policy.quantise()
    add_adapter(policy.transformer, rank=4, seed=0)
    set_adapter_state(policy.transformer, adapter_state(exact.transformer))
    again_NLC, found = gradients(policy, cond)
    weight = policy.transformer.transformer_blocks[0].attn.to_qkv.base_layer.weight
    assert type(weight).__name__ == "Int8Tensor"
    assert 0 < (again_NLC - v_NLC).norm() < 0.05 * v_NLC.norm()
    for one, other in zip(plain, found, strict=True):
        assert torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), 0) > 0.9
    own = policy.pictures_depend_on()
    assert own["transformer"] != exact.pictures_depend_on()["transformer"]
    weight.scale.mul_(2)  # type: ignore[operator]
    assert policy.pictures_depend_on() != own


def test_offloaded_models_come_and_go() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places: list[str] = []

        def to(self, device: torch.device | str) -> Model:  # type: ignore[override]
            self.places.append(str(device))
            return self

    model = Model()
    with on_device(torch.device("cuda"), model, offload=True):
        assert model.places == ["cuda"]
    assert model.places == ["cuda", "cpu"]
    with pytest.raises(ZeroDivisionError), on_device(torch.device("cuda"), model, offload=True):
        raise ZeroDivisionError
    assert model.places[-1] == "cpu"  # also after an error
    with on_device(torch.device("cuda"), model, offload=False):
        assert len(model.places) == 4
