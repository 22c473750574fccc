"""Held-out pictures, made in one way for all who look at them: training's evaluation, the guard, benchmarks, users."""

from cgrpo.evaluation.sampling.best import best_of
from cgrpo.evaluation.sampling.folder import check_mark, describe_pictures
from cgrpo.evaluation.sampling.noise import seed_noise, task_noise
from cgrpo.evaluation.sampling.pictures import Work, follow, in_turns, parts_in_turns, sample_tasks
from cgrpo.evaluation.sampling.turns import ALONE, Processes, gather_parts, turns

__all__ = [
    "ALONE",
    "Processes",
    "Work",
    "best_of",
    "check_mark",
    "describe_pictures",
    "follow",
    "gather_parts",
    "in_turns",
    "parts_in_turns",
    "sample_tasks",
    "seed_noise",
    "task_noise",
    "turns",
]
