"""Several subjects in one picture: which region counts for which reference, by hand and with a made-up segmenter."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from support.tasks import tasks

from cgrpo.errors import UserError
from cgrpo.rewards.base import Reward, to_tensor
from cgrpo.rewards.dino import DinoSeg
from cgrpo.rewards.regions import regions_of
from cgrpo.rewards.segmenters import Segmenter, SemanticSegmenter
from cgrpo.rewards.several import FLOOR, assigned, joined, per_subject, subject_names
from cgrpo.rewards.similarity import Encoder

NAN = math.nan
RED, BLUE, GREY = (250, 10, 10), (10, 10, 250), (124, 116, 104)


@pytest.mark.parametrize(
    ("similarity", "allowed", "expected"),
    [
        ([[0.9, 0.2], [0.1, 0.8]], None, [0.9, 0.8]),  # in their order
        ([[0.2, 0.9], [0.8, 0.1]], None, [0.9, 0.8]),  # in the other order
        ([[0.9, 0.8], [0.7, 0.1]], None, [0.8, 0.7]),  # the greatest sum, not the greatest score
        ([[0.9, 0.9], [0.2, 0.2]], None, [0.9, 0.2]),  # one is there twice: it counts once
        ([[0.9], [0.3]], None, [0.9, FLOOR]),  # one is missing
        ([[0.9], [0.3], [0.2]], None, [0.9, FLOOR, FLOOR]),  # three references, one region
        ([[0.9, 0.1], [0.3, 0.6], [0.5, 0.5]], None, [0.9, 0.6, FLOOR]),  # three phrases, two instances
        ([[0.2, 0.9], [0.9, 0.2]], [[True, False], [False, True]], [0.2, 0.2]),  # swapped looks under their phrases
        ([[0.9, 0.8], [0.7, 0.6]], [[True, True], [False, False]], [0.9, FLOOR]),  # a phrase without an instance
        ([[-0.4, -0.2], [-0.3, 0.5]], None, [FLOOR, 0.5]),  # nothing in common is no worse than missing
        ([[0.9, 0.1, 0.2], [0.1, 0.2, 0.8]], None, [0.9, 0.8]),  # a third thing is in the picture
        ([[], []], [[], []], [NAN, NAN]),  # nothing that could be looked at
    ],
)
def test_assignment_by_hand(similarity, allowed, expected):
    similarity_SI = torch.tensor(similarity)
    allowed_SI = torch.ones(similarity_SI.shape, dtype=torch.bool) if allowed is None else torch.tensor(allowed)
    scores = assigned(similarity_SI, allowed_SI.bool())
    torch.testing.assert_close(scores, torch.tensor(expected), equal_nan=True)


def test_scores_are_joined_by_mean_or_minimum():
    scores_NS = torch.tensor([[0.2, 0.6, NAN], [0.3, NAN, NAN], [NAN, NAN, NAN], [NAN, 0.5, NAN]])
    torch.testing.assert_close(joined(scores_NS, "mean"), torch.tensor([0.4, 0.3, NAN, NAN]), equal_nan=True)
    torch.testing.assert_close(joined(scores_NS, "min"), torch.tensor([0.2, 0.3, NAN, NAN]), equal_nan=True)


class Colours(Segmenter):
    """Finds what is of a colour: "red", "blue", or "toy" for both, by connected halves of the picture."""

    def segment(self, pictures, phrases):
        return [masks[0] if masks else None for masks in self.instances(pictures, phrases)]

    def instances(self, pictures, phrases):
        found = []
        for picture, phrase in zip(pictures, phrases, strict=True):
            pixels, half = np.asarray(picture), picture.width // 2
            colours = {"red": [RED], "blue": [BLUE], "toy": [RED, BLUE]}[phrase]
            masks = []
            for colour in colours:
                mask = (pixels == colour).all(-1)
                masks += [mask & (np.arange(picture.width) // half == side) for side in (0, 1)]
            found.append([mask for mask in masks if mask.any()])
        return found


class MeanColour(Encoder):
    """A picture's mean colour but for the neutral ground, as its embedding."""

    def __init__(self):
        super().__init__(torch.nn.Linear(1, 1), 8, "cpu")

    def prepare(self, pictures):
        return to_tensor([picture.resize((16, 16), 0) for picture in pictures]).float()

    def embed(self, pixels):
        subject = (pixels != torch.tensor(GREY)).any(-1, keepdim=True)
        return (pixels * subject).sum((1, 2))


def scene(left, right) -> Image.Image:
    picture = Image.new("RGB", (32, 16), (200, 200, 200))
    for colour, x in ((left, 2), (right, 20)):
        if colour:
            picture.paste(colour, (x, 3, x + 9, 13))
    return picture


def batch_of(count: int, phrases=("red", "blue")):
    batch = tasks([[scene(RED, None), scene(None, BLUE)]] * count)
    return batch.__class__(**{**vars(batch), "phrases": (tuple(phrases),) * count})


@pytest.mark.parametrize("phrases", [("red", "blue"), ("toy", "toy")])
def test_each_subject_is_compared_with_its_region(phrases):
    reward = DinoSeg(MeanColour(), Colours())
    pictures = [scene(RED, BLUE), scene(BLUE, RED), scene(RED, RED), scene(RED, None), scene(None, None)]
    scores = reward.each(to_tensor(pictures), batch_of(5, phrases))
    doubled = FLOOR if phrases[1] == "blue" else 0.08  # of a generic phrase the second red one is compared with blue
    expected = [[1.0, 1.0], [1.0, 1.0], [1.0, doubled], [1.0, FLOOR], [NAN, NAN]]
    torch.testing.assert_close(scores, torch.tensor(expected), equal_nan=True, rtol=0, atol=5e-3)
    worst = DinoSeg(MeanColour(), Colours(), several="min")(to_tensor(pictures), batch_of(5, phrases))
    torch.testing.assert_close(worst, scores.amin(1), equal_nan=True)
    assert reward.report()["missing"] == pytest.approx((2 if phrases[1] == "blue" else 1) / 10)


def test_without_phrases_a_task_scores_as_ever():
    """The mean over references, also among tasks of several subjects."""
    reward, batch = DinoSeg(MeanColour(), Colours()), batch_of(2, ())
    batch = batch.__class__(**{**vars(batch), "subjects": ("red", "red")})
    pictures = to_tensor([scene(RED, BLUE), scene(BLUE, RED)])
    alone = reward(pictures, batch)
    mixed = batch.__class__(**{**vars(batch), "phrases": ((), ("red", "blue"))})
    each = reward.each(pictures, mixed)
    assert torch.equal(reward(pictures, mixed)[0], alone[0])
    torch.testing.assert_close(each.mean(1), torch.stack([alone[0], torch.tensor(1.0)]))


def test_one_region_may_answer_to_two_phrases():
    picture = scene(RED, BLUE)
    (regions,) = regions_of(Colours().instances, [picture], [("red", "toy")])
    assert [sorted(region.phrases) for region in regions] == [["red", "toy"], ["toy"]]


def test_rewards_of_single_subjects_share_one_look():
    calls = []

    class Counting(DinoSeg):
        def each(self, images_NHWC, batch):
            calls.append(len(batch))
            return super().each(images_NHWC, batch)

    rewards = per_subject({"identity": Counting(MeanColour(), Colours())}, "identity", 2)
    assert list(rewards) == ["identity", *subject_names("identity", 2)] == ["identity", "identity_1", "identity_2"]
    pictures, batch = to_tensor([scene(RED, BLUE), scene(RED, None)]), batch_of(2)
    scores = {name: reward(pictures, batch) for name, reward in rewards.items()}
    torch.testing.assert_close(scores["identity_2"], torch.tensor([1.0, FLOOR]))
    torch.testing.assert_close(scores["identity"], (scores["identity_1"] + scores["identity_2"]) / 2)
    assert calls == [2]
    rewards["identity_1"](pictures[:1], batch.select([0]))
    assert calls == [2, 1]

    class Whole(Reward):
        axis, unit = "identity", ""

    assert per_subject({"identity": Whole()}, "identity", 1).keys() == {"identity"}
    with pytest.raises(UserError, match=r"weights\.subjects = 2.*identity"):
        per_subject({"identity": Whole()}, "identity", 2)


def test_a_class_falls_into_its_parts():
    """Two things that touch at a narrow bridge are two; a small speck is none."""
    mask = np.zeros((64, 64), dtype=bool)
    mask[10:30, 5:25] = mask[10:30, 28:50] = True
    mask[19:21, 25:28] = True
    mask[60, 60] = True
    segmenter = SemanticSegmenter.__new__(SemanticSegmenter)
    segmenter.min_share = 0.01
    segmenter.segment = lambda pictures, phrases: [mask, None]  # type: ignore[method-assign]
    parts, nothing = segmenter.instances([Image.new("RGB", (64, 64))] * 2, ["toy"] * 2)
    assert nothing == [] and len(parts) == 2
    assert not (parts[0] & parts[1]).any() and parts[0].sum() >= parts[1].sum() > 390
