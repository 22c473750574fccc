"""Every metric is built from its table of the configuration, and refuses a table that is not its own."""

import pytest
import torch
from safetensors.torch import save_file
from support import open_clip

from cgrpo.config import parse_config
from cgrpo.errors import UserError
from cgrpo.rewards import REWARDS, make_reward, make_rewards
from cgrpo.rewards.convert import convert_open_clip


def test_the_metrics_are_rewards_by_name(golden_clip, golden_dino_v1, tiny_open_clip, tmp_path):
    torch.save(open_clip.weights(), tmp_path / "HPS.pt")
    converted = str(convert_open_clip(tmp_path / "HPS.pt", tmp_path / "hpsv2", tiny_open_clip))
    save_file({"weight": torch.zeros(1, 24), "bias": torch.zeros(1)}, tmp_path / "head.safetensors")
    clip, head = str(golden_clip), str(tmp_path / "head.safetensors")
    table = {
        "identity": {"type": "dino", "path": str(golden_dino_v1), "chunk": 3},
        "prompt": {"type": "clip", "path": clip, "chunk": 3},
        "clip_i": {"type": "clip-i", "path": clip, "chunk": 3},
        "aesthetic": {"type": "aesthetic", "path": clip, "head": head, "chunk": 3},
        "hps": {"type": "hpsv2", "path": converted, "chunk": 3},
        "pick": {"type": "pickscore", "path": converted, "processor": "", "chunk": 3},
    }
    rewards = make_rewards(parse_config({"rewards": table}, "test").rewards)
    assert [reward.encoder.chunk for reward in rewards.values()] == [3] * 6
    assert {name: (reward.axis, reward.unit.split()[0]) for name, reward in rewards.items()} == {
        "identity": ("identity", "cosine"),
        "prompt": ("prompt", "cosine"),
        "clip_i": ("identity", "cosine"),
        "aesthetic": ("prompt", "LAION"),
        "hps": ("prompt", "HPSv2's"),
        "pick": ("prompt", "PickScore's"),
    }
    assert {entry["type"] for entry in table.values()} < set(REWARDS.names())


def test_a_processor_of_ones_own_is_taken(tiny_open_clip, tmp_path):
    torch.save(open_clip.weights(), tmp_path / "HPS.pt")
    folder = convert_open_clip(tmp_path / "HPS.pt", tmp_path / "pick", tiny_open_clip)
    (folder / "tokenizer.json").unlink()
    table = {"type": "pickscore", "path": str(folder), "processor": str(tiny_open_clip)}
    (settings,) = [parse_config({"rewards": {"pick": table}}, "test").rewards["pick"]]
    assert make_reward("pick", settings).unit.startswith("PickScore")


@pytest.mark.parametrize(
    "table",
    [{"type": "aesthetic"}, {"type": "hpsv2"}, {"type": "dino", "masks": "both"}, {"type": "clip-i", "chunk": 0}],
)
def test_tables_that_are_not_theirs_are_refused(table):
    with pytest.raises(UserError, match="rewards"):
        parse_config({"rewards": {"extra": table}}, "test")
