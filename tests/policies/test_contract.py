"""Every family keeps the contract of policies/base.py: those of the package, new or trained on from a start, a toy."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.policies import from_folder, shake
from support.toy_policy import ToyPolicy
from torch import Tensor

from cgrpo.algorithm import all_steps, integrate, replay_logp, rollout
from cgrpo.errors import UserError
from cgrpo.policies.base import Policy
from cgrpo.policies.flux.policy import FluxPolicy
from cgrpo.policies.flux2.policy import Flux2Policy
from cgrpo.policies.lora import LoraPolicy
from cgrpo.policies.qwen21.policy import Qwen21Policy
from cgrpo.policies.qwen_edit.policy import QwenEditPolicy
from cgrpo.policies.referenced import ReferencedPolicy
from cgrpo.policies.settings import PolicySettings
from cgrpo.types import Batch


@dataclass(frozen=True)
class Family:
    """``make`` gives a policy that nothing has trained yet, ``load`` one with what ``save`` wrote to a folder."""

    make: Callable[[], Policy]
    load: Callable[[Path], Policy]


def on_disk(kind: type[ReferencedPolicy], folder: Path, start: Path | None = None, **settings) -> Family:
    """The folder is read once; each policy has a transformer of its own."""
    read = from_folder(kind, folder, height=32, width=64, reference_size=32)

    def base() -> LoraPolicy:
        transformer: Any = copy.deepcopy(read.transformer)
        policy = kind(
            transformer, read.codec, read.prompts, PolicySettings(height=32, width=64, reference_size=32, **settings)
        )
        policy.origin = read.origin
        if start:
            policy.begin_with(start, "continue")
        return policy

    def make() -> LoraPolicy:
        policy = base()
        if not start:
            policy.add_adapter(rank=2, seed=0)
        return policy

    def load(saved: Path) -> LoraPolicy:
        policy = base()
        policy.load_adapter(saved)
        return policy

    return Family(make, load)


def load_toy(saved: Path) -> ToyPolicy:
    policy = ToyPolicy()
    policy.delta.weight.data = load_file(saved / "toy.safetensors")["delta"]
    return policy


GUIDED = {"guidance": 4.0, "guidance_gradient": "conditional"}
CASES: dict[str, tuple[type[ReferencedPolicy], str, dict[str, Any]]] = {
    "flux": (FluxPolicy, "tiny_folder", {}),
    "flux continued": (FluxPolicy, "tiny_folder", {}),
    "flux2": (Flux2Policy, "tiny_flux2_folder", {"guidance": 4.0}),
    "flux2 continued, one gradient": (Flux2Policy, "tiny_flux2_folder", GUIDED),
    "qwen-edit": (QwenEditPolicy, "tiny_qwen_folder", {"guidance": 4.0}),
    "qwen21": (Qwen21Policy, "tiny_qwen21_folder", {"guidance": 1.0}),
    "qwen21 guided": (Qwen21Policy, "tiny_qwen21_folder", {"guidance": 4.0}),
}


@pytest.fixture(scope="module", params=[*CASES, "toy"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    if request.param == "toy":
        return Family(ToyPolicy, load_toy)
    kind, folder, settings = CASES[request.param]
    plain = on_disk(kind, request.getfixturevalue(folder), **settings)
    if "continued" not in request.param:
        return plain
    start = shake(plain.make(), 5).save(tmp_path_factory.mktemp("start"))
    return on_disk(kind, request.getfixturevalue(folder), start, **settings)


@pytest.fixture
def policy(family: Family) -> Policy:
    return shake(family.make(), 1)


def batch(sizes=((32, 32), (32, 16), (32, 32), (32, 32))) -> Batch:
    """Tasks of one reference each, of these sizes; words that every tokenizer here knows."""
    prompts = ("a red cube", "a blue ball on the beach", "a green cube in the snow", "a ball")[: len(sizes)]
    colours = ["red", "green", "blue", "yellow"]
    references = tuple((Image.new("RGB", size, colour),) for size, colour in zip(sizes, colours, strict=False))
    return Batch(tuple(map(str, range(len(sizes)))), prompts, references, ("cube",) * len(sizes))


EQUAL = ((32, 32),) * 4


def points(policy: Policy, count: int) -> tuple[Tensor, Tensor]:
    """(x_NLC, sigma_N) of ``count`` samples."""
    x_NLC = torch.cat([policy.noise(seed) for seed in range(count)]).to(policy.device, policy.dtype)
    return x_NLC, torch.linspace(0.9, 0.2, count, device=policy.device)


def velocity(policy: Policy, tasks: Batch | None = None) -> Tensor:
    tasks = tasks or batch(EQUAL)
    x_NLC, sigma_N = points(policy, len(tasks))
    with torch.no_grad():
        return policy.velocity(x_NLC, sigma_N, policy.encode(tasks))


def near(found: Tensor, expected: Tensor) -> None:
    """Up to the rounding of batched sums."""
    assert found.shape == expected.shape and (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def weights(policy: Policy) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in policy.trainable_parameters().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_shapes_and_types(policy: Policy) -> None:
    tokens, channels = policy.latent_shape
    cond = policy.encode(batch(EQUAL))
    x_NLC, sigma_N = points(policy, 4)
    v_NLC = policy.velocity(x_NLC, sigma_N, cond)
    assert len(cond) == 4 and v_NLC.shape == (4, tokens, channels) and v_NLC.dtype == x_NLC.dtype
    assert policy.velocity(x_NLC.double(), sigma_N.double(), cond).dtype == torch.float64
    images_NHWC = policy.decode(x_NLC)
    assert images_NHWC.shape == (4, policy.height, policy.width, 3) and images_NHWC.dtype == torch.uint8
    assert images_NHWC.device.type == "cpu"


def test_pictures_go_through_latents(policy: Policy) -> None:
    pictures = [Image.new("RGB", size, (90, 90, 90)) for size in ((32, 32), (50, 20))]
    x0_NLC = policy.encode_targets(pictures)
    assert x0_NLC.shape == (2, *policy.latent_shape) and x0_NLC.dtype == torch.float32 and not x0_NLC.requires_grad
    assert torch.equal(x0_NLC, policy.encode_targets(pictures))
    near(x0_NLC[1], x0_NLC[0])  # one grey, whatever its size
    assert policy.decode(x0_NLC).shape == (2, policy.height, policy.width, 3)


def test_noise_is_a_function_of_the_seed(policy: Policy) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    noise = torch.cat([policy.noise(seed) for seed in range(64)])
    assert noise.shape == (64, *policy.latent_shape) and noise.dtype == torch.float32 and noise.device.type == "cpu"
    assert torch.equal(noise[7:8], policy.noise(7)) and not torch.equal(noise[0], noise[1])
    spread = noise.numel() ** -0.5
    assert abs(noise.mean()) < 5 * spread and abs(noise.std() - 1) < 5 * spread
    assert torch.equal(state, torch.get_rng_state())


def test_sigmas(policy: Policy) -> None:
    sigmas = policy.sigmas(4, 3.0)
    assert sigmas.dtype == torch.float32 and torch.allclose(sigmas, torch.tensor([1, 9 / 10, 3 / 4, 1 / 2, 0]))
    with pytest.raises(UserError, match=r"sampling\.shift = 'nobody'"):
        policy.sigmas(4, "nobody")


def test_alike_tasks_share_a_condition(policy: Policy) -> None:
    tasks = batch()
    for most in (1, 2, 4):
        parts = policy.alike(tasks, most)
        assert sorted(row for part in parts for row in part) == [0, 1, 2, 3]
        assert all(part == sorted(part) and len(part) <= most for part in parts)
        conds = policy.encode_parts(tasks, parts)
        assert [len(cond) for cond in conds] == [len(part) for part in parts]
        for part, cond in zip(parts, conds, strict=True):
            x_NLC, sigma_N = points(policy, len(part))
            near(policy.velocity(x_NLC, sigma_N, cond), velocity(policy, tasks.select(part)))


def test_encoding_repeats_exactly_and_leaves_the_random_state(policy: Policy) -> None:
    state = torch.get_rng_state()
    assert torch.equal(velocity(policy), velocity(policy))
    assert torch.equal(state, torch.get_rng_state())


def test_a_sample_is_its_own(policy: Policy) -> None:
    """Its velocity doesn't hang on what is computed beside it, and conditions are repeated and selected by row."""
    cond = policy.encode(batch(EQUAL))
    x_NLC, sigma_N = points(policy, 4)
    with torch.no_grad():
        v_NLC = policy.velocity(x_NLC, sigma_N, cond)
        for n in range(4):
            near(policy.velocity(x_NLC[n : n + 1], sigma_N[n : n + 1], cond.select([n])), v_NLC[n : n + 1])
        order = torch.tensor([2, 0, 2])
        near(policy.velocity(x_NLC[order], sigma_N[order], cond.select(order)), v_NLC[order])
        near(policy.velocity(x_NLC[1:3], sigma_N[1:3], cond.select(slice(1, 3))), v_NLC[1:3])
        rows = torch.tensor([0, 0, 3, 3])
        for twice in (cond.select([0, 3]).repeat(2), policy.encode(batch(EQUAL).select([0, 3]).repeat(2))):
            assert len(twice) == 4
            near(policy.velocity(x_NLC[rows], sigma_N[rows], twice), v_NLC[rows])
        pictures = policy.decode(x_NLC)
        assert (policy.decode(x_NLC[2:3]).int() - pictures[2:3].int()).abs().max() <= 1
        assert (policy.velocity(x_NLC, sigma_N, cond.select([1, 0, 2, 3]))[:2] != v_NLC[:2]).any()


def test_prompt_reference_and_time_matter(policy: Policy) -> None:
    tasks = batch(((32, 32),))
    x_NLC, sigma_N = points(policy, 1)
    others = (
        Batch(tasks.ids, ("a blue ball",), tasks.references, tasks.subjects),
        Batch(tasks.ids, tasks.prompts, ((Image.new("RGB", (32, 32), "white"),),), tasks.subjects),
        Batch(tasks.ids, tasks.prompts, ((),), tasks.subjects),
    )
    v_NLC = velocity(policy, tasks)
    assert all((velocity(policy, other) != v_NLC).any() for other in others)
    assert (policy.velocity(x_NLC, sigma_N / 2, policy.encode(tasks)) != v_NLC).any()


def test_gradients_reach_all_that_trains_and_nothing_else(policy: Policy) -> None:
    own = policy.trainable_parameters()
    assert own and list(own) == list(policy.trainable_parameters())
    x_NLC, sigma_N = points(policy, 4)
    policy.velocity(x_NLC, sigma_N, policy.encode(batch(EQUAL))).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in own.values())
    assert not policy.encode_targets([Image.new("RGB", (32, 32))]).requires_grad
    assert not policy.decode(x_NLC).requires_grad


def test_rollout_and_replay_agree_before_the_first_update(policy: Policy) -> None:
    cond, sigmas = policy.encode(batch(EQUAL)), policy.sigmas(3, 1.5)
    bound = functools.partial(policy.velocity, cond=cond)
    generator = torch.Generator().manual_seed(3)
    x_NLC, _ = points(policy, 4)
    roll = rollout(bound, x_NLC, sigmas, all_steps(3, 4), lambda k: torch.randn(x_NLC.shape, generator=generator))
    for index_B in torch.arange(len(roll.sample_M)).split(3):
        bound = functools.partial(policy.velocity, cond=cond.select(roll.sample_M[index_B]))
        logp_B, _, _ = replay_logp(bound, roll, index_B, sigmas)
        assert (logp_B.exp() / roll.logp_M[index_B].exp() - 1).abs().max() < 1e-5
        assert logp_B.requires_grad


def test_the_reference_is_where_training_started(family: Family) -> None:
    policy = family.make()
    began = velocity(policy)
    shake(policy, 1)
    trained, kept = velocity(policy), weights(policy)
    assert (trained != began).any()
    with pytest.raises(ZeroDivisionError), policy.reference():
        near(velocity(policy), began)  # frozen matrices may be multiplied in another order
        assert not policy.trainable_parameters()
        raise ZeroDivisionError
    assert torch.equal(velocity(policy), trained) and same(weights(policy), kept)
    assert all(p.requires_grad for p in policy.trainable_parameters().values())


def test_other_weights_for_a_while(family: Family, policy: Policy) -> None:
    other = shake(family.make(), 2)
    average = weights(other)
    places = {name: p.data_ptr() for name, p in policy.trainable_parameters().items()}
    trained, kept = velocity(policy), weights(policy)
    with pytest.raises(ZeroDivisionError), policy.using(average):
        assert torch.equal(velocity(policy), velocity(other)) and same(weights(policy), average)
        own = policy.trainable_parameters()
        assert all(p.data_ptr() == average[name].data_ptr() for name, p in own.items())  # nothing was copied
        with policy.reference():
            near(velocity(policy), reference(family))
        raise ZeroDivisionError
    assert torch.equal(velocity(policy), trained) and same(weights(policy), kept)
    assert {name: p.data_ptr() for name, p in policy.trainable_parameters().items()} == places


def reference(family: Family) -> Tensor:
    return velocity(family.make())


def test_other_weights_between_a_forward_and_its_backward(family: Family, policy: Policy) -> None:
    """As a loss needs that sets the policy beside its own average."""
    average = weights(shake(family.make(), 2))
    cond, (x_NLC, sigma_N) = policy.encode(batch(EQUAL)), points(policy, 4)
    gradients = []
    for look in (False, True):
        loss = policy.velocity(x_NLC, sigma_N, cond).square().mean()
        if look:
            with torch.no_grad(), policy.using(average):
                policy.velocity(x_NLC, sigma_N, cond)
            with torch.no_grad(), policy.reference():
                policy.velocity(x_NLC, sigma_N, cond)
        gradients.append(torch.autograd.grad(loss, list(policy.trainable_parameters().values())))
    assert all(torch.equal(plain, looked) for plain, looked in zip(*gradients, strict=True))


def test_weights_that_are_not_the_policys_are_refused(policy: Policy) -> None:
    kept = weights(policy)
    name, value = next(iter(kept.items()))
    wrong = ({}, kept | {"surplus": value}, {n: v for n, v in kept.items() if n != name}, kept | {name: value[:1]})
    for state in wrong:
        with pytest.raises(ValueError, match="not the policy's in name or shape"), policy.using(state):
            pass
    assert same(weights(policy), kept)


def test_saved_and_loaded(family: Family, policy: Policy, tmp_path: Path) -> None:
    file = policy.save(tmp_path / "adapter")
    assert file.is_file() and file.parent == tmp_path / "adapter"
    assert same(weights(family.load(file.parent)), weights(policy))
    assert torch.equal(velocity(family.load(file.parent)), velocity(policy))
    average = weights(shake(family.make(), 2))
    with policy.using(average):
        policy.save(tmp_path / "adapter")
    assert same(weights(family.load(file.parent)), average)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    (tmp_path / "a file").touch()
    with pytest.raises(UserError, match="can't be written"):
        policy.save(tmp_path / "a file" / "adapter")


def test_what_pictures_depend_on_tells_weights_apart(family: Family, policy: Policy) -> None:
    own = policy.pictures_depend_on()
    assert json.loads(json.dumps(own)) == own == shake(family.make(), 1).pictures_depend_on()
    other = shake(family.make(), 2)
    assert other.pictures_depend_on() != own
    with policy.using(weights(other)):
        assert policy.pictures_depend_on() == other.pictures_depend_on()
    with policy.reference(), other.reference():
        assert policy.pictures_depend_on() == other.pictures_depend_on() != own
    assert policy.pictures_depend_on() == own


def test_what_does_not_train_is_spread(policy: Policy) -> None:
    calls = []
    policy.shard(lambda blocks, whole: calls.append((list(blocks), set(whole))))
    ((blocks, whole),) = calls
    assert blocks and set(policy.trainable_parameters().values()) <= whole
    frozen = [p for block in blocks for p in block.parameters() if p not in whole]
    assert frozen and not any(p.requires_grad for p in frozen)


def test_the_ode_reaches_a_picture(policy: Policy) -> None:
    x_NLC, _ = points(policy, 4)
    bound = functools.partial(policy.velocity, cond=policy.encode(batch(EQUAL)))
    images_NHWC = policy.decode(integrate(bound, x_NLC, policy.sigmas(4, 1.5)))
    assert len({picture.tobytes() for picture in np.asarray(images_NHWC)}) == 4
