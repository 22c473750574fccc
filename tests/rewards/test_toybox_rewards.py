import numpy as np
import pytest
import torch
from PIL import Image
from support.tasks import TWO_BLACK, tasks

from cgrpo.data import ToyboxSource
from cgrpo.errors import UserError
from cgrpo.hub import asset
from cgrpo.rewards import FunctionReward, load_reward, make_reward, scored
from cgrpo.rewards.dino import DinoEncoder, DinoSeg, DinoSegSettings
from cgrpo.rewards.regions import NEUTRAL, subject_crop
from cgrpo.rewards.segmenters import Segmenter, load_segmenter
from cgrpo.types import Batch


@pytest.fixture(scope="module")
def source():
    return ToyboxSource(0, "validation", 0.0, 1)


def test_identity_masks_both_pictures_and_scores_rows_independently(source):
    reward = make_reward("identity", DinoSegSettings())
    batch, real = source.batch(range(6)), source.oracle(range(6))
    scores = reward(real, batch)
    assert scores.shape == (6,) and (scores > 0.5).all()
    assert torch.allclose(reward(real[2:3], batch.select(slice(2, 3))), scores[2:3], atol=1e-5)
    shuffled = Batch(batch.ids, batch.prompts, batch.references[1:] + batch.references[:1], batch.subjects)
    assert (reward(real, shuffled) < scores).float().mean() > 0.8


def test_what_lies_outside_the_mask_does_not_count_in_either_picture(source):
    class Disc(Segmenter):
        def segment(self, pictures, phrases):
            y, x = np.ogrid[:32, :32]
            return [(y - 16) ** 2 + (x - 16) ** 2 < 64] * len(pictures)

    def noisy(picture: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(0).integers(0, 255, picture.shape).astype(np.uint8)
        return np.where(Disc().segment([0], [""])[0][..., None], picture, noise)

    batch, real = source.batch(range(3)), source.oracle(range(3))
    worn = Batch(
        batch.ids,
        batch.prompts,
        tuple((Image.fromarray(noisy(np.asarray(pictures[0]))),) for pictures in batch.references),
        batch.subjects,
    )
    reward = make_reward("identity", DinoSegSettings())
    reward.segmenter = Disc()
    scores = reward(real, batch)
    assert torch.equal(reward(real, worn), scores)
    assert torch.equal(reward(torch.stack([torch.from_numpy(noisy(i.numpy())) for i in real]), batch), scores)
    whole = DinoSeg(DinoEncoder(asset("dino")), None, masks="none")
    assert not torch.allclose(whole(real, worn), whole(real, batch), atol=1e-3)


def test_references_are_encoded_once(source):
    reward = make_reward("identity", DinoSegSettings())
    batch, calls = source.batch(range(3)), []
    encode = reward.encoder.pictures
    reward.encoder.pictures = lambda pictures: calls.append(len(pictures)) or encode(pictures)
    for _ in range(3):
        reward(source.oracle(range(3)).repeat_interleave(2, 0), batch.repeat(2))
    assert calls == [6, 1, 1, 1, 6, 6]


def test_nothing_found_scores_the_whole_picture_and_is_counted(source):
    reward = make_reward("identity", DinoSegSettings())
    reward.segmenter.min_share = 1.0
    score = reward(source.oracle([0]), source.batch([0]))
    assert score.isfinite().all() and reward.report() == {"unsegmented": 1.0, "reference_unsegmented": 1.0}


def test_crop_is_square_neutral_and_keeps_the_subject():
    picture = Image.fromarray(np.full((32, 40, 3), 200, dtype=np.uint8))
    mask = np.zeros((32, 40), dtype=bool)
    mask[4:12, 10:30] = True
    crop = np.asarray(subject_crop(picture, mask))
    assert crop.shape[0] == crop.shape[1] == round(20 * 8 / 7)
    inside = (crop == 200).all(-1)
    assert inside.sum() == 8 * 20
    assert (crop[~inside] == NEUTRAL).all()
    assert subject_crop(picture, None) is picture


def test_the_prompt_reward_prefers_the_right_prompt(source):
    reward = load_reward("clip")
    batch, real = source.batch(range(12)), source.oracle(range(12))
    wrong = Batch(batch.ids, batch.prompts[1:] + batch.prompts[:1], batch.references, batch.subjects)
    assert (reward(real, batch) > reward(real, wrong)).float().mean() > 0.8


def test_an_unknown_phrase_names_the_vocabulary():
    with pytest.raises(UserError, match="knows background, toy"):
        load_segmenter(asset("segmenter")).segment([Image.new("RGB", (32, 32))], ["dog"])


def test_a_checkpoint_that_does_not_fit_is_named(tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(asset("dino"), tmp_path / "dino")
    file = tmp_path / "dino" / "model.safetensors"
    state = load_file(file)
    state["surplus.weight"] = state.pop("layernorm.weight")
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=r"lacks 1 weights, such as layernorm.weight; has 1 unknown weights, such as surplus.weight"
    ):
        make_reward("identity", DinoSegSettings(path=str(tmp_path / "dino")))


def test_the_contract_of_a_score():
    batch, images = tasks(prompts=["a", "b"]), TWO_BLACK
    infinite = FunctionReward(lambda pictures, batch: [float("inf"), None], "prompt")
    assert scored("x", infinite, images, batch).isnan().all()
    with pytest.raises(UserError, match="'x' returned scores of shape"):
        scored("x", FunctionReward(lambda pictures, batch: [1.0], "prompt"), images, batch)
    with pytest.raises(UserError, match="'x' failed: ZeroDivisionError"):
        scored("x", FunctionReward(lambda pictures, batch: 1 / 0, "prompt"), images, batch)
