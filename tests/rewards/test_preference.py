"""HPSv2 and PickScore on a tiny OpenCLIP checkpoint, converted, against OpenCLIP's forward written out."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from support import open_clip
from support.tasks import noise, tasks
from transformers import CLIPModel

from cgrpo.errors import UserError
from cgrpo.rewards import load_reward
from cgrpo.rewards.base import to_tensor
from cgrpo.rewards.convert import convert_open_clip
from cgrpo.rewards.pixels import CLIP, padded

PROMPTS = ("a dog", "a red toy", "a dog")
MEAN, DEVIATION = (torch.tensor(values).view(3, 1, 1) for values in CLIP)


@pytest.fixture(scope="module")
def folder(tiny_open_clip, tmp_path_factory):
    place = tmp_path_factory.mktemp("converted")
    torch.save({"state_dict": open_clip.weights()}, place / "HPS.pt")
    return convert_open_clip(place / "HPS.pt", place / "hpsv2", tiny_open_clip)


def by_hand(picture: Image.Image, side: int) -> torch.Tensor:
    """PIL's bicubic on single floats, which neither rounds nor clips, and black around."""
    scale = side / max(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    bands = [band.convert("F").resize(size, Image.Resampling.BICUBIC) for band in picture.split()]
    x = np.stack([np.asarray(band) for band in bands]) / 255
    whole = np.zeros((3, side, side), dtype=np.float32)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    whole[:, top : top + size[1], left : left + size[0]] = x
    return torch.from_numpy(whole)


@pytest.mark.parametrize("size", [(64, 64), (90, 41), (41, 90), (32, 32), (20, 13)])
def test_padding_keeps_the_whole_picture(size):
    (picture,) = noise(*size)
    (x,) = padded([picture], 32)
    assert x.shape == (3, 32, 32)
    assert (x - by_hand(picture, 32)).abs().max() < 1e-5
    if size == (20, 13):
        assert x.max() > 1 and x.min() < 0  # bicubic overshoots, and nothing clips it


def test_converted_scores_are_openclips(folder):
    state = open_clip.weights()
    pictures = [*noise(60, 40), *noise(60, 40, 1), *noise(60, 40, 2)]
    made = torch.stack([(by_hand(picture, 32) - MEAN) / DEVIATION for picture in pictures])
    words = torch.cat([open_clip.encode_words(state, prompt) for prompt in PROMPTS])
    expected = (open_clip.encode_pixels(state, made) * words).sum(-1)
    reward = load_reward("hpsv2", folder, chunk=2)
    scores = reward(to_tensor(pictures), tasks(prompts=PROMPTS))
    assert (scores - expected).abs().max() < 1e-5
    assert expected.std() > 1e-3  # tells pictures apart
    cropped = load_reward("pickscore", folder, processor="")(to_tensor(pictures), tasks(prompts=PROMPTS))
    assert (
        cropped / torch.tensor(4.6).exp() - expected
    ).abs().max() > 1e-3  # the usual CLIP preprocessing would be another number


def test_pickscore_is_the_models_logit(folder, tiny_open_clip, tmp_path):
    """Weights alone in one folder, preprocessing and tokenizer in another."""
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(folder / name, tmp_path / name)
    pictures = [*noise(40, 40), *noise(40, 40, 1)]
    reward = load_reward("pickscore", tmp_path, processor=str(tiny_open_clip))
    scores = reward(to_tensor(pictures), tasks(prompts=PROMPTS[:2]))
    model = CLIPModel.from_pretrained(tmp_path).eval()
    pixels = [
        (torch.tensor(np.asarray(p.resize((32, 32), Image.Resampling.BICUBIC))).permute(2, 0, 1) / 255 - MEAN)
        / DEVIATION
        for p in pictures
    ]
    tokens = reward.encoder.tokenizer(list(PROMPTS[:2]), padding=True, return_tensors="pt")
    logits = model(pixel_values=torch.stack(pixels), **tokens).logits_per_image
    assert torch.allclose(scores, logits.diagonal(), atol=1e-3)
    assert abs(logits.diagonal()).max() > 1
    with pytest.raises(UserError, match="can't be read"):
        load_reward("pickscore", tmp_path, processor="")


def test_a_checkpoint_of_another_kind_is_refused(folder, tiny_open_clip, tmp_path):
    """Nothing is written unless every weight has its place."""

    def refusal(state, reference=tiny_open_clip) -> str:
        torch.save(state, tmp_path / "HPS.pt")
        with pytest.raises(UserError) as caught:
            convert_open_clip(tmp_path / "HPS.pt", tmp_path / "out", reference)
        assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
        return str(caught.value)

    state = open_clip.weights()
    message = refusal(
        state | {"visual.attn_pool.probe": torch.zeros(1), "transformer.resblocks.2.ls_1.gamma": state["logit_scale"]}
    )
    assert "2 unknown weights, such as text_model.encoder.layers.2.ls_1.gamma, visual.attn_pool.probe" in message
    del state["visual.proj"]
    assert "lacks 1 weights, such as visual_projection.weight" in refusal(state)
    assert "of another shape, such as visual_projection.weight ([3, 12]" in refusal(
        state | {"visual.proj": torch.zeros(12, 3)}
    )
    assert "holds more than weights" in refusal([1, 2])
    other = shutil.copytree(tiny_open_clip, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "quick_gelu"
    (other / "config.json").write_text(json.dumps(config))
    assert "says hidden_act gelu, quick_gelu" in refusal(open_clip.weights(), other)
    with pytest.raises(UserError, match="there already"):
        convert_open_clip(tmp_path / "HPS.pt", folder, tiny_open_clip)
