"""A plan of a run: what it takes, without loading any weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

from cgrpo.config import Config, GroupConfig, override, with_batches
from cgrpo.errors import UserError
from cgrpo.plan.count import Tokens
from cgrpo.plan.gpus import Gpu, find_gpu
from cgrpo.plan.measured import ASSUMED
from cgrpo.plan.measured import utilisation as measured_utilisation
from cgrpo.plan.memory import GIB, Memory, bytes_of_adapter, bytes_of_base, estimate_memory, total
from cgrpo.plan.policy import CountedPolicy, count_policy
from cgrpo.plan.rewards import RewardModel, has_guard, reward_models
from cgrpo.plan.scale import REACHED, SPREAD, Scale, estimate_scale
from cgrpo.plan.work import Work, estimate_work, heldout_forwards, sharded


@dataclass(frozen=True)
class Plan:
    """Parameters and tokens of the models; work, time and memory of one process, one GPU each.

    ``advice``: settings (``key=value``) to change together so that it fits; None where no change does, empty
    where none is needed.
    """

    method: str
    gpu: Gpu
    gpus: int
    utilisation: float
    measured: bool  # whether the utilisation comes from figures of this GPU
    iterations: int
    tokens: Tokens
    parameters: dict[str, int | None]
    trained: int
    work: Work
    scale: Scale
    memory: Memory
    advice: tuple[str, ...] | None
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Of one iteration."""
        return self.work.total / (self.gpu.tflops * 1e12 * self.utilisation) + self.scale.seconds

    @property
    def samples_per_gpu_hour(self) -> float:
        return 3600 * self.work.samples / self.seconds

    @property
    def hours(self) -> float:
        """Of the whole run."""
        return self.seconds * self.iterations / 3600

    @property
    def latency_bound(self) -> bool:
        """Whether there is too little work for a GPU's peak to tell the time: starting kernels takes longer."""
        return self.seconds < 1

    @property
    def fits(self) -> bool:
        return _fits(self.memory, self.gpu)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, texts, lists and tables: sizes in bytes, operations of one process in one iteration."""
        memory = asdict(self.memory)
        for name in ("resident", "busiest", "reserve", "peak"):
            memory[name] = vars(Memory)[name].fget(self.memory)
        memory["phase_totals"] = {name: total(parts) for name, parts in self.memory.phases.items()}
        return asdict(self) | {
            "memory": memory,
            "operations_total": self.work.total,
            "seconds_per_iteration": self.seconds,
            "samples_per_gpu_hour": self.samples_per_gpu_hour,
            "hours": self.hours,
            "latency_bound": self.latency_bound,
            "fits": self.fits,
        }


def plan(
    cfg: Config,
    *,
    gpu: str = "a100-80gb",
    gpus: int = 1,
    utilisation: float | None = None,
    references: int | None = None,
    tflops: float | None = None,
    memory: float | None = None,
) -> Plan:
    """What the run that ``cfg`` describes takes on ``gpus`` GPUs of one kind. Loads no weights.

    gpu           a name from ``GPUS``, or any where ``tflops`` (10^12 per second) and ``memory`` (GiB) are given
    utilisation   share of the GPU's peak that is reached on average over an iteration; None: as measured on that GPU,
                  or 0.4 where it was not
    references    pictures per task, taken to be square; None: as many as weights.subjects

    Raises UserError for an unknown GPU, numbers out of range, tasks that can't be dealt evenly to the GPUs, and
    local checkpoint folders that can't be read.
    """
    if utilisation is not None and not 0 < utilisation <= 1:
        raise UserError(f"utilisation {utilisation}: must be above 0 and at most 1")
    if references is None:
        references = cfg.weights.subjects if isinstance(cfg, GroupConfig) else 1
    if gpus < 1 or references < 0:
        raise UserError(f"{gpus} GPUs, {references} references: give at least 1 GPU and no negative numbers")
    kind, cfg = find_gpu(gpu, tflops, memory), with_batches(cfg)
    policy, rewards = count_policy(cfg.policy, references, int(cfg.training.micro_batch)), reward_models(cfg.rewards)
    work = estimate_work(cfg, policy, rewards, gpus)
    needed = estimate_memory(cfg, policy, rewards, work, gpus)
    measured = measured_utilisation(kind.name, cfg, work) if utilisation is None else None
    reached = utilisation or measured or ASSUMED
    rate, spread = kind.tflops * 1e12 * reached, sharded(cfg, gpus)
    bytes_each = bytes_of_adapter(cfg), bytes_of_base(cfg)
    return Plan(
        method=cfg.method,
        gpu=kind,
        gpus=gpus,
        utilisation=reached,
        measured=measured is not None,
        iterations=cfg.training.iterations,
        tokens=policy.tokens,
        parameters=policy.parameters | {f"reward {m.reward}: {m.model}": m.parameters for m in rewards},
        trained=policy.trained,
        work=work,
        scale=estimate_scale(work, policy, kind, gpus, *bytes_each, rate, sharded=spread),
        memory=needed,
        advice=() if _fits(needed, kind) else _advice(cfg, policy, rewards, kind, gpus),
        notes=_notes(cfg, policy, rewards, gpus),
    )


def _fits(memory: Memory, gpu: Gpu) -> bool:
    return memory.peak <= gpu.memory * GIB


def _advice(
    cfg: Config, policy: CountedPolicy, rewards: list[RewardModel], gpu: Gpu, gpus: int
) -> tuple[str, ...] | None:
    """The first single change that makes it fit; else the fewest of them, taken in order; else None."""
    changes = _changes(cfg, gpus)
    single = [(change,) for change in changes]
    if cfg.policy.checkpointing == "off":
        single = [("policy.checkpointing=selective",), *single]
    together = list(accumulate(((change,) for change in changes), lambda done, new: done + new))
    for settings in [*single, *together]:
        changed = override(cfg, settings)
        work = estimate_work(changed, policy, rewards, gpus)
        if _fits(estimate_memory(changed, policy, rewards, work, gpus), gpu):
            return settings
    return None


def _changes(cfg: Config, gpus: int) -> list[str]:
    """Settings that save memory without changing the result, the cheapest in time first."""
    changes = []
    if cfg.policy.checkpointing != "full":
        changes.append("policy.checkpointing=full")
    if not cfg.policy.offload:
        changes.append("policy.offload=true")
    if gpus > 1 and cfg.training.parallel != "fsdp2":
        changes.append("training.parallel=fsdp2")
    if int(cfg.training.micro_batch) > 1:
        changes.append("training.micro_batch=1")
    if isinstance(cfg, GroupConfig) and int(cfg.sampling.batch) > cfg.training.group_size:
        changes.append(f"sampling.batch={cfg.training.group_size}")
    return changes


def _notes(cfg: Config, policy: CountedPolicy, rewards: list[RewardModel], gpus: int) -> tuple[str, ...]:
    notes = list(policy.assumed)
    if cfg.policy.start and cfg.policy.start_mode == "continue":
        notes.append(f"the rank of {cfg.policy.start!r} is assumed to be policy.rank ({cfg.policy.rank})")
    for model in rewards:
        if model.parameters is None:
            notes.append(f"reward {model.reward} ({model.model}): parameters and operations unknown, not counted")
    notes.append(
        "time counts matrix products and convolutions at the stated utilisation; not moving offloaded models, "
        "checkpoints, or the comparison after the run"
    )
    if gpus > 1:
        notes.append(
            f"exchange is at {REACHED:.0%} of the links' data sheets; waiting is simulated with GPUs whose speeds "
            f"differ by {SPREAD:.0%} (standard deviation) among each other and from phase to phase; not measured"
        )
    guard = cfg.guard
    if has_guard(cfg):
        notes.append(
            f"the held-out guard's time is not counted: every {guard.every} iterations {guard.tasks} x "
            f"{cfg.sampling.steps * heldout_forwards(cfg, policy)} forwards over all GPUs together; the memory of its "
            "own scorers is"
        )
    notes.append(
        "loading puts nothing on a GPU that is not there afterwards: models are read, and quantised, on the CPU"
    )
    notes.append("the reserve (1 GiB and 3 %) stands for the driver, its libraries, and memory in unusable pieces")
    if cfg.policy.compile:
        notes.append("policy.compile is not counted: fused operations keep and move less")
    return tuple(notes)
