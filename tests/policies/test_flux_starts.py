"""Training from somebody's adapter: merged into the base, or trained further beside a frozen copy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from support.policies import (
    GOLDEN,
    add_adapter,
    continue_start,
    golden_policy,
    load_adapter,
    merge_start,
    read_adapter,
    same,
    shake,
    with_adapter,
)
from support.tiny_flux import ACROSS_MACHINES, golden, golden_transformer
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.policies.adapters.files import Origin, adapter_fingerprint, check_origin, origin_header, read_split
from cgrpo.policies.adapters.keys import to_split
from cgrpo.policies.adapters.layers import adapter_state, merge_pairs, named_parameters, reference_policy, save_adapter
from cgrpo.policies.fingerprint import transformer_fingerprint
from cgrpo.policies.flux.policy import FluxPolicy

BASE = Origin("flux", "a" * 64)
MERGED = replace(BASE, start_hash="b" * 64, start_mode="merge")
CONTINUED = replace(BASE, start_hash="b" * 64, start_mode="continue")


@pytest.fixture
def uno(tmp_path: Path) -> Path:
    file = tmp_path / "dit_lora.safetensors"
    save_file(golden("golden_uno/tiny_lora_uno.safetensors"), file)
    return file


@torch.no_grad()
def velocity(policy: FluxPolicy, references: int = 2) -> Tensor:
    forward = golden("golden_uno/tiny_forward.safetensors")
    latents = [forward[f"ref{i + 1}_latent"] for i in range(references)]
    cond = policy.condition(forward["txt"], forward["vec"], latents, forward["guidance"])
    return policy.velocity(forward["img_tokens"], forward["timesteps"], cond)


def expected(name: str) -> Tensor:
    return golden("golden_uno/tiny_forward.safetensors")[name]


@pytest.mark.parametrize("references", [0, 1, 2])
def test_merged_start_equals_the_reference_code(uno: Path, references: int) -> None:
    policy = golden_policy()
    merge_start(policy.transformer, uno)
    assert ".lora_" not in "".join(policy.transformer.state_dict())
    name = "out.0ref" if references == 0 else f"out.{references}ref.d"
    assert torch.allclose(velocity(policy, references), expected(name), atol=ACROSS_MACHINES)


def test_on_a_merged_start_a_fresh_adapter_trains(uno: Path) -> None:
    """The paper's way; the reference policy is UNO, not FLUX."""
    policy = golden_policy()
    before = transformer_fingerprint(policy.transformer)
    mark = merge_start(policy.transformer, uno)
    assert mark == adapter_fingerprint(read_split(uno)[0])
    assert transformer_fingerprint(policy.transformer) != before  # so a base's hash is taken before
    add_adapter(policy.transformer, 4, seed=0)
    assert torch.allclose(velocity(policy), expected("out.2ref.d"), atol=ACROSS_MACHINES)
    shake(policy)
    assert not torch.allclose(velocity(policy), expected("out.2ref.d"), atol=0.1)
    with reference_policy(policy.transformer):
        assert torch.allclose(velocity(policy), expected("out.2ref.d"), atol=ACROSS_MACHINES)


def test_merging_in_bf16_rounds_once(uno: Path) -> None:
    transformer = golden_transformer().bfloat16()
    merge_start(transformer, uno)
    state, _ = read_adapter(uno)
    key = "single_transformer_blocks.1.proj_out"
    base = golden_transformer().state_dict()[f"{key}.weight"]
    delta = state[f"{key}.lora_B.weight"].float() @ state[f"{key}.lora_A.weight"].float()
    assert torch.equal(transformer.state_dict()[f"{key}.weight"], (base + delta).bfloat16())


def test_split_and_partial_adapters_can_be_merged(tmp_path: Path) -> None:
    """A stock LoRA with its own A for q and k, on an MLP too, and with two ranks."""
    generator = torch.Generator().manual_seed(3)
    sizes = {"attn.to_q": (64, 64, 2), "attn.to_k": (64, 64, 3), "ff.net.0.proj": (256, 64, 2)}
    state = {}
    for module, (out, into, rank) in sizes.items():
        name = f"transformer.transformer_blocks.1.{module}"
        state[f"{name}.lora_A.weight"] = torch.randn(rank, into, generator=generator)
        state[f"{name}.lora_B.weight"] = torch.randn(out, rank, generator=generator)
    save_file(state, tmp_path / "lora.safetensors")
    transformer = golden_transformer()
    before = {key: value.clone() for key, value in transformer.state_dict().items()}
    merge_start(transformer, tmp_path / "lora.safetensors")
    for key, value in transformer.state_dict().items():
        name = f"transformer.{key.removesuffix('.weight')}"
        if f"{name}.lora_A.weight" in state:
            delta = state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"]
            assert torch.allclose(value, before[key] + delta, atol=1e-6)
        else:
            assert torch.equal(value, before[key])


def test_a_start_that_does_not_fit_changes_nothing(tmp_path: Path, uno: Path) -> None:
    state = golden("golden_uno/tiny_lora_uno.safetensors")
    state["double_blocks.9.processor.proj_lora1.down.weight"] = torch.zeros(4, 64)
    state["double_blocks.9.processor.proj_lora1.up.weight"] = torch.zeros(64, 4)
    state["single_blocks.0.processor.proj_lora.down.weight"] = torch.zeros(4, 7)
    save_file(state, tmp_path / "odd.safetensors")
    transformer = golden_transformer()
    with pytest.raises(UserError, match="has 1 unknown.*blocks.9.*1 weights of another shape.*proj_out"):
        merge_start(transformer, tmp_path / "odd.safetensors")
    ours, stock = transformer.state_dict(), golden_transformer().state_dict()
    assert all(torch.equal(ours[key], stock[key]) for key in stock)
    del state["single_blocks.0.processor.proj_lora.down.weight"]
    save_file(state, tmp_path / "half.safetensors")
    with pytest.raises(UserError, match="half.safetensors: .*don't go together"):
        merge_start(transformer, tmp_path / "half.safetensors")
    with pytest.raises(UserError, match="already carries an adapter"):
        merge_start(with_adapter().transformer, uno)
    with pytest.raises(UserError, match="already carries an adapter"):
        continue_start(with_adapter().transformer, uno)


def test_continued_start_moves_and_its_reference_stays(uno: Path) -> None:
    policy = golden_policy()
    assert continue_start(policy.transformer, uno) == adapter_fingerprint(read_split(uno)[0])
    start = velocity(policy)
    assert torch.allclose(start, expected("out.2ref.d"), atol=ACROSS_MACHINES)
    names = named_parameters(policy.transformer)
    assert len(names) == len(policy.trainable_parameters()) == 24
    assert all(".default." in name for name in names)
    with reference_policy(policy.transformer):
        assert torch.equal(velocity(policy), start) and not policy.trainable_parameters()
    assert named_parameters(policy.transformer).keys() == names.keys()
    shake(policy)
    moved = velocity(policy)
    assert not torch.allclose(moved, start, atol=0.1)
    plain = with_adapter()
    with policy.reference(), plain.reference():
        assert torch.equal(velocity(policy), start)
        assert policy.pictures_depend_on() != plain.pictures_depend_on()  # the start is part of it
    assert torch.equal(velocity(policy), moved)


def test_only_the_trained_copy_gets_gradients(uno: Path) -> None:
    policy = golden_policy()
    continue_start(policy.transformer, uno)
    forward = golden("golden_uno/tiny_forward.safetensors")
    cond = policy.condition(forward["txt"], forward["vec"], [], forward["guidance"])
    with torch.no_grad(), reference_policy(policy.transformer):
        reference = policy.velocity(forward["img_tokens"], forward["timesteps"], cond)
    optimizer = torch.optim.SGD(policy.trainable_parameters().values(), lr=1e-4)
    (policy.velocity(forward["img_tokens"], forward["timesteps"], cond) - reference + 1).square().mean().backward()
    optimizer.step()
    frozen = {name: p for name, p in policy.transformer.named_parameters() if ".reference." in name}
    state, _ = read_adapter(uno)
    assert len(frozen) == 24 and all(p.grad is None for p in frozen.values())
    for name, p in frozen.items():
        assert p.dtype == torch.float32 and torch.equal(p, state[name.replace(".reference", "")].float())
    assert not same(adapter_state(policy.transformer), {key: value.float() for key, value in state.items()})
    with torch.no_grad(), reference_policy(policy.transformer):
        assert torch.equal(policy.velocity(forward["img_tokens"], forward["timesteps"], cond), reference)


def test_the_frozen_copy_leaks_nowhere(uno: Path, tmp_path: Path) -> None:
    policy = golden_policy()
    continue_start(policy.transformer, uno)
    shake(policy)
    assert not any("reference" in key for key in adapter_state(policy.transformer))
    stock = golden_transformer()
    merge_pairs(stock, to_split(adapter_state(policy.transformer)), "adapter")
    merged = FluxPolicy(stock, None, None, GOLDEN)
    assert torch.allclose(velocity(merged), velocity(policy), atol=1e-4)
    assert transformer_fingerprint(policy.transformer) == transformer_fingerprint(golden_transformer())
    file = save_adapter(policy.transformer, tmp_path, origin=CONTINUED)
    with safe_open(file, "pt") as opened:
        assert not any("reference" in key for key in opened.keys())  # noqa: SIM118
    plain = golden_policy()  # the whole adapter: valid on the plain base
    load_adapter(plain.transformer, file, BASE)
    assert torch.equal(velocity(plain), velocity(policy))


def test_adapters_on_a_bf16_base_are_fp32(uno: Path) -> None:
    policy = golden_policy(torch.bfloat16)
    continue_start(policy.transformer, uno)
    lora = {name: p for name, p in policy.transformer.named_parameters() if ".lora_" in name}
    assert len(lora) == 48 and {p.dtype for p in lora.values()} == {torch.float32}


def test_a_continued_run_is_loaded_again(uno: Path, tmp_path: Path) -> None:
    policy = golden_policy()
    continue_start(policy.transformer, uno)
    shake(policy)
    save_adapter(policy.transformer, tmp_path, origin=CONTINUED)
    again = golden_policy()
    continue_start(again.transformer, uno)
    load_adapter(again.transformer, tmp_path, CONTINUED)
    assert same(adapter_state(again.transformer), adapter_state(policy.transformer))
    with reference_policy(again.transformer):
        assert torch.allclose(velocity(again), expected("out.2ref.d"), atol=ACROSS_MACHINES)


def test_a_start_may_not_need_a_start_itself(tmp_path: Path) -> None:
    save_adapter(with_adapter().transformer, tmp_path, origin=MERGED)
    for begin in (merge_start, continue_start):
        with pytest.raises(UserError, match="bbbbbbbbbbbb merged in.*join it"):
            begin(golden_transformer(), tmp_path)


@pytest.mark.parametrize(
    "there,here,told",
    [
        (BASE, BASE, ""),
        (CONTINUED, BASE, ""),
        (BASE, CONTINUED, ""),
        (MERGED, MERGED, ""),
        (BASE, replace(BASE, base_hash="c" * 64), r"on flux \(aaaaaaaaaaaa\).*this base is flux \(cccccccccccc\)"),
        (MERGED, BASE, "with start bbbbbbbbbbbb merged in, but this is flux .*with nothing merged in"),
        (MERGED, CONTINUED, "with nothing merged in"),
        (BASE, MERGED, "with nothing merged in, but this is flux .*with start bbbbbbbbbbbb merged in"),
        (CONTINUED, MERGED, "merged in"),
        (MERGED, replace(MERGED, start_hash="d" * 64), "bbbbbbbbbbbb merged in.*dddddddddddd merged in"),
        (Origin("", ""), MERGED, ""),
        (MERGED, Origin("", ""), ""),
    ],
)  # fmt: skip
def test_whose_adapter_it_is(tmp_path: Path, there: Origin, here: Origin, told: str) -> None:
    file = save_adapter(with_adapter().transformer, tmp_path, origin=there)
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
    assert header == {"format": "pt"} | origin_header(there, 4)
    policy = golden_policy()
    if not told:
        load_adapter(policy.transformer, file, here)
        return
    with pytest.raises(UserError, match=told) as caught:
        load_adapter(policy.transformer, file, here)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    assert not policy.trainable_parameters()  # refused before anything was added
    load_adapter(policy.transformer, file)  # unasked


def test_files_of_other_programs_are_accepted(uno: Path) -> None:
    load_adapter(golden_policy().transformer, uno, MERGED)
    check_origin("file", {"format": "pt", "base": "somebody's"}, BASE)
    with pytest.raises(UserError, match="start_mode 'graft'"):
        check_origin("file", {"base_hash": "a", "start_mode": "graft"}, BASE)
