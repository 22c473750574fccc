"""From tasks and noise to pictures, by the plain ODE."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cgrpo.algorithm import integrate
from cgrpo.errors import BrokenPicture, UserError
from cgrpo.evaluation.sampling.noise import task_noise
from cgrpo.evaluation.sampling.turns import Processes, gather_parts, turns
from cgrpo.policies.base import Policy
from cgrpo.types import Batch


@dataclass(frozen=True)
class Work:
    """What is sampled together: tasks of equal reference sizes, and what each starts from."""

    batch: Batch
    noise_NLC: Tensor


def follow(policy: Policy, batch: Batch, x_NLC: Tensor, sigmas: Tensor, chunk: int = 96) -> Tensor:
    """The pictures that the ODE reaches from the noise ``x_NLC``, one a task: uint8 [N, H, W, 3]."""
    pictures = []
    for first in range(0, len(batch), chunk):
        rows = slice(first, first + chunk)
        velocity = functools.partial(policy.velocity, cond=policy.encode(batch.select(rows)))
        pictures.append(policy.decode(integrate(velocity, x_NLC[rows].to(policy.device, policy.dtype), sigmas)))
    return torch.cat(pictures)


def in_turns(
    policy: Policy, sigmas: Tensor, works: Sequence[Callable[[], Work]], processes: Processes
) -> Iterator[tuple[int, Tensor | UserError]]:
    """(number, pictures uint8 [n, H, W, 3]) of those of ``works`` that are this process's.

    Each is called when its turn comes, and sampled in one batch, whoever's it is. In place of pictures there is the
    UserError that came of reading its references or of making them a condition. All processes are to call this
    together, with the same works: a sharded base goes through equally many forwards on each, come what may.
    """
    for number, mine in turns(len(works), processes):
        result: Tensor | UserError
        try:
            work = works[number]()
            result = follow(policy, work.batch, work.noise_NLC, sigmas, len(work.batch))
        except UserError as error:
            if processes.sharded and not isinstance(error, BrokenPicture):  # before the first forward, that is
                _go_through_the_motions(policy, sigmas)
            result = error
        if mine:
            yield number, result


def _go_through_the_motions(policy: Policy, sigmas: Tensor) -> None:
    """As many forwards as a picture takes, of a task that can't fail."""
    nothing = Batch(("",), ("",), ((),), ("",))
    follow(policy, nothing, torch.zeros(1, *policy.latent_shape), sigmas)


def parts_in_turns(
    policy: Policy,
    sigmas: Tensor,
    batch: Batch,
    parts: Sequence[Sequence[int]],
    processes: Processes,
    draw: int = 0,
) -> Iterator[tuple[int, Tensor]]:
    """(number, pictures) of those of ``parts``, lists of the batch's tasks, that are this process's; from task noise.

    ``draw``: which of the tasks' noises.

    Raises UserError where a part can't share a condition (see ``Policy.alike``).
    """

    def work(rows: Sequence[int]) -> Work:
        tasks = batch.select(rows)
        return Work(tasks, task_noise(policy, tasks.ids, draw))

    works = [functools.partial(work, rows) for rows in parts]
    for number, images_NHWC in in_turns(policy, sigmas, works, processes):
        if isinstance(images_NHWC, UserError):
            raise images_NHWC
        yield number, images_NHWC


def sample_tasks(
    policy: Policy, sigmas: Tensor, batch: Batch, chunk: int, processes: Processes, draw: int = 0
) -> Tensor:
    """One picture a task from task noise, at most ``chunk`` at a time: uint8 [N, H, W, 3], all on every process."""
    parts = policy.alike(batch, chunk)
    made = [images_NHWC for _, images_NHWC in parts_in_turns(policy, sigmas, batch, parts, processes, draw)]
    own_NHWC = torch.cat([torch.zeros(0, policy.height, policy.width, 3, dtype=torch.uint8), *made])
    return gather_parts(own_NHWC, parts, processes)
