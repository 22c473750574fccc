import torch

from cgrpo.data import GroupNoise, derive, task_indices


def test_streams_depend_on_every_part():
    draws = [torch.rand(3, generator=derive(*parts)) for parts in ((0, "a", 1), (0, "a", 1), (0, "a", 2), (1, "a", 1))]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2]) and not torch.equal(draws[0], draws[3])


def test_a_finite_source_is_shuffled_every_epoch_and_missed_by_none():
    order = [index for iteration in range(10) for index in task_indices(7, iteration, 3, 10)]
    epochs = [order[start : start + 10] for start in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != list(range(10))
    assert task_indices(0, 4, 3, None) == [12, 13, 14]


def test_noise_does_not_depend_on_how_prompts_are_dealt_to_processes():
    shape, group = (4, 3), 5
    whole = GroupNoise(1, 2, range(4), group, shape)
    halves = [GroupNoise(1, 2, positions, group, shape) for positions in (range(2), range(2, 4))]
    assert torch.equal(whole.initial(), torch.cat([half.initial() for half in halves]))
    for k in (0, 3):
        assert torch.equal(whole.step(k), torch.cat([half.step(k) for half in halves]))
    seeds = [half.initial_seed() for part in halves for half in part.window_generators]
    assert [g.initial_seed() for g in whole.window_generators] == seeds and len(set(seeds)) == 20


def test_a_group_shares_its_start_and_not_its_steps():
    noise = GroupNoise(1, 0, range(2), 3, (4, 3))
    start = noise.initial().view(2, 3, 4, 3)
    assert torch.equal(start[:, 0], start[:, 2]) and not torch.equal(start[0], start[1])
    step = noise.step(0).view(2, 3, 4, 3)
    assert not torch.equal(step[:, 0], step[:, 1])
