"""The mix of adapters is the mix of what they add, exactly; what can't be mixed is said in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from support.policies import add_adapter, golden_policy, load_adapter, merge_start, read_adapter, shake, velocity

from cgrpo.app.main import main
from cgrpo.errors import UserError
from cgrpo.policies.adapters.exchange import blend_adapters, mix
from cgrpo.policies.adapters.files import Origin, read_split
from cgrpo.policies.adapters.keys import pairs
from cgrpo.policies.adapters.layers import save_adapter
from cgrpo.policies.fingerprint import transformer_fingerprint

BASE = Origin("tiny", "a" * 64)


def trained(folder: Path, rank: int, seed: int, origin: Origin = BASE) -> Path:
    policy = golden_policy()
    add_adapter(policy.transformer, rank, seed=seed)
    shake(policy, seed)
    save_adapter(policy.transformer, folder, origin=origin)
    return folder


def deltas(path: Path) -> dict[str, torch.Tensor]:
    split, _ = read_split(path)
    return {module: up.double() @ down.double() for module, (down, up) in pairs(split).items()}


def test_the_mix_adds_the_shares_of_what_each_adds(tmp_path: Path) -> None:
    parts = [trained(tmp_path / str(n), rank, n) for n, rank in enumerate((2, 3, 1))]
    file = blend_adapters(parts[0], [(parts[1], 0.3), (parts[2], 0.2)], tmp_path / "mix")
    found, own = deltas(file), [deltas(part) for part in parts]
    assert found.keys() == own[0].keys()
    for module, delta in found.items():
        expected = 0.5 * own[0][module] + 0.3 * own[1][module] + 0.2 * own[2][module]
        torch.testing.assert_close(delta, expected, rtol=1e-6, atol=1e-8)
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
    assert header["rank"] == header["alpha"] == "6" and header["base_hash"] == BASE.base_hash
    assert header["blend_of"].startswith("0.5 ")


def test_the_ends_of_the_line_are_the_adapters_themselves(tmp_path: Path) -> None:
    a, b = trained(tmp_path / "a", 2, 1), trained(tmp_path / "b", 3, 2)
    for share, end in ((0.0, a), (1.0, b)):
        state, header = read_adapter(blend_adapters(a, [(b, share)], tmp_path / f"at{share}"))
        expected, _ = read_adapter(end)
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], expected[key]) for key in state)
        assert header["rank"] == ("2" if share == 0 else "3")


def test_the_policy_is_the_one_with_both_added_to_its_weights(tmp_path: Path) -> None:
    mark = transformer_fingerprint(golden_policy().transformer)
    origin = Origin("tiny", mark)
    a, b = trained(tmp_path / "a", 2, 1, origin), trained(tmp_path / "b", 2, 2, origin)
    mixed = golden_policy()
    load_adapter(mixed.transformer, blend_adapters(a, [(b, 0.25)], tmp_path / "mix"), origin)
    by_hand = golden_policy()
    merge_start(by_hand.transformer, blend_adapters(a, [(b, 0.25)], tmp_path / "again"))
    add_adapter(by_hand.transformer, 1, seed=0)
    plain = golden_policy()
    load_adapter(plain.transformer, a, origin)
    torch.testing.assert_close(velocity(mixed), velocity(by_hand), rtol=1e-4, atol=1e-5)
    assert (velocity(mixed) - velocity(plain)).abs().max() > 1e-3


def test_a_module_that_one_of_them_lacks_has_nothing_from_it() -> None:
    one = {"x.lora_A.weight": torch.ones(1, 2), "x.lora_B.weight": torch.ones(2, 1)}
    two = {"y.lora_A.weight": torch.ones(1, 2), "y.lora_B.weight": torch.ones(2, 1)}
    mixed = mix([one, two], [0.75, 0.25])
    assert mixed["x.lora_B.weight"].eq(0.75).all() and mixed["y.lora_B.weight"].eq(0.25).all()


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ((-0.1,), "from 0 to 1"),
        ((1.1,), "from 0 to 1"),
        ((float("nan"),), "from 0 to 1"),
        ((0.6, 0.6), "add up to 1.2"),
    ],
)
def test_shares_out_of_range_are_refused(tmp_path: Path, shares: tuple[float, ...], says: str) -> None:
    a = trained(tmp_path / "a", 2, 1)
    with pytest.raises(UserError, match=says):
        blend_adapters(a, [(a, share) for share in shares], tmp_path / "mix")


def test_adapters_of_other_weights_are_refused(tmp_path: Path) -> None:
    a = trained(tmp_path / "a", 2, 1)
    other = trained(tmp_path / "b", 2, 1, Origin("other", "b" * 64))
    started = trained(tmp_path / "c", 2, 1, replace(BASE, start_hash="c" * 64, start_mode="merge"))
    went_on = trained(tmp_path / "d", 2, 1, replace(BASE, start_hash="c" * 64, start_mode="continue"))
    for wrong in (other, started):
        with pytest.raises(UserError, match="trained on another base"):
            blend_adapters(a, [(wrong, 0.5)], tmp_path / "mix")
    assert blend_adapters(a, [(went_on, 0.5)], tmp_path / "mix").exists()  # valid on the plain base, both of them
    with pytest.raises(UserError, match="is the input itself"):
        blend_adapters(a, [(went_on, 0.5)], a)
    with pytest.raises(UserError, match="no such adapter"):
        blend_adapters(a, [(tmp_path / "nowhere", 0.5)], tmp_path / "mix")


def test_from_the_command_line(tmp_path: Path, capsys) -> None:
    """Two adapters of the toy world: mixed to a file and sampled from, and mixed while sampling."""
    from cgrpo.build import make_policy
    from cgrpo.config import load_config

    for seed in (1, 2):
        policy = make_policy(load_config("toybox", [f"training.seed={seed}", "policy.rank=2"]))
        shake(policy)
        policy.save(tmp_path / str(seed))
    Image.new("RGB", (32, 32), (200, 30, 30)).save(tmp_path / "toy.png")
    one, two, mixed = (str(tmp_path / name) for name in ("1", "2", "mix"))
    assert main(["adapter", "blend", one, f"{two}=0.5", "--out", mixed]) == 0
    ask = ["--reference", str(tmp_path / "toy.png"), "--prompt", "a toy", "--seeds", "1", "--steps", "2"]
    assert main(["sample", mixed, *ask, "--out", str(tmp_path / "a")]) == 0
    assert main(["sample", one, "--blend", f"{two}=0.5", *ask, "--out", str(tmp_path / "b")]) == 0
    assert main(["sample", one, *ask, "--out", str(tmp_path / "c")]) == 0
    a, b, c = (Image.open(tmp_path / name / "prompt0-seed0.png").tobytes() for name in "abc")
    assert a == b != c
    capsys.readouterr()
    assert main(["sample", "--blend", f"{two}=0.5", *ask, "--out", str(tmp_path / "d")]) == 2
    assert "name the run" in capsys.readouterr().err
    assert main(["adapter", "blend", one, two, "--out", mixed]) == 2
    assert "RUN=SHARE" in capsys.readouterr().err
