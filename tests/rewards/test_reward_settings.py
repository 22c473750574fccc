"""Every metric is built from its table of the configuration, and refuses a table that is not its own."""

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from cgrpo.build import make_reward, make_rewards
from cgrpo.config import REWARD_TYPES, parse_config
from cgrpo.errors import UserError
from cgrpo.rewards.aesthetic import Aesthetic
from cgrpo.rewards.clip import ClipImage, ClipText
from cgrpo.rewards.convert import convert_open_clip
from cgrpo.rewards.dino_v1 import DinoV1
from cgrpo.rewards.preference import HPSv2, PickScore


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
    rewards = make_rewards(parse_config({"rewards": table}, "test"))
    kinds = {name: type(reward) for name, reward in rewards.items()}
    assert kinds == {
        "identity": DinoV1,
        "prompt": ClipText,
        "clip_i": ClipImage,
        "aesthetic": Aesthetic,
        "hps": HPSv2,
        "pick": PickScore,
    }
    chunks = [(r if isinstance(r, DinoV1) else r.encoder).chunk for r in rewards.values()]
    assert chunks == [3] * 6
    assert [reward.axis for reward in rewards.values()] == [
        "identity",
        "prompt",
        "identity",
        "prompt",
        "prompt",
        "prompt",
    ]
    assert {entry["type"] for entry in table.values()} < REWARD_TYPES.keys()


def test_a_processor_of_ones_own_is_taken(tiny_open_clip, tmp_path):
    torch.save(open_clip.weights(), tmp_path / "HPS.pt")
    folder = convert_open_clip(tmp_path / "HPS.pt", tmp_path / "pick", tiny_open_clip)
    (folder / "tokenizer.json").unlink()
    table = {"type": "pickscore", "path": str(folder), "processor": str(tiny_open_clip)}
    (settings,) = [parse_config({"rewards": {"pick": table}}, "test").rewards["pick"]]
    assert isinstance(make_reward("pick", settings), PickScore)


@pytest.mark.parametrize(
    "table",
    [{"type": "aesthetic"}, {"type": "hpsv2"}, {"type": "dino", "masks": "both"}, {"type": "clip-i", "chunk": 0}],
)
def test_tables_that_are_not_theirs_are_refused(table):
    with pytest.raises(UserError, match="rewards"):
        parse_config({"rewards": {"extra": table}}, "test")
