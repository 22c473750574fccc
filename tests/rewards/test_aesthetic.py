"""LAION's aesthetic heads: golden vectors, both versions, and the converter that reads pickles warily."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.golden_models import pictures
from support.tasks import tasks
from support.tiny_rewards import aesthetic_v2, golden
from torch.nn import functional as F

from cgrpo.errors import UserError
from cgrpo.rewards import convert_reward, load_reward
from cgrpo.rewards.base import to_tensor
from cgrpo.rewards.convert import read_pickled

EMPTY = tasks(prompts=[""])


def v2_state(width: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for number, (out, into) in aesthetic_v2(width).items():
        weight = torch.randn(out, into, generator=generator) / into**0.5
        state |= {f"layers.{number}.weight": weight, f"layers.{number}.bias": torch.randn(out, generator=generator)}
    return state


class Boobytrap:
    """Unpickled carelessly, it creates a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def test_v1_is_a_linear_layer_on_the_unit_feature(golden_clip, tmp_path):
    expected = golden("clip_io")
    head = tmp_path / "v1.safetensors"
    save_file({"weight": expected["aesthetic_weight"], "bias": expected["aesthetic_bias"]}, head)
    reward = load_reward("aesthetic", golden_clip, head=str(head))
    assert "V1" in reward.unit
    for row, picture in enumerate(pictures("gen_0", "gen_1", "gen_2")):
        score = reward(to_tensor([picture]), EMPTY)
        assert score.shape == (1,) and abs(score - expected["aesthetic_score"][row]).item() <= 1e-5
    raw = expected["img_gen"] @ expected["aesthetic_weight"].T + expected["aesthetic_bias"]
    assert (raw - expected["aesthetic_score"]).abs().max() > 0.01  # the length matters


def test_v2_is_five_layers_without_activations(golden_clip, tmp_path):
    state = v2_state(24)
    save_file(state, tmp_path / "v2.safetensors")
    reward = load_reward("aesthetic", golden_clip, head=str(tmp_path / "v2.safetensors"))
    assert "V2" in reward.unit
    x = F.normalize(golden("clip_io")["img_gen"][:1], dim=-1)
    for number in aesthetic_v2(24):
        x = x @ state[f"layers.{number}.weight"].T + state[f"layers.{number}.bias"]
    assert reward(to_tensor(pictures("gen_0")), EMPTY).item() == pytest.approx(x.item(), abs=1e-4)


def test_heads_that_do_not_fit_are_refused(golden_clip, tmp_path):
    head = tmp_path / "head.safetensors"
    with pytest.raises(UserError, match="head.safetensors: no such file"):
        load_reward("aesthetic", golden_clip, head=str(head))
    save_file({"weight": torch.zeros(1, 768), "bias": torch.zeros(1)}, head)
    with pytest.raises(UserError, match=r"the aesthetic head V1.*weight \(\[1, 768\] instead of \[1, 24\]"):
        load_reward("aesthetic", golden_clip, head=str(head))
    torch.save({"weight": torch.zeros(1, 24), "bias": torch.zeros(1)}, head)
    with pytest.raises(UserError, match="can't be read.*cgrpo rewards convert"):
        load_reward("aesthetic", golden_clip, head=str(head))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_published_heads_become_safetensors(tmp_path, version):
    state = v2_state(768) if version == "v2" else {"weight": torch.randn(1, 768), "bias": torch.randn(1)}
    torch.save(state, tmp_path / "head.pth")
    out = convert_reward(tmp_path / "head.pth", f"aesthetic-{version}", tmp_path / "head.safetensors")
    made = load_file(out)
    assert made.keys() == state.keys() and all(torch.equal(made[key], state[key]) for key in state)
    assert [file.name for file in tmp_path.iterdir() if "partial" in file.name] == []
    other = "v2" if version == "v1" else "v1"
    with pytest.raises(UserError, match=f"does not fit the aesthetic head {other.upper()}"):
        convert_reward(tmp_path / "head.pth", f"aesthetic-{other}", tmp_path / "other.safetensors")
    torch.save(state | {"extra": torch.zeros(1)}, tmp_path / "head.pth")
    with pytest.raises(UserError, match=r"1 unknown weights, such as extra"):
        convert_reward(tmp_path / "head.pth", f"aesthetic-{version}", tmp_path / "other.safetensors")
    assert not (tmp_path / "other.safetensors").exists()


def test_a_pickle_that_would_run_code_is_refused_unrun(tmp_path):
    marker = tmp_path / "was run"
    for held in ({"weight": Boobytrap(marker)}, {"state_dict": {"weight": Boobytrap(marker)}}, Boobytrap(marker)):
        torch.save(held, tmp_path / "head.pth")
        with pytest.raises(UserError) as caught:
            convert_reward(tmp_path / "head.pth", "aesthetic-v1", tmp_path / "head.safetensors")
        assert "not a file of plain weights" in str(caught.value) and "\n" not in str(caught.value)
        assert not marker.exists() and not (tmp_path / "head.safetensors").exists()
    torch.load(tmp_path / "head.pth", weights_only=False).close()  # the trap does work
    assert marker.exists()


def test_files_without_weights_are_refused(tmp_path):
    with pytest.raises(UserError, match="not a file of plain weights"):
        read_pickled(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match="not a file of plain weights"):
        read_pickled(tmp_path / "text.pth")
    torch.save({"weight": torch.zeros(1), "epoch": 3}, tmp_path / "more.pth")
    with pytest.raises(UserError, match="holds more than weights by name"):
        read_pickled(tmp_path / "more.pth")
