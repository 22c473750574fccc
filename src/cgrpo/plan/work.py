"""What one process does in one iteration: counts, and operations by part."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cgrpo.config import Config, ForwardConfig, GrpoConfig, PreferenceConfig, SftConfig
from cgrpo.errors import UserError
from cgrpo.plan import flops
from cgrpo.plan.rewards import RewardModel
from cgrpo.plan.shapes import Shapes
from cgrpo.plan.transformer import Tokens

PIXELS_AT_ONCE = 2**20  # of one call of the autoencoder; one picture at least


@dataclass(frozen=True)
class Work:
    """Of one process in one iteration. ``operations``: by part, in floating-point operations."""

    samples: int
    sampling_forwards: int
    pairs: int  # (sample, step) pairs or supervised pairs: one forward-backward each
    updates: int
    micro_batch: int
    sampling_batch: int
    decode_batch: int
    operations: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.operations.values())


def trained_steps(cfg: GrpoConfig) -> int:
    """Steps of each sample that enter the objective."""
    steps, window = cfg.sampling.steps, cfg.sampling.window
    counts = {"all": steps - 1, "fraction": max(1, int(window.fraction * (steps - 1))), "sliding": window.size}
    return counts[window.type]


def lead_steps(cfg: GrpoConfig) -> float:
    """Steps before a sliding window, on average over its positions: a group takes them once."""
    window, last = cfg.sampling.window, cfg.sampling.steps - 1 - cfg.sampling.window.size
    if window.type != "sliding":
        return 0.0
    starts = [min(start, last) for start in range(0, last + window.stride, window.stride)]
    return sum(starts) / len(starts)


def estimate_work(cfg: Config, shapes: Shapes, tokens: Tokens, rewards: list[RewardModel], gpus: int) -> Work:
    """Raises UserError where the tasks can't be dealt evenly to the GPUs."""
    tasks, key = cfg.share()
    if tasks % gpus:
        raise UserError(f"{key} ({tasks}) must be divisible by the number of GPUs ({gpus})")
    match cfg:
        case GrpoConfig() | ForwardConfig():
            return _groups(cfg, shapes, tokens, rewards, tasks // gpus, sharded(cfg, gpus))
        case SftConfig():
            return _sft(cfg, shapes, tokens, tasks // gpus)
        case PreferenceConfig():
            return _preference(cfg, shapes, tokens, rewards, tasks // gpus, gpus)


def _groups(
    cfg: GrpoConfig | ForwardConfig,
    shapes: Shapes,
    tokens: Tokens,
    rewards: list[RewardModel],
    prompts: int,
    one_by_one: bool,
) -> Work:
    settings, group = cfg.training, cfg.training.group_size
    samples = prompts * group
    if isinstance(cfg, GrpoConfig):
        steps, trained, lead = cfg.sampling.steps, trained_steps(cfg), lead_steps(cfg)
    else:
        steps, trained, lead = cfg.sampling.rollout_steps, cfg.objective.levels, 0.0
    followed = round(samples * (steps - lead) + prompts * lead)
    forwards, pairs = followed * guidance(cfg, shapes).forwards, samples * trained
    pixels = cfg.policy.height * cfg.policy.width
    operations = {
        "sampling": forwards * flops.forward(shapes.flux, tokens, cfg.policy.rank).total,
        **_training(cfg, shapes, tokens, pairs),
        **_old_policy(cfg, shapes, tokens, pairs),
        **_reference_policy(cfg, shapes, tokens, pairs),
        "text encoders": _text(cfg, shapes, prompts),
        "autoencoder": samples * shapes.vae.decode_flops(pixels) + _references(cfg, shapes, tokens, prompts),
        "rewards": samples * sum(model.flops or 0.0 for model in rewards),
    }
    # A sharded base samples one prompt at a time, so that all processes make equally many forwards.
    together = group if one_by_one else min(samples, max(group, cfg.sampling.batch // group * group))
    return Work(
        samples=samples,
        sampling_forwards=forwards,
        pairs=pairs,
        updates=settings.updates_per_rollout,
        micro_batch=min(settings.micro_batch, together * trained // settings.updates_per_rollout),
        sampling_batch=together,
        decode_batch=min(together, 64, max(1, PIXELS_AT_ONCE // pixels)),
        operations=operations,
    )


def _sft(cfg: SftConfig, shapes: Shapes, tokens: Tokens, pairs: int) -> Work:
    targets = pairs * shapes.vae.encode_flops(cfg.policy.height * cfg.policy.width)
    operations = {
        **_training(cfg, shapes, tokens, pairs),
        "text encoders": _text(cfg, shapes, pairs),
        "autoencoder": targets + _references(cfg, shapes, tokens, pairs),
    }
    micro = min(cfg.training.micro_batch, pairs)
    return Work(pairs, 0, pairs, 1, micro, 0, 0, operations)


def _preference(
    cfg: PreferenceConfig, shapes: Shapes, tokens: Tokens, rewards: list[RewardModel], pairs: int, gpus: int
) -> Work:
    """Winner and loser, and the reference for the similarity loss; the frozen policy sees the first two."""
    settings = cfg.preference
    sides = 3 if settings.similarity else 2
    encoded = sides * pairs * shapes.vae.encode_flops(cfg.policy.height * cfg.policy.width)
    operations = {
        **_training(cfg, shapes, tokens, sides * pairs),
        "reference policy": 2 * pairs * flops.forward(shapes.flux, tokens, 0).total,
        "text encoders": _text(cfg, shapes, pairs),
        "autoencoder": encoded + _references(cfg, shapes, tokens, pairs),
    }
    micro = min(max(sides, cfg.training.micro_batch // sides * sides), sides * pairs)
    pixels = cfg.policy.height * cfg.policy.width
    if settings.pairs:
        return Work(pairs, 0, sides * pairs, 1, micro, 0, 0, operations)
    operations["making pairs, over the run"] = _making_pairs(cfg, shapes, tokens, rewards, gpus)
    decoded = min(cfg.evaluation.batch, 64, max(1, PIXELS_AT_ONCE // pixels))
    return Work(pairs, 0, sides * pairs, 1, micro, cfg.evaluation.batch, decoded, operations)


def _making_pairs(
    cfg: PreferenceConfig, shapes: Shapes, tokens: Tokens, rewards: list[RewardModel], gpus: int
) -> float:
    """Of one process, spread evenly over the iterations; without references, and scored by the main process alone."""
    settings, pixels = cfg.preference, cfg.policy.height * cfg.policy.width
    alone = replace(tokens, references=0)
    picture = cfg.sampling.steps * flops.forward(shapes.flux, alone, 0).total + shapes.vae.decode_flops(pixels)
    made = settings.tasks * settings.candidates
    whole = made * (picture / gpus + sum(model.flops or 0.0 for model in rewards)) + _text(cfg, shapes, made)
    return whole / max(1, cfg.training.iterations)


def _training(cfg: Config, shapes: Shapes, tokens: Tokens, pairs: int) -> dict[str, float]:
    flux, rank, times = shapes.flux, cfg.policy.rank, guidance(cfg, shapes)
    found = {
        "training, forward": pairs * times.forwards * flops.forward(flux, tokens, rank).total,
        "training, backward": pairs * times.together * flops.backward(flux, tokens, rank).total,
    }
    again = flops.blocks_forward(flux, tokens, rank)
    if cfg.policy.checkpointing != "off":
        repeated = again.total if cfg.policy.checkpointing == "full" else again.lora
        found["training, computed again"] = pairs * times.together * repeated
    return found


@dataclass(frozen=True)
class Guidance:
    """What a velocity takes while training: ``forwards`` of the transformer, ``together`` of them in one batch, and
    with a backward."""

    forwards: int
    together: int


def guidance(cfg: Config, shapes: Shapes) -> Guidance:
    """A negative prompt doubles what is computed, unless the scale is 1."""
    if not shapes.negative or cfg.policy.guidance == 1:
        return Guidance(1, 1)
    return Guidance(2, 1 if cfg.policy.guidance_gradient == "conditional" else 2)


def heldout_forwards(cfg: Config, shapes: Shapes) -> int:
    """Forwards of the transformer that a velocity takes while evaluating."""
    return 2 if shapes.negative and (cfg.policy.evaluation_guidance or cfg.policy.guidance) != 1 else 1


def _old_policy(cfg: GrpoConfig | ForwardConfig, shapes: Shapes, tokens: Tokens, pairs: int) -> dict[str, float]:
    """On the forward process the old policy sees the pairs, too: the first update's only where it is another policy."""
    if isinstance(cfg, GrpoConfig):
        return {}
    updates = cfg.training.updates_per_rollout
    seen = pairs if cfg.objective.old else pairs * (updates - 1) // updates
    seen *= guidance(cfg, shapes).forwards
    return {"old policy": seen * flops.forward(shapes.flux, tokens, cfg.policy.rank).total}


def _reference_policy(cfg: GrpoConfig | ForwardConfig, shapes: Shapes, tokens: Tokens, pairs: int) -> dict[str, float]:
    """The reference policy is the base, or the frozen adapter that training started from."""
    if cfg.objective.kl == 0:
        return {}
    starts = cfg.policy.start and cfg.policy.start_mode == "continue"
    forward = flops.forward(shapes.flux, tokens, cfg.policy.rank if starts else 0)
    return {"reference policy (kl)": pairs * guidance(cfg, shapes).forwards * forward.total}


def _text(cfg: Config, shapes: Shapes, prompts: int) -> float:
    if cfg.data.cache:
        return 0.0
    negative = guidance(cfg, shapes).forwards - 1
    return (prompts + negative) * sum(text.flops for text in shapes.texts)


def _references(cfg: Config, shapes: Shapes, tokens: Tokens, tasks: int) -> float:
    """The references of all tasks as one picture of as many pixels: right for convolutions, which are nearly all."""
    if cfg.data.cache:
        return 0.0
    return tasks * shapes.vae.encode_flops(tokens.references * shapes.vae.pixels_per_token**2)


def sharded(cfg: Config, gpus: int) -> bool:
    """Whether the base's blocks are spread over the processes."""
    return cfg.training.parallel == "fsdp2" and gpus > 1
