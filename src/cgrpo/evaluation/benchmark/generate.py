"""A benchmark's pictures by a policy: one PNG per row and seed."""

from __future__ import annotations

import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from cgrpo.data.archives import open_picture
from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.candidates import FIRST_SEED, picture_name
from cgrpo.evaluation.benchmark.suite import Suite, SuiteRow
from cgrpo.evaluation.sampling import (
    ALONE,
    Processes,
    Work,
    check_pictures,
    in_turns,
    picture_settings,
    seed_noise,
    turns,
)
from cgrpo.files import save_picture, writing
from cgrpo.pictures import Alpha
from cgrpo.policies.base import Policy
from cgrpo.rewards.base import to_pictures
from cgrpo.types import Batch

BLOCK = 4  # pictures of a row in one batch

Progress = Callable[[int], object]
Made = Iterator[tuple[int, list[Image.Image] | UserError]]


@dataclass(frozen=True)
class Block:
    """A row's pictures that are made together, one per seed."""

    row: SuiteRow
    seeds: range

    def files(self, folder: Path) -> list[Path]:
        return [folder / f"{picture_name(self.row, seed)}.png" for seed in self.seeds]


@dataclass
class Generated:
    """Pictures made now by this process, pictures that were there, and rows left out, with the error of each."""

    made: int = 0
    kept: int = 0
    failed: dict[str, str] = field(default_factory=dict)


class Maker(ABC):
    """Makes a benchmark's pictures in a folder. It is built before the base is sharded.

    settings  all that the pictures depend on, as ``picture_settings`` gives it
    """

    settings: Mapping[str, Any]
    blocks: Sequence[Block]

    @abstractmethod
    def _make(self, blocks: Sequence[Block], processes: Processes) -> Made:
        """(number, pictures) of those of ``blocks`` that are this process's, or why there are none."""

    def __call__(self, folder: Path, processes: Processes = ALONE, progress: Progress | None = None) -> Generated:
        """Make the pictures that ``folder`` lacks, as SUBJECT/PP_SEED.png (``picture_name``).

        A picture that is there already is kept, so the same call continues one that was broken off, and may add seeds.
        Blocks are dealt to the processes, which call this together. A block that lacks a picture is made whole again:
        neither the number of processes nor where a call was broken off changes a pixel. ``progress`` is called with how
        many more pictures are there, all processes' together. A reference that can't be read costs its row alone.

        Raises UserError for a folder whose pictures were made otherwise, or that can't be written.
        """
        done = Generated()
        with writing(folder):
            for name in dict.fromkeys(block.row.subject for block in self.blocks):
                (folder / name).mkdir(parents=True, exist_ok=True)
            check_pictures(folder, self.settings, write=processes.rank == 0)
            blocks, lacking = self._lacking(folder, processes)
            done.kept = sum(len(block.seeds) for block in self.blocks) - sum(map(len, lacking))
            _report(progress, done.kept)
            for number, pictures in self._make(blocks, processes):
                block = blocks[number]
                if isinstance(pictures, UserError):
                    done.failed[f"{block.row.subject} {block.row.prompt_index}"] = str(pictures)
                else:
                    for place in lacking[number]:
                        save_picture(pictures[place], block.files(folder)[place])
                        done.made += 1
                _report(progress, sum(map(len, lacking[number : number + processes.world])))
        return done

    def _lacking(self, folder: Path, processes: Processes) -> tuple[list[Block], list[list[int]]]:
        """The blocks that lack pictures, and the places of these in each: as the main process finds it, everywhere."""
        missing = [[place for place, f in enumerate(b.files(folder)) if not f.is_file()] for b in self.blocks]
        missing = json.loads(processes.share(json.dumps(missing)))
        pairs = [(block, places) for block, places in zip(self.blocks, missing, strict=True) if places]
        return [block for block, _ in pairs], [places for _, places in pairs]


class Sampled(Maker):
    """Pictures by the policy; ``alone``: by the reference policy, of the prompt without references.

    Seeds are ``first_seed`` .. ``first_seed + seeds - 1``, four of a row in a batch of their own; the noise is the
    seed's (``seed_noise``). ``alpha``: how references are read (pictures.py), as in training.
    """

    def __init__(
        self,
        policy: Policy,
        sigmas: Tensor,
        suite: Suite,
        *,
        seeds: int = 4,
        first_seed: int = FIRST_SEED,
        alone: bool = False,
        alpha: Alpha = "white",
    ):
        self.policy, self.sigmas, self.suite, self.alone = policy, sigmas, suite, alone
        self.settings = {"suite": dict(suite.conditions)} | picture_settings(policy, sigmas, alone)
        self.settings |= {} if alone else {"reference_alpha": alpha}
        end = first_seed + seeds
        ranges = [range(first, min(first + BLOCK, end)) for first in range(first_seed, end, BLOCK)]
        self.blocks = [Block(row, some) for row in suite.rows for some in ranges]
        self._read = functools.lru_cache(maxsize=8)(functools.partial(open_picture, alpha=alpha))

    def _make(self, blocks: Sequence[Block], processes: Processes) -> Made:
        works = [functools.partial(self._work, block) for block in blocks]
        with self.policy.reference() if self.alone else nullcontext():
            for number, images_NHWC in in_turns(self.policy, self.sigmas, works, processes):
                yield number, images_NHWC if isinstance(images_NHWC, UserError) else to_pictures(images_NHWC)

    def _work(self, block: Block) -> Work:
        row, names = block.row, () if self.alone else block.row.references
        shown = tuple(self._read(self.suite.root / name) for name in names)
        task = Batch((str(row.number),), (row.prompt,), (shown,), (" and ".join(row.words),))
        return Work(task.repeat(len(block.seeds)), seed_noise(self.policy, block.seeds))


class Autoencoded(Maker):
    """The rows' targets through the policy's autoencoder, as seed 0: its pictures can't be better."""

    def __init__(self, policy: Policy, suite: Suite):
        self.policy, self.suite = policy, suite
        self.settings = {"suite": dict(suite.conditions)} | picture_settings(policy, None, alone=True)
        self.blocks = [Block(row, range(1)) for row in suite.with_targets().rows]

    def _make(self, blocks: Sequence[Block], processes: Processes) -> Made:
        for number, mine in turns(len(blocks), processes):
            target = blocks[number].row.target
            assert target is not None
            if not mine:
                continue
            try:
                latents_NLC = self.policy.encode_targets([open_picture(self.suite.root / target)])
                yield number, to_pictures(self.policy.decode(latents_NLC))
            except UserError as error:
                yield number, error


def _report(progress: Progress | None, more: int) -> None:
    if progress is not None and more:
        progress(more)
