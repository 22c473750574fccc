"""FluxPolicy against vectors made by the reference code (UNO; Customized-GRPO): forward, gradients, trajectories."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_flux import golden, golden_transformer
from torch import Tensor

from cgrpo.algorithm import integrate, shifted_sigmas
from cgrpo.algorithm.flow import gaussian_logp, predict_x0, sde_transition
from cgrpo.policies import (
    FluxCondition,
    FluxPolicy,
    adapter_state,
    adapter_to_uno,
    add_adapter,
    pack,
    position_ids,
    reference_policy,
    set_adapter_state,
    uno_to_adapter,
    unpack,
)

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def policy() -> FluxPolicy:
    """The reference's tiny model with its LoRA loaded from UNO keys."""
    policy = FluxPolicy(golden_transformer(), None, None, height=64, width=96, reference_size=32)
    add_adapter(policy.transformer, rank=4, seed=0)
    lora = {key: value.float() for key, value in golden("golden_uno/tiny_lora_uno.safetensors").items()}
    set_adapter_state(policy.transformer, uno_to_adapter(lora))
    return policy


@pytest.fixture(scope="module")
def forward() -> dict[str, Tensor]:
    return golden("golden_uno/tiny_forward.safetensors")


def condition(policy: FluxPolicy, golden_: dict[str, Tensor], references: int, pe: str = "d") -> FluxCondition:
    policy.pe = pe  # type: ignore[assignment]
    latents = [golden_[f"ref{i + 1}_latent"] for i in range(references)]
    guidance = golden_.get("guidance", torch.tensor([4.0]))
    return policy.condition(golden_["txt"], golden_["vec"], latents, guidance)


def near(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    assert ours.shape == theirs.shape
    assert (ours.float() - theirs.float()).abs().max().item() <= tolerance


@torch.no_grad()
@pytest.mark.parametrize("references,pe", [(0, "d"), *((r, pe) for r in (1, 2) for pe in "dhwo")])
def test_velocity_with_lora(policy: FluxPolicy, forward: dict[str, Tensor], references: int, pe: str) -> None:
    cond = condition(policy, forward, references, pe)
    v_NLC = policy.velocity(forward["img_tokens"], forward["timesteps"], cond)
    near(v_NLC, forward["out.0ref" if references == 0 else f"out.{references}ref.{pe}"])
    for other in set("dhwo") - {pe} if references else ():  # the check tells the schemes apart
        assert (v_NLC - forward[f"out.{references}ref.{other}"]).abs().max() > 0.05


@torch.no_grad()
def test_velocity_without_lora(policy: FluxPolicy, forward: dict[str, Tensor]) -> None:
    cond = condition(policy, forward, 2)
    with reference_policy(policy.transformer):
        near(
            policy.velocity(forward["img_tokens"], forward["timesteps"], cond),
            forward["out_nolora.2ref.d"],
        )
    near(policy.velocity(forward["img_tokens"], forward["timesteps"], cond), forward["out.2ref.d"])


def test_lora_gradients(policy: FluxPolicy, forward: dict[str, Tensor]) -> None:
    policy.transformer.zero_grad()
    v_NLC = policy.velocity(forward["img_tokens"], forward["timesteps"], condition(policy, forward, 2))
    (v_NLC * forward["grad_weight"]).sum().backward()
    parameters = dict(policy.transformer.named_parameters())
    ours = adapter_to_uno(
        {key: parameters[key.replace(".weight", ".default.weight")].grad for key in adapter_state(policy.transformer)}  # type: ignore[misc]
    )
    checked = [key for key in forward if key.startswith("grad.")]
    assert checked
    for key in checked:  # gradients reach 198
        near(ours[key.removeprefix("grad.")], forward[key])


@torch.no_grad()
@pytest.mark.parametrize("references", [1, 2])
def test_euler_trajectory(policy: FluxPolicy, references: int) -> None:
    euler = golden("golden_uno/tiny_euler.safetensors")
    cond = condition(policy, euler, references)
    x_NLC, sigmas = pack(euler["noise"]), euler["timesteps"].tolist()
    for k, (sigma, following) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        near(x_NLC, euler[f"traj.{references}ref"][k : k + 1])
        v_NLC = policy.velocity(x_NLC, torch.tensor([sigma]), cond)
        near(v_NLC, euler[f"v.{references}ref"][k : k + 1])
        x_NLC = x_NLC + (following - sigma) * v_NLC
    near(unpack(x_NLC, 4, 6), euler[f"final_latent.{references}ref"])


@torch.no_grad()
@pytest.mark.parametrize("references", [1, 2])
def test_unos_inference_from_seed_to_latents(policy: FluxPolicy, references: int) -> None:
    """What `cgrpo sample --seed 3407 --shift uno --guidance 4 --steps 6` does: UNO's noise, schedule and steps."""
    euler = golden("golden_uno/tiny_euler.safetensors")
    cond, x_NLC = condition(policy, euler, references), policy.noise(3407)
    near(x_NLC, pack(euler["noise"]), 0)
    sigmas = shifted_sigmas(6, "uno", policy.latent_shape[0])
    near(sigmas, euler["timesteps"], 1e-6)
    x_NLC = integrate(lambda x, sigma: policy.velocity(x, sigma, cond), x_NLC, sigmas)
    near(unpack(x_NLC, 4, 6), euler[f"final_latent.{references}ref"])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sde", "window"])
def test_rollout_of_the_release(policy: FluxPolicy, kind: str) -> None:
    """Customized-GRPO's own sampler, step by step through our transition."""
    roll = golden("golden_sde/tiny_rollout.safetensors")
    policy.pe = "d"
    cond = policy.condition(roll["txt"], roll["vec"], [unpack(roll["ref1_tokens"], 3, 2)], 3.5)
    near(cond.ids_LD, torch.cat((roll["img_ids"], roll["ref1_ids"])), 0)
    x_NLC, final_x0, sigmas = pack(roll["noise_latent"]), torch.empty(0), roll["sigmas"]
    for k, (sigma, following) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        near(x_NLC, roll[f"{kind}.latents"][:, k])
        # The release truncates the time it feeds to thousandths.
        v_NLC = policy.velocity(x_NLC, torch.tensor([int(sigma * 1000) / 1000]), cond)
        final_x0 = predict_x0(x_NLC, v_NLC, sigma)
        noisy = kind == "sde" or k in (1, 2)
        mean, std = sde_transition(x_NLC, v_NLC, sigma, following, "constant" if noisy else "ode", 0.4)
        x_NLC = mean + std * roll[f"{kind}.noise"][:, k]
        if noisy:  # the release leaves the Gaussian's normaliser out
            normaliser = std.log() + math.log(2 * math.pi) / 2
            near(gaussian_logp(x_NLC, mean, std) + normaliser, roll[f"{kind}.log_probs"][:, k])
    near(x_NLC, roll[f"{kind}.latents"][:, -1])
    near(final_x0, roll[f"{kind}.final_x0"])


@pytest.mark.parametrize("scheme", ["d", "h", "w", "o"])
@pytest.mark.parametrize("references", [((32, 32),), ((20, 20), (20, 20))])
def test_position_ids_at_512(references: tuple[tuple[int, int], ...], scheme: str) -> None:
    ids = golden("golden_uno/position_ids.safetensors")
    name = "512_1x512" if len(references) == 1 else "512_2x320"
    expected = [ids["512.img"], *(ids[f"{name}.{scheme}.ref{i + 1}"] for i in range(len(references)))]
    near(position_ids((32, 32), references, scheme), torch.cat(expected), 0)  # type: ignore[arg-type]


def test_position_ids_of_oblong_pictures() -> None:
    ids = golden("golden_uno/position_ids.safetensors")
    expected = [ids["w704h512.img"], ids["w704h512.d.ref1_w320h240"], ids["w704h512.d.ref2_w208h320"]]
    near(position_ids((32, 44), [(15, 20), (20, 13)], "d"), torch.cat(expected), 0)


def test_packing() -> None:
    packing = golden("golden_uno/packing.safetensors")
    assert torch.equal(pack(packing["latent"]), packing["packed"])
    assert torch.equal(unpack(packing["packed"], 2, 3), packing["unpacked_again"])
