"""Table 8: seconds of an iteration by method, in one interleaved run, and what SARS and TDW take of them.

The methods take turns, an iteration each, so that whatever else the machine does hits all of them alike; the first
round is left out. What SARS and TDW add is the filling of the credit table: advantages, bonus, weights, their sum.
"""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from cgrpo.build import make_policy, make_source
from cgrpo.config import Config, GroupConfig, override
from cgrpo.evaluation.show.table import DASH, Table, number
from cgrpo.reproduce.exhibits.base import Drawing, Exhibit, TableRuns
from cgrpo.rewards import make_rewards
from cgrpo.training.grpo.settings import GrpoConfig
from cgrpo.training.loop import Iteration, make_loop
from cgrpo.training.runtime import Runtime
from cgrpo.training.scoring import CreditTable

PAPER = {"SFT": 2.32, "naive GRPO 1:1": 291.28, "Customized-GRPO": 311.82}
BEYOND = {"SARS + TDW": "the same credit, forward process"}
ROUNDS = 5
CREDIT_TABLES = 50
PHASES = ("encode", "sample", "reward", "update")


@dataclass(frozen=True)
class Seconds:
    """Medians over rounds: of an iteration and its phases; of making the credit table, where there is one."""

    total: float
    phases: dict[str, float]
    credit: float | None


def draw(runs: TableRuns, path: Path) -> Drawing:
    """``count`` rounds. No picture."""
    configs = {row: runs.jobs("table2", row)[0].config for row in PAPER}
    configs |= {words: runs.jobs("rivals-forward", row)[0].config for row, words in BEYOND.items()}
    return Drawing([seconds_table(take_turns(configs, runs.count or ROUNDS), runs.world)])


def take_turns(configs: dict[str, Config], rounds: int) -> dict[str, Seconds]:
    """An iteration of each in turn, ``rounds`` times after a first that warms up.

    All train the adapter of one policy, which is what the first configuration says: what it learns is of no interest.
    """
    runtime, (first, *_) = Runtime(), configs.values()
    policy, rewards = make_policy(first, runtime.device), make_rewards(first.rewards, runtime.device)
    runs = {}
    for name, cfg in configs.items():
        cfg = override(cfg, [f"training.iterations={rounds + 1}"])
        runs[name] = make_loop(cfg, policy, rewards, make_source(cfg), runtime).run(0)
    iterations: dict[str, list[Iteration]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            iterations[name].append(next(run))
    return {name: _medians(configs[name], done[1:]) for name, done in iterations.items()}


def seconds_table(by_method: dict[str, Seconds], world: str) -> Table:
    rows = [
        [
            name,
            number(PAPER.get(name), 2),
            number(seconds.total, 3),
            *(number(seconds.phases.get(phase), 3) for phase in PHASES),
            DASH if seconds.credit is None else f"{1000 * seconds.credit:.2f}",
            DASH if seconds.credit is None else f"{100 * seconds.credit / seconds.total:.3f} %",
        ]
        for name, seconds in by_method.items()
    ]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    note = (
        f"Seconds of an iteration, medians over rounds in which methods take turns ({world}; {device}); the paper's "
        "are of 8 A100. Filling: of the whole credit table (advantages, bonus, weights, sum), and its share."
    )
    head = ["method", "paper, s", "s", *PHASES, "filling, ms", "share"]
    return Table("Seconds of an iteration (Table 8)", note, head, rows, "l" + "r" * (len(head) - 1))


def credit_seconds(cfg: GroupConfig) -> float:
    """Median seconds of making the weights and filling the table once, from scores of an iteration's shape."""
    shape = (cfg.training.prompts_per_iteration, cfg.training.group_size, len(cfg.rewards))
    scores_PGR = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    sigmas = torch.linspace(1, 0, cfg.sampling.steps + 1)
    kind, level = (cfg.sampling.kind, cfg.sampling.noise_level) if isinstance(cfg, GrpoConfig) else ("flow-grpo", 1.0)
    taken = []
    for _ in range(CREDIT_TABLES):
        start = time.perf_counter()
        CreditTable(cfg, list(cfg.rewards), sigmas, kind, level)(scores_PGR)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _medians(cfg: Config, done: list[Iteration]) -> Seconds:
    def median(key: str) -> float:
        return statistics.median(iteration.metrics[key] for iteration in done)

    phases = {phase: median(f"seconds/{phase}") for phase in PHASES if f"seconds/{phase}" in done[0].metrics}
    return Seconds(median("seconds/total"), phases, credit_seconds(cfg) if isinstance(cfg, GroupConfig) else None)


EXHIBIT = Exhibit("Seconds of an iteration", "Table 8", draw)
