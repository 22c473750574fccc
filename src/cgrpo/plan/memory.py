"""Memory of one process by part: what is always there, and what each phase of an iteration adds."""

from __future__ import annotations

from dataclasses import dataclass

from cgrpo.config import Config, ForwardConfig, GroupRun
from cgrpo.plan.activations import Activations, Checkpointing, Precision, activations
from cgrpo.plan.rewards import RewardModel, guard_models
from cgrpo.plan.shapes import Shapes
from cgrpo.plan.transformer import Tokens
from cgrpo.plan.work import Work, guidance, sharded

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


def estimate_memory(
    cfg: Config, shapes: Shapes, tokens: Tokens, rewards: list[RewardModel], work: Work, gpus: int
) -> Memory:
    """The phases are those of an iteration; a method that draws no samples has fewer."""
    precision = Precision.of(cfg.policy.dtype)
    adapter = shapes.flux.lora_parameters(cfg.policy.rank) * _master(cfg)
    text = sum(text.parameters for text in shapes.texts) * precision.main if not cfg.data.cache else 0
    vae = shapes.vae.parameters * _master(cfg)
    always = [
        Part("transformer", _transformer(cfg, shapes, precision, gpus)),
        Part("adapter", adapter),
        Part("optimizer (two moments)", 2 * adapter),
        *((Part("adapter's average", adapter),) if cfg.training.average else ()),
        *((Part("old policy's adapter", adapter),) if isinstance(cfg, ForwardConfig) and cfg.objective.old else ()),
        *_scorers(rewards, guard_models(cfg)),
    ]
    encoders = [Part("text encoders", text), Part("autoencoder", vae)]
    if not cfg.policy.offload:
        always += encoders
    if cfg.policy.start and cfg.policy.start_mode == "continue":
        always.append(Part("frozen starting adapter", adapter))
    modes: tuple[Checkpointing, ...] = ("off", "selective", "full")
    updates: dict[Checkpointing, tuple[Part, ...]] = {
        mode: _update(cfg, shapes, tokens, work, precision, mode) for mode in modes
    }
    phases = {
        "encode": (Part("largest idle model, brought in", max(text, vae)),) if cfg.policy.offload else (),
        "update": updates[cfg.policy.checkpointing],
        # AdamW forms its denominators for all parameters at once; processes exchange gradients as one vector, and
        # the sum arrives beside it.
        "step": (Part("gradients", adapter), Part("exchange and step", adapter if gpus == 1 else 2 * adapter)),
    }
    if work.sampling_batch:
        phases |= _sampling(cfg, shapes, tokens, work, precision, vae if cfg.policy.offload else 0)
        together = work.samples if isinstance(cfg, GroupRun) else work.sampling_batch
        most = max((model.work * min(together, model.chunk) for model in rewards), default=0)
        phases["reward"] = (
            Part("largest offloaded reward, brought in", _brought_in([*rewards, *guard_models(cfg)])),
            Part("a segmenter's attention at work (rough)", most),
        )
    unknown = tuple(f"reward {m.reward}: {m.model}" for m in rewards if m.memory is None)
    backward: dict[Checkpointing, int] = {mode: total(parts) for mode, parts in updates.items()}
    return Memory(tuple(always), phases, backward, unknown)


def _scorers(rewards: list[RewardModel], guards: list[RewardModel]) -> list[Part]:
    """The models of rewards and of the guard's scorers that are on the GPU throughout."""
    named = [(f"reward {m.reward}: {m.model}", m) for m in rewards] + [
        (f"guard {m.reward}: {m.model}", m) for m in guards
    ]
    return [Part(name, model.memory) for name, model in named if not model.offload]


def _brought_in(models: list[RewardModel]) -> int:
    sizes: dict[str, int] = {}
    for model in models:
        if model.offload:
            sizes[model.reward] = sizes.get(model.reward, 0) + (model.memory or 0)
    return max(sizes.values(), default=0)


def _master(cfg: Config) -> int:
    """Bytes of a number in adapter and autoencoder: float32 unless the base is finer."""
    return 8 if cfg.policy.dtype == "float64" else 4


def _transformer(cfg: Config, shapes: Shapes, precision: Precision, gpus: int) -> int:
    """The frozen base. FSDP2 shards the blocks; one is whole while it computes, and the next while it is fetched."""
    sizes = [
        block.parameters * precision.main
        - (block.matrix_parameters * (precision.main - 1) if cfg.policy.quantise == "int8" else 0)
        for block in shapes.flux.blocks
    ]
    ends = shapes.flux.end_parameters * precision.main
    if sharded(cfg, gpus):
        return ends + -(-sum(sizes) // gpus) + 2 * max(sizes)
    return ends + sum(sizes)


def _update(
    cfg: Config, shapes: Shapes, tokens: Tokens, work: Work, precision: Precision, mode: Checkpointing
) -> tuple[Part, ...]:
    """A forward-backward of one micro-batch, on gradients that others have left."""
    samples = work.micro_batch * guidance(cfg, shapes).together
    found: Activations = activations(shapes.flux, tokens, cfg.policy.rank, samples, mode, precision)
    # Unless kept, the copies are gone when the backward begins to need room of its own.
    copies = found.copies if found.copies_kept else max(0, found.copies - found.again - found.backward_work)
    return (
        Part("gradients", shapes.flux.lora_parameters(cfg.policy.rank) * _master(cfg)),
        Part(f"activations, checkpointing {mode}", found.kept),
        Part("one block computed again", found.again),
        Part("one block's gradients at work (rough)", found.backward_work),
        Part("adapter in bfloat16", copies),
        *_trace(cfg, shapes, tokens, work, precision),
    )


def _sampling(
    cfg: Config, shapes: Shapes, tokens: Tokens, work: Work, precision: Precision, vae: int
) -> dict[str, tuple[Part, ...]]:
    """Drawing the samples and decoding them. ``vae``: bytes of an autoencoder that is only now brought in."""
    flux, rank = shapes.flux, cfg.policy.rank
    samples = work.sampling_batch * guidance(cfg, shapes).together
    at_work = activations(flux, tokens, rank, samples, "off", precision).forward_work
    copies = flux.lora_parameters(rank) * precision.main if precision.autocast else 0
    pixels = cfg.policy.height * cfg.policy.width
    trace = _trace(cfg, shapes, tokens, work, precision)
    decoded = shapes.vae.decode_memory(pixels, _master(cfg)) * work.decode_batch
    return {
        "sample": (
            Part("one block at work (rough)", at_work),
            Part("adapter in bfloat16", copies),
            *trace,
        ),
        "decode": (Part("autoencoder, brought in", vae), Part("decoder at work (rough)", decoded), *trace),
    }


def _trace(cfg: Config, shapes: Shapes, tokens: Tokens, work: Work, precision: Precision) -> tuple[Part, ...]:
    """What will be trained (before and after each transition, noise and old velocity of each level); conditions."""
    kept = work.pairs if isinstance(cfg, GroupRun) else 0
    transitions = 2 * kept * tokens.target * shapes.flux.in_channels * _master(cfg)
    row = tokens.text * shapes.flux.text_width + tokens.references * shapes.flux.in_channels
    return (Part("transitions and conditions", transitions + work.samples * row * precision.main),)
