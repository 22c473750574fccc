"""`cgrpo rewards score` and cgrpo.load_reward on the toybox's own rewards and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import cgrpo
from cgrpo.app.main import main
from cgrpo.data import ToyboxSource
from cgrpo.rewards.base import to_pictures, to_tensor


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """reference.png, right.png (what the world draws for the prompt), wrong.png (another task's) and the prompt."""
    folder = tmp_path_factory.mktemp("pictures")
    source = ToyboxSource(0, "validation", dial=0.0)
    batch = source.batch([0, 1])
    batch.references[0][0].save(folder / "reference.png")
    for name, picture in zip(("right", "wrong"), to_pictures(source.oracle([0, 1])), strict=True):
        picture.save(folder / f"{name}.png")
    return folder, batch.prompts[0]


def test_the_right_picture_comes_first(pictures, tmp_path, capsys) -> None:
    folder, prompt = pictures
    Image.open(folder / "right.png").resize((48, 48)).save(tmp_path / "larger.png")
    given = [str(folder / "wrong.png"), str(tmp_path / "larger.png"), str(folder / "right.png")]
    out = ["--sheet", str(tmp_path / "sheet.png"), "--json", str(tmp_path / "table.json")]
    ask = ["--reference", str(folder / "reference.png"), "--prompt", prompt]
    assert main(["rewards", "score", *given, *ask, *out]) == 0
    table = json.loads((tmp_path / "table.json").read_text())
    assert list(table["units"]) == ["identity", "prompt"]
    scores = {Path(row["picture"]).stem: row["scores"] for row in table["pictures"]}
    assert [Path(row["picture"]).stem for row in table["pictures"]][-1] == "wrong"
    assert all(scores["right"][name] > scores["wrong"][name] for name in ("identity", "prompt"))
    assert Image.open(tmp_path / "sheet.png").width > 100
    assert "cosine" in capsys.readouterr().out


def test_what_lacks_is_said_or_left_out(pictures, capsys) -> None:
    folder, prompt = pictures
    picture = str(folder / "right.png")
    assert main(["rewards", "score", picture, "--prompt", prompt]) == 0  # identity is left out
    assert "identity" not in capsys.readouterr().out
    for more, told in (
        (["--reward", "identity"], "needs --reference"),
        (["--reward", "style", "--prompt", prompt], "TYPE or TYPE=PATH"),
        (["--reward", "clip=absent", "--prompt", prompt], "absent"),
        ([], "give --reference, --prompt, or both"),
    ):
        assert main(["rewards", "score", picture, *more]) == 2
        assert told in capsys.readouterr().err


def test_rewards_from_python(pictures) -> None:
    folder, _ = pictures
    batch = ToyboxSource(0, "validation", dial=0.0).batch([0])
    image_NHWC = to_tensor([Image.open(folder / "right.png")])
    for reward in (cgrpo.load_reward("dino-seg"), cgrpo.load_reward("clip", "toybox", chunk=2)):
        score_N = reward(image_NHWC, batch)
        assert score_N.shape == (1,) and score_N.dtype == torch.float32 and 0.3 < score_N.item() <= 1


def test_a_pickled_head_is_converted_once(tmp_path, capsys) -> None:
    torch.save({"weight": torch.randn(1, 768), "bias": torch.randn(1)}, tmp_path / "head.pth")
    out = tmp_path / "head.safetensors"
    ask = ["rewards", "convert", str(tmp_path / "head.pth")]
    assert main([*ask, "--to", "aesthetic-v1", "--out", str(out)]) == 0 and out.is_file()
    assert main([*ask, "--to", "aesthetic-v2", "--out", str(tmp_path / "no")]) == 2
    assert main([*ask, "--to", "folder", "--out", str(tmp_path / "no")]) == 2
    assert "--reference" in capsys.readouterr().err


def test_an_offloaded_reward_comes_and_goes(pictures) -> None:
    """The same scores; the models are where they are told only during a call, also after an error."""
    folder, _ = pictures
    batch = ToyboxSource(0, "validation", dial=0.0).batch([0])
    image_NHWC = to_tensor([Image.open(folder / "right.png")])
    reward = cgrpo.load_reward("clip", "toybox", offload=True)
    places: list[str] = []
    move = reward.reward.to
    reward.reward.to = lambda device: (places.append(str(device)), move("cpu"))  # no GPU needed
    reward.device = "cuda"
    assert torch.equal(reward(image_NHWC, batch), cgrpo.load_reward("clip", "toybox")(image_NHWC, batch))
    assert places == ["cuda", "cpu"]
    with pytest.raises(AttributeError):
        reward("x", batch)  # as long as the batch, but no pictures
    assert places == ["cuda", "cpu"] * 2
