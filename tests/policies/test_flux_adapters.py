"""The LoRA: identity at the start, the same from every seed's run, exact on disk, at home in stock diffusers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.policies import (
    add_adapter,
    golden_policy,
    load_adapter,
    read_adapter,
    same,
    stock_velocity,
    stock_with,
    velocity,
    with_adapter,
)
from support.tiny_flux import ACROSS_MACHINES, golden, golden_transformer

from cgrpo.errors import UserError
from cgrpo.policies.adapters.files import Origin
from cgrpo.policies.adapters.keys import split_to_adapter, to_split, to_uno
from cgrpo.policies.adapters.known import read_keys
from cgrpo.policies.adapters.layers import (
    adapter_state,
    merge_pairs,
    named_parameters,
    reference_policy,
    save_adapter,
    set_adapter_state,
)

TINY = Origin("tiny", "1" * 64)


def test_identity_at_the_start() -> None:
    assert torch.allclose(velocity(with_adapter(lively=False)), velocity(golden_policy()), atol=1e-5)


def test_init_comes_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = adapter_state(with_adapter(seed=5, lively=False).transformer)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    policy = golden_policy()
    torch.set_rng_state(before)
    add_adapter(policy.transformer, 4, seed=5)
    assert torch.equal(before, torch.get_rng_state())
    assert same(one, adapter_state(policy.transformer))
    assert not same(one, adapter_state(with_adapter(seed=6, lively=False).transformer))
    down = torch.cat([v.flatten() for k, v in one.items() if "lora_A" in k])
    assert abs(down.std().item() - 1 / 4) < 0.01
    assert all(v.count_nonzero() == 0 for k, v in one.items() if "lora_B" in k)


def test_only_the_adapter_trains_and_covers_what_uno_covers() -> None:
    transformer = with_adapter().transformer
    names = {name for name, p in transformer.named_parameters() if p.requires_grad}
    assert all(".lora_" in name for name in names)
    uno = golden("golden_uno/tiny_lora_uno.safetensors")
    ours = to_uno(to_split(adapter_state(transformer)))
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in uno.items()}
    assert len(named_parameters(transformer)) == len(uno) == 24


def test_an_adapter_that_is_only_evaluated_stays_frozen() -> None:
    policy = with_adapter()
    policy.transformer.requires_grad_(False)
    with reference_policy(policy.transformer):
        pass
    assert not named_parameters(policy.transformer)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    policy = with_adapter()
    file = save_adapter(policy.transformer, tmp_path / "adapter", origin=TINY)
    assert [p.name for p in file.parent.iterdir()] == ["pytorch_lora_weights.safetensors"]
    other = golden_policy()
    header = load_adapter(other.transformer, tmp_path / "adapter")
    assert header["rank"] == header["alpha"] == "4" and header["base"] == "tiny"
    assert same(adapter_state(policy.transformer), adapter_state(other.transformer))
    assert torch.equal(velocity(policy), velocity(other))
    again = with_adapter(seed=3)  # into an adapter that is already there, by file
    load_adapter(again.transformer, file)
    assert same(adapter_state(policy.transformer), adapter_state(again.transformer))


def test_uno_round_trip_is_exact(tmp_path: Path) -> None:
    uno = {key: value.float() for key, value in golden("golden_uno/tiny_lora_uno.safetensors").items()}
    assert same(to_uno(read_keys(uno, None).split), uno)
    save_file(uno, tmp_path / "dit_lora.safetensors")
    policy = golden_policy()
    load_adapter(policy.transformer, tmp_path / "dit_lora.safetensors")
    assert same(to_uno(to_split(adapter_state(policy.transformer))), uno)
    expected = golden("golden_uno/tiny_forward.safetensors")["out.1ref.d"]
    assert torch.allclose(velocity(policy), expected, atol=ACROSS_MACHINES)


def test_stock_pipeline_loads_the_file(tmp_path: Path) -> None:
    """FluxPipeline.load_lora_weights on an unfused stock transformer gives our velocity."""
    policy = with_adapter()
    file = save_adapter(policy.transformer, tmp_path, origin=TINY)
    assert torch.allclose(stock_velocity(policy, stock_with(tmp_path)), velocity(policy), atol=1e-4)
    assert not torch.allclose(stock_velocity(policy, golden_transformer()), velocity(policy), atol=1e-2)
    alone = golden_transformer()
    alone.load_lora_adapter(load_file(file))
    assert torch.allclose(stock_velocity(policy, alone), velocity(policy), atol=1e-4)


def test_stock_export_of_the_pipeline_comes_back(tmp_path: Path) -> None:
    """What a stock pipeline saves after loading ours is ours again."""
    policy = with_adapter()
    save_adapter(policy.transformer, tmp_path / "ours", origin=TINY)
    stock = golden_transformer()
    stock.load_lora_adapter(load_file(tmp_path / "ours" / "pytorch_lora_weights.safetensors"), adapter_name="a")
    stock.save_lora_adapter(tmp_path / "theirs", adapter_name="a")
    state, _ = read_adapter(tmp_path / "theirs")
    assert same(state, adapter_state(policy.transformer))


def test_merged_into_a_stock_transformer() -> None:
    policy, stock = with_adapter(), golden_transformer()
    merge_pairs(stock, to_split(adapter_state(policy.transformer)), "adapter")
    assert torch.allclose(stock_velocity(policy, stock), velocity(policy), atol=1e-4)


def test_split_adapters_are_refused() -> None:
    stock = to_split(adapter_state(with_adapter().transformer))
    assert same(split_to_adapter(stock), adapter_state(with_adapter().transformer))
    key = "transformer_blocks.0.attn.to_k.lora_A.weight"
    with pytest.raises(UserError, match="a split adapter"):
        split_to_adapter(stock | {key: stock[key] + 1})
    with pytest.raises(UserError, match="lacks 1 of its q, k, v"):
        split_to_adapter({k: v for k, v in stock.items() if k != key})


def test_misfits_are_named_at_once_and_change_nothing() -> None:
    policy = with_adapter()
    before = {k: v.clone() for k, v in adapter_state(policy.transformer).items()}
    wrong = {k: v + 1 for k, v in before.items()}
    missing, misshapen, *_ = sorted(wrong)
    del wrong[missing]
    wrong[misshapen] = torch.zeros(1, 1)
    wrong["spare"] = torch.zeros(1)
    with pytest.raises(UserError) as caught:
        set_adapter_state(policy.transformer, wrong)
    for part in (f"lacks 1 weights, such as {missing};", "has 1 unknown weights, such as spare;"):
        assert part in str(caught.value)
    assert f"has 1 weights of another shape, such as {misshapen};" in str(caught.value)
    assert same(before, adapter_state(policy.transformer))


def test_mistakes_are_told(tmp_path: Path) -> None:
    policy = with_adapter()
    with pytest.raises(UserError, match="already carries"):
        add_adapter(policy.transformer, 4, 0)
    with pytest.raises(UserError, match="no adapter"):
        adapter_state(golden_policy().transformer)
    with pytest.raises(UserError, match="must be 1 or more"):
        add_adapter(golden_policy().transformer, 0, 0)
    with pytest.raises(UserError, match="no such adapter"):
        read_adapter(tmp_path)
    (tmp_path / "bad.safetensors").write_bytes(b"PK\x03\x04 a pickle")
    with pytest.raises(UserError, match="only safetensors"):
        read_adapter(tmp_path / "bad.safetensors")
    save_file({"processor.x": torch.zeros(1), "a.processor.b": torch.zeros(1)}, tmp_path / "odd.safetensors")
    with pytest.raises(UserError, match="odd.safetensors: .*of no known"):
        load_adapter(policy.transformer, tmp_path / "odd.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="of no known LoRA layout"):
        load_adapter(golden_policy().transformer, tmp_path / "x.safetensors")
    save_adapter(policy.transformer, tmp_path / "rank4", origin=TINY)
    with pytest.raises(UserError, match="rank4.*of another shape"):
        load_adapter(with_adapter(rank=2).transformer, tmp_path / "rank4")
