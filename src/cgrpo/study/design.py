"""Pictures to ask about, from what `cgrpo evaluate` wrote, and who sees what on which side.

The design is seeded, balanced, and drawn before the first answer.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cgrpo.errors import UserError
from cgrpo.files import reading
from cgrpo.scores import DESCRIPTION, RESERVED, read_description, read_scores


@dataclass
class Task:
    """A subject and a prompt, and the pictures that methods made of it: {method: {seed: file}}."""

    subject: str
    prompt_index: int
    prompt: str
    pictures: dict[str, dict[int, Path]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sources:
    """What can be asked about.

    tasks       those that every method has a picture of; left_out: how many others there are
    references  files by subject; benchmark, methods: names
    """

    folder: Path
    benchmark: str
    methods: tuple[str, ...]
    tasks: Sequence[Task]
    left_out: int
    references: Mapping[str, tuple[Path, ...]]


def read_sources(folder: Path, methods: Sequence[str] = ()) -> Sources:
    """What can be asked about ``folder``, the --out of ``cgrpo evaluate``.

    ``methods`` in the order in which they are compared, what is compared with first; by default all, "base" first.
    Raises UserError for an unknown method, and where the methods share no task whose pictures are all there.
    """
    rows, about = read_scores(folder), read_description(folder)
    if not rows or not about:
        raise UserError(f"{folder}: no scores and benchmark.json; run cgrpo evaluate with this folder as --out first")
    with reading(folder / DESCRIPTION, "run cgrpo evaluate again", KeyError, TypeError, AttributeError):
        home, folders = folder / about["data"], {name: folder / where for name, where in about["methods"].items()}
        references = {
            subject: tuple(home / name for name in names) for subject, names in about["references"].items() if names
        }
    chosen = tuple(methods) or tuple(sorted((n for n in folders if n not in RESERVED), key=lambda name: name != "base"))
    for name in chosen:
        if name not in folders:
            raise UserError(f"{folder}: no method {name!r}; there is {', '.join(folders)}")
    if len(set(chosen)) < len(chosen):
        raise UserError("the same --method is given twice; name each once")
    gone = {file for files in references.values() for file in files if not file.is_file()}
    references = {subject: files for subject, files in references.items() if not gone.intersection(files)}
    tasks: dict[tuple[str, int], Task] = {}
    for row in rows:
        if row.method in chosen and row.picture and row.prompt_index is not None and row.seed is not None:
            key = (row.subject, row.prompt_index)
            task = tasks.setdefault(key, Task(*key, row.prompt or ""))
            file = folders[row.method] / row.picture
            if file.is_file():
                task.pictures.setdefault(row.method, {})[row.seed] = file
            else:
                gone.add(file)
    shared = [task for task in tasks.values() if set(task.pictures) == set(chosen) and task.subject in references]
    if not shared:
        lost = f"; {len(gone)} pictures are gone, such as {min(gone)}" if gone else ""
        raise UserError(
            f"{folder}: no subject and prompt of which each of {', '.join(chosen)} has a picture{lost}",
            "run cgrpo evaluate again, which makes what is missing",
        )
    return Sources(folder, about.get("benchmark", ""), chosen, shared, len(tasks) - len(shared), references)


PICTURES_A_PROMPT = 2  # of a rating study: without two there is no correlation within prompts


class PickedTask(NamedTuple):
    """A task, and the (method, seed) of each picture that is asked about."""

    task: Task
    arms: tuple[tuple[str, int], ...]

    @property
    def files(self) -> list[Path]:
        return [self.task.pictures[method][seed] for method, seed in self.arms]


def balanced_tasks(tasks: Sequence[Task], count: int, rng: np.random.Generator) -> list[Task]:
    """``count`` tasks, spread over subjects as evenly as they allow; all of a subject's prompts before any twice."""
    by_subject: dict[str, list[Task]] = defaultdict(list)
    for place in rng.permutation(len(tasks)):
        by_subject[tasks[place].subject].append(tasks[place])
    subjects = [sorted(by_subject)[place] for place in rng.permutation(len(by_subject))]
    rounds = itertools.zip_longest(*(by_subject[subject] for subject in subjects))
    return [task for turn in rounds for task in turn if task is not None][:count]


def pick_pairs(tasks: Sequence[Task], methods: Sequence[str], count: int, rng: np.random.Generator) -> list[PickedTask]:
    """``count`` comparisons of two methods, each pair of methods as often (to one), subjects balanced.

    A task is asked about anew, with another pair of methods, only when all tasks were. Raises UserError.
    """
    pairs = list(itertools.combinations(methods, 2))
    if not pairs:
        raise UserError("a comparison needs two methods; score another into the folder, or ask with --mode rating")
    if count > len(tasks) * len(pairs):
        raise UserError(
            f"--items {count}: {len(tasks)} subjects with prompts x {len(pairs)} pairs of methods are there"
        )
    order = balanced_tasks(tasks, len(tasks), rng)
    start = rng.permutation(len(pairs))
    subjects = len({task.subject for task in tasks})
    picked = []
    for n in range(count):
        lap, place = divmod(n, len(order))
        task = order[place]
        # Pairs of methods rotate along the tasks: one further each round of subjects, so that no subject keeps one
        # pair, and one further each lap, so that no task meets a pair twice.
        chosen = pairs[start[(place + place // subjects + lap) % len(pairs)]]
        picked.append(PickedTask(task, tuple((method, _seed(task, method, rng)) for method in chosen)))
    return picked


def pick_singles(
    tasks: Sequence[Task], methods: Sequence[str], count: int, rng: np.random.Generator
) -> list[PickedTask]:
    """``count`` single pictures, up to two of a task, of different methods or seeds. Raises UserError."""
    picked = []
    for task in balanced_tasks(tasks, len(tasks), rng):
        all_arms = [(method, seed) for method in methods for seed in sorted(task.pictures[method])]
        for place in rng.permutation(len(all_arms))[:PICTURES_A_PROMPT]:
            picked.append(PickedTask(task, (all_arms[place],)))
    if count > len(picked):
        raise UserError(f"--items {count}: {len(picked)} pictures (two of a prompt at most) are there")
    return picked[:count]


def _seed(task: Task, method: str, rng: np.random.Generator) -> int:
    seeds = sorted(task.pictures[method])
    return seeds[int(rng.integers(len(seeds)))]


def assign_raters(items: int, raters: int, per_item: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """``per_item`` raters, numbered from 0, for each item: loads differ by one at most, pairs of raters meet about
    equally often (a balanced incomplete block design where one exists, near it elsewhere)."""
    load_R = np.zeros(raters, dtype=int)
    met_RR = np.zeros((raters, raters), dtype=int)
    blocks = []
    for _ in range(items):
        block: list[int] = []
        for _ in range(per_item):
            free = [rater for rater in rng.permutation(raters) if rater not in block]
            block.append(int(min(free, key=lambda rater: (load_R[rater], met_RR[rater, block].sum()))))
            load_R[block[-1]] += 1
        for one, other in itertools.permutations(block, 2):
            met_RR[one, other] += 1
        blocks.append(tuple(sorted(block)))
    return blocks


def balanced_sides(edges: Sequence[tuple[int, int]], rng: np.random.Generator) -> list[bool]:
    """For each (item, rater): whether the item's first picture stands on the left.

    Per item and per rater, left and right differ by one at most. Items and raters are the two sides of a bipartite
    graph; along a closed walk over all its edges (odd nodes joined to one of two extra nodes first) lefts and rights
    alternate, so that each node has as many of one as of the other.
    """
    nodes = [(("item", item), ("rater", rater)) for item, rater in edges]
    degree = Counter(node for edge in nodes for node in edge)
    odd = [node for node, count in degree.items() if count % 2]
    extra = [(node, ("rater", -1)) if node[0] == "item" else (("item", -1), node) for node in odd]
    if sum(node[0] == "item" for node in odd) % 2:
        extra.append((("item", -1), ("rater", -1)))
    everything = [*nodes, *extra]
    ends: dict[Hashable, list[int]] = defaultdict(list)
    for place in rng.permutation(len(everything)):
        for node in everything[place]:
            ends[node].append(int(place))
    left: dict[int, bool] = {}
    for start in range(len(everything)):
        if start not in left:
            first = bool(rng.integers(2))
            for step, place in enumerate(_closed_walk(everything, ends, left, everything[start][0])):
                left[place] = (step % 2 == 0) == first
    return [left[place] for place in range(len(edges))]


def _closed_walk(
    edges: Sequence[tuple[Hashable, Hashable]],
    ends: dict[Hashable, list[int]],
    used: Iterable[int],
    node: Hashable,
) -> list[int]:
    """Edges from ``node`` back to it, none used before or twice; where all degrees are even there is always one."""
    taken, walk, here = set(used), [], node
    while True:
        while ends[here] and ends[here][-1] in taken:
            ends[here].pop()
        if not ends[here]:
            return walk
        place = ends[here].pop()
        taken.add(place)
        walk.append(place)
        one, other = edges[place]
        here = other if here == one else one


def plan_lists(
    items: int, checks: int, raters: int, per_item: int, rng: np.random.Generator
) -> list[list[tuple[int, bool]]]:
    """Each rater's list: (place of the item among all, items before checks; whether its first picture is left).

    Items as assigned and all checks for every rater, in an order of each rater's own, checks spread out.
    """
    edges = [(i, r) for i, block in enumerate(assign_raters(items, raters, per_item, rng)) for r in block]
    edges += [(items + c, r) for c in range(checks) for r in range(raters)]
    left = dict(zip(edges, balanced_sides(edges, rng), strict=True))
    lists = []
    for rater in range(raters):
        own = [i for i, r in edges if r == rater and i < items]
        order = [own[place] for place in rng.permutation(len(own))]
        # One check somewhere in each of equal stretches: never two in a row by much, none foreseeable.
        for n, check in enumerate(rng.permutation(checks)):
            stretch = (len(own) + checks) / checks
            order.insert(min(len(order), int(stretch * (n + rng.random()))), items + int(check))
        lists.append([(i, left[i, rater]) for i in order])
    return lists
