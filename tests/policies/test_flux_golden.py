"""FluxPolicy against vectors made by the reference code (UNO; Customized-GRPO): forward, gradients, trajectories.

Everything that goes through the model is compared twice: as the package computes it, within what machines differ by,
and in float64 with the reference machine's time embedding, fifty times closer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from support.policies import add_adapter, golden_policy
from support.tiny_flux import ACROSS_MACHINES, GIVEN_TIME, GivenTime, golden
from torch import Tensor

from cgrpo.algorithm import integrate, shifted_sigmas
from cgrpo.algorithm.flow import gaussian_logp, predict_x0, sde_transition
from cgrpo.policies.adapters.keys import split_to_adapter, to_split, to_uno
from cgrpo.policies.adapters.known import read_keys
from cgrpo.policies.adapters.layers import adapter_state, reference_policy, set_adapter_state
from cgrpo.policies.encodings.latents import pack, unpack
from cgrpo.policies.flux.inputs import position_ids
from cgrpo.policies.flux.policy import FluxCondition, FluxPolicy


@dataclass
class Case:
    """The reference's tiny model with its LoRA loaded from UNO keys, and how near it comes to the golden vectors."""

    policy: FluxPolicy
    dtype: torch.dtype
    bound: float

    def velocity(self, x_NLC: Tensor, sigma_N: Tensor, cond: FluxCondition) -> Tensor:
        return self.policy.velocity(x_NLC.to(self.dtype), sigma_N, cond)

    def near(self, ours: Tensor, theirs: Tensor) -> None:
        near(ours, theirs, self.bound)


@pytest.fixture(scope="module", params=["machine", "given-time"])
def case(request: pytest.FixtureRequest) -> Case:
    given = request.param == "given-time"
    dtype, bound = (torch.float64, GIVEN_TIME) if given else (torch.float32, ACROSS_MACHINES)
    policy = golden_policy(dtype)
    add_adapter(policy.transformer, rank=4, seed=0)
    lora = {key: value.float() for key, value in golden("golden_uno/tiny_lora_uno.safetensors").items()}
    set_adapter_state(policy.transformer, split_to_adapter(read_keys(lora, None).split))
    policy.transformer.to(dtype)  # pyright: ignore[reportArgumentType] (its decorated signature)
    if given:
        policy.transformer.time_text_embed.time_proj = GivenTime()
    return Case(policy, dtype, bound)


@pytest.fixture(scope="module")
def forward() -> dict[str, Tensor]:
    return golden("golden_uno/tiny_forward.safetensors")


def condition(case: Case, golden_: dict[str, Tensor], references: int, pe: str = "d") -> FluxCondition:
    case.policy.geometry = replace(case.policy.geometry, scheme=pe)  # pyright: ignore
    latents = [golden_[f"ref{i + 1}_latent"] for i in range(references)]
    guidance = golden_.get("guidance", torch.tensor([4.0]))
    return case.policy.condition(golden_["txt"], golden_["vec"], latents, guidance)


def near(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    assert ours.shape == theirs.shape
    assert (ours.double() - theirs.double()).abs().max().item() <= tolerance


@torch.no_grad()
@pytest.mark.parametrize("references,pe", [(0, "d"), *((r, pe) for r in (1, 2) for pe in "dhwo")])
def test_velocity_with_lora(case: Case, forward: dict[str, Tensor], references: int, pe: str) -> None:
    cond = condition(case, forward, references, pe)
    v_NLC = case.velocity(forward["img_tokens"], forward["timesteps"], cond)
    case.near(v_NLC, forward["out.0ref" if references == 0 else f"out.{references}ref.{pe}"])
    for other in set("dhwo") - {pe} if references else ():  # the check tells the schemes apart
        assert (v_NLC - forward[f"out.{references}ref.{other}"]).abs().max() > 0.05


@torch.no_grad()
def test_velocity_without_lora(case: Case, forward: dict[str, Tensor]) -> None:
    cond = condition(case, forward, 2)
    with reference_policy(case.policy.transformer):
        case.near(case.velocity(forward["img_tokens"], forward["timesteps"], cond), forward["out_nolora.2ref.d"])
    case.near(case.velocity(forward["img_tokens"], forward["timesteps"], cond), forward["out.2ref.d"])


def test_lora_gradients(case: Case, forward: dict[str, Tensor]) -> None:
    case.policy.transformer.zero_grad()
    v_NLC = case.velocity(forward["img_tokens"], forward["timesteps"], condition(case, forward, 2))
    (v_NLC * forward["grad_weight"]).sum().backward()
    parameters = dict(case.policy.transformer.named_parameters())
    keys = adapter_state(case.policy.transformer)
    ours = to_uno(to_split({key: parameters[key.replace(".weight", ".default.weight")].grad for key in keys}))
    checked = [key for key in forward if key.startswith("grad.")]
    assert checked
    for key in checked:  # gradients reach 198
        largest = forward[key].abs().max()
        case.near(ours[key.removeprefix("grad.")] / largest, forward[key] / largest)


@torch.no_grad()
@pytest.mark.parametrize("references", [1, 2])
def test_euler_trajectory(case: Case, references: int) -> None:
    euler = golden("golden_uno/tiny_euler.safetensors")
    cond = condition(case, euler, references)
    x_NLC, sigmas = pack(euler["noise"]), euler["timesteps"].tolist()
    for k, (sigma, following) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        case.near(x_NLC, euler[f"traj.{references}ref"][k : k + 1])
        v_NLC = case.velocity(x_NLC, torch.tensor([sigma]), cond)
        case.near(v_NLC, euler[f"v.{references}ref"][k : k + 1])
        x_NLC = x_NLC + (following - sigma) * v_NLC
    case.near(unpack(x_NLC, 4, 6), euler[f"final_latent.{references}ref"])


@torch.no_grad()
@pytest.mark.parametrize("references", [1, 2])
def test_unos_inference_from_seed_to_latents(case: Case, references: int) -> None:
    """What `cgrpo sample --seed 3407 --shift uno --guidance 4 --steps 6` does: UNO's noise, schedule and steps."""
    euler = golden("golden_uno/tiny_euler.safetensors")
    cond, x_NLC = condition(case, euler, references), case.policy.noise(3407)
    near(x_NLC, pack(euler["noise"]), 1e-5)  # the same random bits, but logarithm and cosine make them normal
    sigmas = shifted_sigmas(6, "uno", case.policy.latent_shape[0])
    near(sigmas, euler["timesteps"], 1e-6)
    x_NLC = integrate(lambda x, sigma: case.velocity(x, sigma, cond), x_NLC, sigmas)
    # Our schedule is float32, an ulp from theirs, and that times 1000 is an angle: 3e-5 here even in float64.
    near(unpack(x_NLC, 4, 6), euler[f"final_latent.{references}ref"], ACROSS_MACHINES)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sde", "window"])
def test_rollout_of_the_release(case: Case, kind: str) -> None:
    """Customized-GRPO's own sampler, step by step through our transition."""
    roll = golden("golden_sde/tiny_rollout.safetensors")
    case.policy.geometry = replace(case.policy.geometry, scheme="d")  # pyright: ignore
    cond = case.policy.condition(roll["txt"], roll["vec"], [unpack(roll["ref1_tokens"], 3, 2)], 3.5)
    near(cond.ids_LD, torch.cat((roll["img_ids"], roll["ref1_ids"])), 0)
    x_NLC, final_x0, sigmas = pack(roll["noise_latent"]), torch.empty(0), roll["sigmas"]
    for k, (sigma, following) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
        case.near(x_NLC, roll[f"{kind}.latents"][:, k])
        # The release truncates the time it feeds to thousandths.
        v_NLC = case.velocity(x_NLC, torch.tensor([int(sigma * 1000) / 1000]), cond)
        final_x0 = predict_x0(x_NLC, v_NLC, sigma)
        noisy = kind == "sde" or k in (1, 2)
        mean, std = sde_transition(x_NLC, v_NLC, sigma, following, "constant" if noisy else "ode", 0.4)
        x_NLC = mean + std * roll[f"{kind}.noise"][:, k]
        if noisy:  # the release leaves the Gaussian's normaliser out
            normaliser = std.log() + math.log(2 * math.pi) / 2
            case.near(gaussian_logp(x_NLC, mean, std) + normaliser, roll[f"{kind}.log_probs"][:, k])
    case.near(x_NLC, roll[f"{kind}.latents"][:, -1])
    case.near(final_x0, roll[f"{kind}.final_x0"])


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
