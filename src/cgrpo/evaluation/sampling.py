"""Held-out pictures, made in one way for all who look at them: training's evaluation, the guard, benchmarks, users.

Work is dealt to processes so that a forward may need them all, as it does where the base is sharded. Noise is of two
kinds, since published figures rest on each:

task noise   of the task's name: training's evaluation and the guard; each task has a noise of its own
seed noise   of a seed alone, the same for every prompt, as diffusers' pipelines draw it: benchmarks and `cgrpo sample`
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cgrpo.algorithm import integrate
from cgrpo.data import derive
from cgrpo.errors import BrokenPicture, UserError
from cgrpo.files import json_text, reading, write_text
from cgrpo.policies.base import Policy
from cgrpo.types import Batch

SETTINGS = "generation.json"
FLAT = 1e-6  # a spread below this is rounding


# -- processes -------------------------------------------------------------------------------------


class Processes(Protocol):
    """This process among ``world``; ``sharded`` where a forward needs them all."""

    rank: int
    world: int
    sharded: bool
    device: torch.device

    def gather(self, values: Tensor) -> Tensor:
        """The processes' tensors, equal in shape, one after another along the first axis; everywhere."""
        ...

    def share(self, text: str) -> str:
        """The main process's text, everywhere."""
        ...


class _Alone:
    """One process."""

    rank, world, sharded = 0, 1, False
    device = torch.device("cpu")

    def gather(self, values: Tensor) -> Tensor:
        return values

    def share(self, text: str) -> str:
        return text


ALONE = _Alone()


def turns(count: int, processes: Processes) -> Iterator[tuple[int, bool]]:
    """(number, mine) of the pieces of work, out of ``count``, that this process does, in order: every ``world``-th.

    Where the base is sharded all processes get equally many. One that has no piece left in the last turn gets
    another's again, not ``mine``, and only takes part in its forwards.
    """
    for first in range(0, count, processes.world):
        number = first + processes.rank
        if number < count:
            yield number, True
        elif processes.sharded:
            yield first, False


def gather_parts(own: Tensor, parts: Sequence[Sequence[int]], processes: Processes) -> Tensor:
    """All processes' rows, on the CPU of each: [N, ...] in the rows' order.

    ``parts`` are the rows' numbers, dealt by ``turns``; ``own`` [n, ...] are this process's rows, part after part.
    """
    world = processes.world
    rows_by_rank = [[row for part in parts[rank::world] for row in part] for rank in range(world)]
    most = max(map(len, rows_by_rank))
    padded = own.new_zeros(most, *own.shape[1:])
    padded[: len(own)] = own
    gathered = processes.gather(padded.to(processes.device)).cpu()
    whole = gathered.new_empty(sum(map(len, parts)), *own.shape[1:])
    for rank, rows in enumerate(rows_by_rank):
        whole[rows] = gathered[rank * most : rank * most + len(rows)]
    return whole


# -- pictures --------------------------------------------------------------------------------------


def task_noise(policy: Policy, ids: Sequence[str], seed: int = 0) -> Tensor:
    """fp32 [N, L, C] for tasks of these names: the same (seed, name) always has the same."""
    return torch.stack([torch.randn(policy.latent_shape, generator=derive("evaluation", seed, name)) for name in ids])


def seed_noise(policy: Policy, seeds: Iterable[int]) -> Tensor:
    """fp32 [N, L, C], one row per seed, as the policy's stock pipeline draws it."""
    return torch.cat([policy.noise(seed) for seed in seeds])


@dataclass(frozen=True)
class Work:
    """What is sampled together: tasks of equal reference sizes, and the noise that each starts from."""

    batch: Batch
    noise_NLC: Tensor


def follow(policy: Policy, batch: Batch, x_NLC: Tensor, sigmas: Tensor, chunk: int = 96) -> Tensor:
    """The pictures that the plain ODE reaches from the noise ``x_NLC``, one per task: uint8 [N, H, W, 3]."""
    pictures = []
    for first in range(0, len(batch), chunk):
        rows = slice(first, first + chunk)
        cond = policy.encode(batch.select(rows))
        with torch.no_grad(), policy.evaluated(), policy.shared_prefix(cond) as shared:
            velocity = functools.partial(policy.velocity, cond=shared)
            x_nLC = integrate(velocity, x_NLC[rows].to(policy.device, policy.dtype), sigmas)
        pictures.append(policy.decode(x_nLC))
    return torch.cat(pictures)


def in_turns(
    policy: Policy, sigmas: Tensor, works: Sequence[Callable[[], Work]], processes: Processes
) -> Iterator[tuple[int, Tensor | UserError]]:
    """(number, pictures uint8 [n, H, W, 3]) of those of ``works`` that are this process's.

    Each is called when its turn comes, and sampled in one batch, whichever process samples it. In place of pictures
    there is the UserError of reading its references or of encoding them. All processes call this together, with the
    same works: a sharded base goes through equally many forwards on each, also where one fails.
    """
    for number, mine in turns(len(works), processes):
        result: Tensor | UserError
        try:
            work = works[number]()
            result = follow(policy, work.batch, work.noise_NLC, sigmas, len(work.batch))
        except UserError as error:
            if processes.sharded and not isinstance(error, BrokenPicture):  # it failed before the first forward
                _idle_forwards(policy, sigmas)
            result = error
        if mine:
            yield number, result


def _idle_forwards(policy: Policy, sigmas: Tensor) -> None:
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

    ``draw``: which of the tasks' noises. Raises UserError where a part can't share a condition (``Policy.alike``).
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
    policy: Policy,
    sigmas: Tensor,
    batch: Batch,
    chunk: int,
    processes: Processes,
    draw: int = 0,
    progress: Callable[[int], object] = lambda count: None,
) -> Tensor:
    """One picture per task from task noise, at most ``chunk`` at a time: uint8 [N, H, W, 3], all on every process.

    ``progress`` is called with the number of pictures that this process just made.
    """
    parts = policy.alike(batch, chunk)
    own = [torch.zeros(0, policy.height, policy.width, 3, dtype=torch.uint8)]
    for _, images_NHWC in parts_in_turns(policy, sigmas, batch, parts, processes, draw):
        own.append(images_NHWC)
        progress(len(images_NHWC))
    return gather_parts(torch.cat(own), parts, processes)


def best_of(scores_KNR: Tensor) -> Tensor:
    """Which of a task's K pictures has the greatest sum of its rewards, each in units of its spread within tasks.

        sum_r score[k, n, r] / std_r,    std_r^2 = mean over tasks of the variance over their pictures

    The spread is pooled over tasks. Normalised task by task, two pictures whose two rewards disagree would always
    draw; added plainly, the reward with the larger scale would choose alone.

    scores_KNR [K, N, R], NaN = could not be scored: such a picture is not chosen unless all of the task's are, when it
    is the first -> index_N [N] long, 0 .. K - 1, the first of equals. Raises ValueError for another rank.
    """
    if scores_KNR.ndim != 3 or 0 in scores_KNR.shape:
        raise ValueError(f"scores_KNR must be [K, N, R], got {list(scores_KNR.shape)}")
    scores_KNR = scores_KNR.double()
    scored_KN = ~scores_KNR.isnan().any(dim=-1)
    valid_KNR = scores_KNR.masked_fill(~scored_KN[..., None], torch.nan)
    gap_KNR = valid_KNR - valid_KNR.nanmean(dim=0)
    freedom = int((scored_KN.sum(dim=0) - 1).clamp(min=0).sum())
    std_R = (gap_KNR.square().nansum(dim=(0, 1)) / max(freedom, 1)).sqrt()
    telling_KNR = torch.where(std_R >= FLAT, gap_KNR / std_R, torch.zeros_like(gap_KNR))
    return telling_KNR.sum(dim=-1).masked_fill(~scored_KN, -torch.inf).argmax(dim=0)


# -- pictures that are kept ------------------------------------------------------------------------


def picture_settings(policy: Policy, sigmas: Tensor | None, alone: bool = False) -> dict[str, Any]:
    """All that a policy's pictures depend on except prompts, references and noise. Call it before it is sharded.

    ``alone``: pictures of the reference policy, by prompts without references. ``sigmas`` None: nothing is sampled.
    """
    with policy.reference() if alone else nullcontext():
        settings = policy.pictures_depend_on()
    if sigmas is None:
        return settings
    return settings | {"references": not alone, "sigmas": [round(sigma, 6) for sigma in sigmas.tolist()]}


def check_pictures(folder: Path, settings: Mapping[str, Any], write: bool) -> None:
    """Raise UserError where ``folder`` says that its pictures were made with other settings.

    A folder that says nothing passes; with ``write`` the settings are written there.
    """
    file = folder / SETTINGS
    if not file.is_file():
        if write:
            write_text(file, json_text(settings, indent=1) + "\n")
        return
    with reading(file, "give another --method or --out"):
        before = json.loads(file.read_text(encoding="utf-8-sig"))
        if not isinstance(before, dict):
            raise ValueError("no table")
    other = [name for name in settings if name not in before or before[name] != settings[name]]
    if other:
        raise UserError(
            f"{folder} holds pictures made with another {', '.join(other)}", "give another --method or --out"
        )
