import pytest
import torch

from cgrpo.data import ToyboxSource, toy_source
from cgrpo.toybox import drawing, pair, world
from cgrpo.toybox.build.policy import LENGTH, vocabulary


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_same_seed_same_pictures_and_values_in_range():
    draws = []
    for _ in range(2):
        stream = rng(3)
        subjects, prompts = world.sample_subjects(40, stream), world.sample_prompts(40, stream, 0.5)
        draws.append((*drawing.draw(subjects, prompts, stream), *drawing.draw_references(subjects, stream)))
    assert all(torch.equal(a, b) for a, b in zip(*draws, strict=True))
    picture, mask, reference, _ = draws[0]
    assert picture.shape == (40, 3, 32, 32) and mask.shape == (40, 32, 32)
    for values in draws[0]:
        assert values.min() >= 0 and values.max() <= 1
    assert reference.std() > 0.1


def test_every_shape_shows_and_sizes_differ():
    count = len(world.SHAPES)
    subjects = world.sample_subjects(count, rng())
    subjects = world.Subjects(torch.arange(count), *(getattr(subjects, f) for f in list(vars(subjects))[1:]))
    zeros = torch.zeros(count, dtype=torch.long)
    areas = []
    for size in (0, 1):
        prompts = world.Prompts(zeros, zeros + 4, zeros + size, zeros)
        areas.append(drawing.draw(subjects, prompts, rng())[1].sum((1, 2)))
    assert (areas[0] > 25).all() and (areas[1] > 1.5 * areas[0]).all()


@pytest.mark.parametrize(
    ("position", "axis", "sign"), [("left", 1, -1), ("right", 1, 1), ("top", 0, -1), ("bottom", 0, 1)]
)
def test_positions_are_where_they_say(position, axis, sign):
    subjects = world.sample_subjects(20, rng())
    zeros = torch.zeros(20, dtype=torch.long)
    index = list(world.POSITIONS).index(position)
    masks = drawing.draw(subjects, world.Prompts(zeros, zeros + index, zeros, zeros), rng())[1]
    line = torch.arange(32.0) - 15.5
    weights = line[:, None] if axis == 0 else line[None]
    centre = (masks * weights).sum((1, 2)) / masks.sum((1, 2))
    assert (sign * centre > 3).all()


def test_a_property_changes_the_main_colour_and_nothing_else():
    subjects = world.sample_subjects(30, rng())
    wish = torch.arange(30) % len(world.PROPERTIES)
    painted = world.with_property(subjects, wish, rng())
    changed = (painted.main_BC != subjects.main_BC).any(-1)
    assert torch.equal(changed, wish > 0)
    for name in ("shape_B", "pattern_B", "other_BC", "frequency_B", "angle_B"):
        assert torch.equal(getattr(painted, name), getattr(subjects, name))


def test_splits_share_no_combination_and_cover_every_factor():
    seen = {}
    for split in world.SPLITS:
        prompts = world.sample_prompts(3000, rng(), 0.3, split)
        seen[split] = set(
            zip(prompts.scene_B.tolist(), prompts.position_B.tolist(), prompts.size_B.tolist(), strict=True)
        )
        for factor, names in (("scene_B", world.SCENES), ("position_B", world.POSITIONS), ("size_B", world.SIZES)):
            assert getattr(prompts, factor).unique().numel() == len(names), (split, factor)
        share = (prompts.property_B > 0).float().mean().item()
        assert abs(share - 0.3) < 0.04
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["validation"]
    assert not seen["validation"] & seen["test"]
    assert len(seen["train"] | seen["validation"] | seen["test"]) == 60


def test_prompts_are_within_the_vocabulary_and_length():
    prompts = world.sample_prompts(500, rng(), 0.5, None)
    words = set(vocabulary())
    assert all(set(text.split()) <= words and len(text.split()) + 2 <= LENGTH for text in prompts.texts())
    asked = world.Prompts(*(torch.tensor([i]) for i in (2, 0, 0, 1)))
    assert asked.texts() == ["a small red toy on the left at night"]


def test_source_is_a_function_of_seed_split_and_index():
    source = ToyboxSource(0, "test", 0.35, per_subject=4)
    batch, again = source.batch(range(8)), ToyboxSource(0, "test", 0.35, per_subject=4).batch([5])
    assert again.prompts[0] == batch.prompts[5] and again.ids[0] == batch.ids[5] == "test-1-1"
    assert again.references[0][0].tobytes() == batch.references[5][0].tobytes()
    first, second = ({batch.references[i][0].tobytes() for i in group} for group in (range(4), range(4, 8)))
    assert len(first) == len(second) == 1 and first != second
    other = ToyboxSource(0, "validation", 0.35, per_subject=4).batch(range(8))
    assert {r[0].tobytes() for r in other.references}.isdisjoint(first | second)


def test_flaws_come_at_their_stated_rates():
    subjects, prompts = world.sample_subjects(4000, rng()), world.sample_prompts(4000, rng(1), 0.3)
    shown, captions = world.flawed(subjects, prompts, rng(2), 0.3)
    recoloured = (shown.main_BC != subjects.main_BC).any(-1).float().mean().item()
    moved = (captions.scene_B != prompts.scene_B).float().mean().item()
    assert abs(recoloured - world.WRONG_COLOUR) < 0.012
    assert abs(moved - world.WRONG_CAPTION * 5 / 6) < 0.02


def test_pairs_have_two_shapes_where_the_prompt_puts_them():
    first, second = pair.sample_couples(40, rng())
    prompts = pair.sample_prompts(40, rng(1), split=None)
    picture, masks = pair.draw(first, second, prompts, rng(2))
    assert picture.shape == (40, 3, 32, 32) and (masks.sum((2, 3)) > 25).all()
    assert (first.shape_B != second.shape_B).all()
    line = torch.arange(32.0)
    x, y = ((masks * weights).sum((2, 3)) / masks.sum((2, 3)) for weights in (line[None], line[:, None]))
    gaps = torch.stack([x[:, 1] - x[:, 0], x[:, 0] - x[:, 1], y[:, 1] - y[:, 0], y[:, 0] - y[:, 1]], 1)
    assert torch.equal(gaps.argmax(1), prompts.relation_B)
    hidden = pair.draw(first, second, prompts, rng(2), torch.tensor([True, False]).expand(40, 2))
    assert torch.equal(hidden[1][:, 0], masks[:, 0]) and not hidden[1][:, 1].any()


def test_pair_tasks_have_references_in_either_order_and_disjoint_splits():
    sources = {split: toy_source("toybox-pair", 0, split) for split in world.SPLITS}
    asked = {}
    for split, source in sources.items():
        cases = source.cases(range(30))
        assert {case.named for case in cases} == {(0, 1), (1, 0)}
        asked[split] = {(int(c.prompt.scene_B), int(c.prompt.relation_B)) for c in cases}
    assert not asked["train"] & asked["test"] and not asked["validation"] & (asked["train"] | asked["test"])
    batch = sources["test"].batch(range(4))
    assert batch.phrases == (("toy", "toy"),) * 4 and all(len(row) == 2 for row in batch.references)
    assert max(len(prompt.split()) for prompt in batch.prompts) + 2 <= LENGTH
    flawed, targets = sources["train"].pairs(range(3))
    assert flawed.prompts == sources["train"].batch(range(3)).prompts and len(targets) == 3
