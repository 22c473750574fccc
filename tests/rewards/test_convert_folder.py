"""Checkpoints published as pytorch_model.bin alone become folders that rewards load."""

import pytest
import torch
from safetensors.torch import load_file
from support.golden_models import pictures

from cgrpo.errors import UserError
from cgrpo.rewards import load_reward
from cgrpo.rewards.convert import convert_folder


def test_old_folders_score_the_same(golden_clip, golden_dino_v1, tmp_path):
    """With the position ids that older CLIP files carry."""
    clip = load_file(golden_clip / "model.safetensors")
    clip |= {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    torch.save(clip, tmp_path / "clip.bin")
    torch.save(load_file(golden_dino_v1 / "model.safetensors"), tmp_path / "dino.bin")
    some = pictures("gen_0", "gen_1")
    folder = convert_folder(tmp_path / "clip.bin", tmp_path / "clip", golden_clip)
    assert torch.equal(
        load_reward("clip-i", folder).encoder.pictures(some),
        load_reward("clip-i", golden_clip).encoder.pictures(some),
    )
    folder = convert_folder(tmp_path / "dino.bin", tmp_path / "dino", golden_dino_v1)
    assert torch.equal(
        load_reward("dino", folder).encoder.pictures(some),
        load_reward("dino", golden_dino_v1).encoder.pictures(some),
    )
    with pytest.raises(UserError, match="there already"):
        convert_folder(tmp_path / "dino.bin", folder, golden_dino_v1)


def test_weights_of_another_model_are_refused_by_the_reward(golden_clip, golden_dino_v1, tmp_path):
    torch.save(load_file(golden_dino_v1 / "model.safetensors"), tmp_path / "dino.bin")
    folder = convert_folder(tmp_path / "dino.bin", tmp_path / "out", golden_clip)
    with pytest.raises(UserError, match="does not fit CLIPModel"):
        load_reward("clip-i", folder)
    torch.save({"weights": torch.zeros(1), "step": 7}, tmp_path / "more.bin")
    with pytest.raises(UserError, match="holds more than weights"):
        convert_folder(tmp_path / "more.bin", tmp_path / "other", golden_clip)
    assert not (tmp_path / "other").exists()
