"""Memory of one process by part: what is always there, and what each phase of an iteration adds."""

from __future__ import annotations

from dataclasses import dataclass

from cgrpo.config import Config, GroupConfig
from cgrpo.plan.policy import CountedPolicy
from cgrpo.plan.rewards import RewardModel, guard_models
from cgrpo.plan.work import Work, guidance, sharded
from cgrpo.policies.settings import Checkpointing
from cgrpo.training.forward.settings import ForwardConfig

GIB = 2**30
RESERVE_FLAT, RESERVE_SHARE = 1 * GIB, 0.03  # the driver and its libraries; pieces the allocator can't use


@dataclass(frozen=True)
class Part:
    """Something that takes memory, in bytes; None where that is unknown."""

    name: str
    size: int | None


@dataclass(frozen=True)
class Memory:
    """Of one process. ``always`` is there throughout, one of ``phases`` at a time on top of it.

    ``backward`` is the phase "update" under each checkpointing mode, all else equal.
    """

    always: tuple[Part, ...]
    phases: dict[str, tuple[Part, ...]]
    backward: dict[Checkpointing, int]
    unknown: tuple[str, ...]

    @property
    def resident(self) -> int:
        return total(self.always)

    @property
    def busiest(self) -> str:
        return max(self.phases, key=lambda name: total(self.phases[name]))

    @property
    def reserve(self) -> int:
        return RESERVE_FLAT + int(RESERVE_SHARE * (self.resident + total(self.phases[self.busiest])))

    @property
    def peak(self) -> int:
        return self.resident + total(self.phases[self.busiest]) + self.reserve


def total(parts: tuple[Part, ...]) -> int:
    return sum(part.size or 0 for part in parts)


def estimate_memory(cfg: Config, policy: CountedPolicy, rewards: list[RewardModel], work: Work, gpus: int) -> Memory:
    """The phases are those of an iteration; a method that draws no samples has fewer."""
    guards = guard_models(cfg)
    adapter = policy.trained * bytes_of_adapter(cfg)
    texts = sum(size for name, size in policy.parameters.items() if name.endswith("text encoder"))
    text = texts * bytes_of_base(cfg) if not cfg.data.cache else 0
    vae = policy.parameters["autoencoder"] * bytes_of_adapter(cfg)
    always = [
        Part("transformer", _transformer(cfg, policy, gpus)),
        Part("adapter", adapter),
        Part("optimizer (two moments)", 2 * adapter),
        *((Part("adapter's average", adapter),) if cfg.training.average else ()),
        *((Part("old policy's adapter", adapter),) if isinstance(cfg, ForwardConfig) and cfg.objective.old else ()),
        *(Part(f"reward {model.reward}: {model.model}", model.memory) for model in rewards if not model.offload),
        *(Part(f"guard {model.reward}: {model.model}", model.memory) for model in guards if not model.offload),
    ]
    encoders = [Part("text encoders", text), Part("autoencoder", vae)]
    if not cfg.policy.offload:
        always += encoders
    if cfg.policy.start and cfg.policy.start_mode == "continue":
        always.append(Part("frozen starting adapter", adapter))
    modes: tuple[Checkpointing, ...] = ("off", "selective", "full")
    updates: dict[Checkpointing, tuple[Part, ...]] = {mode: _update(cfg, policy, work, mode) for mode in modes}
    phases = {
        "encode": (Part("largest idle model, brought in", max(text, vae)),) if cfg.policy.offload else (),
        "update": updates[cfg.policy.checkpointing],
        # AdamW forms its denominators for all parameters at once; processes exchange gradients as one vector, and
        # the sum arrives beside it.
        "step": (Part("gradients", adapter), Part("exchange and step", adapter if gpus == 1 else 2 * adapter)),
    }
    if work.sampling_batch:
        phases |= _sampling(cfg, policy, work, vae if cfg.policy.offload else 0)
        together = work.samples if isinstance(cfg, GroupConfig) else work.sampling_batch
        phases["reward"] = (
            Part("largest offloaded reward, brought in", _brought_in([*rewards, *guards])),
            Part("a reward's model at work", max((m.work * min(together, m.chunk) for m in rewards), default=0)),
        )
    unknown = tuple(f"reward {m.reward}: {m.model}" for m in rewards if m.memory is None)
    backward: dict[Checkpointing, int] = {mode: total(parts) for mode, parts in updates.items()}
    return Memory(tuple(always), phases, backward, unknown)


def _brought_in(models: list[RewardModel]) -> int:
    sizes: dict[str, int] = {}
    for model in models:
        if model.offload:
            sizes[model.reward] = sizes.get(model.reward, 0) + (model.memory or 0)
    return max(sizes.values(), default=0)


def bytes_of_adapter(cfg: Config) -> int:
    """Bytes of a number in adapter and autoencoder: float32 unless the base is finer."""
    return 8 if cfg.policy.dtype == "float64" else 4


def bytes_of_base(cfg: Config) -> int:
    """Bytes of a number in the frozen base and the text encoders."""
    return 2 if cfg.policy.dtype == "bfloat16" else bytes_of_adapter(cfg)


def _transformer(cfg: Config, policy: CountedPolicy, gpus: int) -> int:
    """The frozen base. FSDP2 shards the blocks; one is whole while it computes, and the next while it is fetched."""
    saved = bytes_of_base(cfg) - 1 if cfg.policy.quantise == "int8" else 0
    sizes = [block.parameters * bytes_of_base(cfg) - block.matrices * saved for block in policy.blocks]
    ends = (policy.parameters["transformer"] - sum(block.parameters for block in policy.blocks)) * bytes_of_base(cfg)
    if sharded(cfg, gpus):
        return ends + -(-sum(sizes) // gpus) + 2 * max(sizes)
    return ends + sum(sizes)


def _update(cfg: Config, policy: CountedPolicy, work: Work, mode: Checkpointing) -> tuple[Part, ...]:
    """A forward-backward of one micro-batch, on gradients that others have left."""
    counted = policy.activations(work.micro_batch * guidance(cfg, policy).together, mode)
    return (
        Part("gradients", policy.trained * bytes_of_adapter(cfg)),
        Part(f"activations, checkpointing {mode}", counted.kept),
        Part("blocks and the adapter's copies at work", counted.at_work),
        _trace(cfg, policy, work),
    )


def _sampling(cfg: Config, policy: CountedPolicy, work: Work, vae: int) -> dict[str, tuple[Part, ...]]:
    """Drawing the samples and decoding them. ``vae``: bytes of an autoencoder that is only now brought in."""
    trace = _trace(cfg, policy, work)
    decoded = policy.decode.at_work * (bytes_of_adapter(cfg) // 4) * work.decode_batch
    return {
        "sample": (
            Part("a block at work", policy.sampling(work.sampling_batch * guidance(cfg, policy).together)),
            Part("adapter's copy in bfloat16", policy.trained * policy.copied),
            trace,
        ),
        "decode": (Part("autoencoder, brought in", vae), Part("decoder at work", decoded), trace),
    }


def _trace(cfg: Config, policy: CountedPolicy, work: Work) -> Part:
    """What will be trained (before and after each transition, noise and old velocity of each level); conditions."""
    kept = work.pairs if isinstance(cfg, GroupConfig) else 0
    transitions = 2 * kept * policy.tokens.target * policy.channels * bytes_of_adapter(cfg)
    return Part(
        "transitions and conditions", transitions + work.samples * policy.condition_numbers * bytes_of_base(cfg)
    )
