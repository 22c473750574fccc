"""What one process does in one iteration: counts, and operations by part."""

from __future__ import annotations

from dataclasses import dataclass

from cgrpo.config import Config
from cgrpo.errors import UserError
from cgrpo.plan.policy import CountedPolicy, count_policy
from cgrpo.plan.rewards import RewardModel
from cgrpo.training.forward.settings import ForwardConfig
from cgrpo.training.grpo.settings import GrpoConfig
from cgrpo.training.preference.settings import PreferenceConfig
from cgrpo.training.sft.settings import SftConfig


@dataclass(frozen=True)
class Work:
    """Of one process in one iteration. ``operations``: by part, in floating-point operations."""

    samples: int
    sampling_forwards: int
    sampling_calls: int  # of the velocity: each samples a batch
    pairs: int  # (sample, step) pairs or supervised pairs that are trained
    passes: float  # forward-backwards on average: a group's pairs at its shared first step share one
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
    """Steps before a sliding window, on average over its positions: the first stochastic step comes after them."""
    window, last = cfg.sampling.window, cfg.sampling.steps - 1 - cfg.sampling.window.size
    if window.type != "sliding":
        return 0.0
    starts = [min(start, last) for start in range(0, last + window.stride, window.stride)]
    return sum(starts) / len(starts)


def shared_pairs(cfg: GrpoConfig) -> float:
    """Pairs of a prompt that need no pass of their own, on average.

    At the first stochastic step the samples of a group are still equal, and an update evaluates those it trains once.
    """
    updates, each = cfg.training.updates_per_rollout, cfg.training.group_size // cfg.training.updates_per_rollout
    trained = trained_steps(cfg) / (cfg.sampling.steps - 1) if cfg.sampling.window.type == "fraction" else 1.0
    return updates * (each * trained - (1 - (1 - trained) ** each))


def estimate_work(cfg: Config, policy: CountedPolicy, rewards: list[RewardModel], gpus: int) -> Work:
    """Raises UserError where the tasks can't be dealt evenly to the GPUs."""
    tasks, key = cfg.share()
    if tasks % gpus:
        more = -(-tasks // gpus) * gpus
        raise UserError(f"{key} ({tasks}) must be divisible by the number of GPUs ({gpus})", f"--set {key}={more}")
    match cfg:
        case GrpoConfig() | ForwardConfig():
            return _groups(cfg, policy, rewards, tasks // gpus, sharded(cfg, gpus))
        case SftConfig():
            return _sft(cfg, policy, tasks // gpus)
        case PreferenceConfig():
            return _preference(cfg, policy, rewards, tasks // gpus, gpus)
    raise UserError(f"method {cfg.method!r}: only the methods of this package can be planned")


def _groups(
    cfg: GrpoConfig | ForwardConfig, policy: CountedPolicy, rewards: list[RewardModel], prompts: int, one_by_one: bool
) -> Work:
    settings, group = cfg.training, cfg.training.group_size
    samples = prompts * group
    if isinstance(cfg, GrpoConfig):
        steps, trained, together, shared = (
            cfg.sampling.steps,
            trained_steps(cfg),
            1 + lead_steps(cfg),
            shared_pairs(cfg),
        )
    else:
        steps, trained, together, shared = cfg.sampling.rollout_steps, cfg.objective.levels, 0.0, 0.0
    followed = round(samples * (steps - together) + prompts * together)
    forwards, pairs = followed * guidance(cfg, policy).forwards, samples * trained
    passes = pairs - prompts * shared
    # A sharded base shares a prefix in the rollout alone.
    prefixes = -(-pairs // int(settings.micro_batch)) if one_by_one else prompts * settings.updates_per_rollout
    operations = {
        "sampling": forwards * policy.operations.forward,
        **_training(cfg, policy, passes),
        **_prefixes(cfg, policy, prefixes, prompts),
        **_old_policy(cfg, policy, pairs),
        **_reference_policy(cfg, policy, passes),
        "text encoders": _text(cfg, policy, prompts),
        "autoencoder": samples * policy.decode.operations + _references(cfg, policy, prompts),
        "rewards": samples * sum(model.operations or 0 for model in rewards),
    }
    # A sharded base samples one prompt at a time, so that all processes make equally many forwards; so does one whose
    # prompt is shared.
    batch = (
        group
        if one_by_one or policy.family.has_prefix
        else min(samples, max(group, int(cfg.sampling.batch) // group * group))
    )
    return Work(
        samples=samples,
        sampling_forwards=forwards,
        sampling_calls=steps * -(-samples // batch),
        pairs=pairs,
        passes=passes,
        updates=settings.updates_per_rollout,
        micro_batch=min(int(settings.micro_batch), batch * trained // settings.updates_per_rollout),
        sampling_batch=batch,
        decode_batch=min(batch, policy.decoded_at_once),
        operations=operations,
    )


def _sft(cfg: SftConfig, policy: CountedPolicy, pairs: int) -> Work:
    operations = {
        **_training(cfg, policy, pairs),
        **_prefixes(cfg, policy, pairs),
        "text encoders": _text(cfg, policy, pairs),
        "autoencoder": pairs * policy.encode_picture + _references(cfg, policy, pairs),
    }
    micro = min(int(cfg.training.micro_batch), pairs)
    return Work(pairs, 0, 0, pairs, pairs, 1, micro, 0, 0, operations)


def _preference(
    cfg: PreferenceConfig, policy: CountedPolicy, rewards: list[RewardModel], pairs: int, gpus: int
) -> Work:
    """Winner and loser, and the reference for the similarity loss; the frozen policy sees the first two."""
    settings = cfg.preference
    sides = 3 if settings.similarity else 2
    operations = {
        **_training(cfg, policy, sides * pairs),
        **_prefixes(cfg, policy, sides * pairs),
        "reference policy": 2 * pairs * policy.base,
        "text encoders": _text(cfg, policy, pairs),
        "autoencoder": sides * pairs * policy.encode_picture + _references(cfg, policy, pairs),
    }
    micro = min(max(sides, int(cfg.training.micro_batch) // sides * sides), sides * pairs)
    if settings.pairs:
        return Work(pairs, 0, 0, sides * pairs, sides * pairs, 1, micro, 0, 0, operations)
    operations["making pairs, over the run"] = _making_pairs(cfg, policy, rewards, gpus)
    batch = cfg.evaluation.batch
    return Work(
        pairs, 0, 0, sides * pairs, sides * pairs, 1, micro, batch, min(batch, policy.decoded_at_once), operations
    )


def _making_pairs(cfg: PreferenceConfig, policy: CountedPolicy, rewards: list[RewardModel], gpus: int) -> float:
    """Of one process, spread evenly over the iterations; without references, and scored by the main process alone."""
    settings = cfg.preference
    picture = cfg.sampling.steps * count_policy(cfg.policy, 0).base + policy.decode.operations
    pictures = settings.tasks * settings.candidates
    scoring = sum(model.operations or 0 for model in rewards)
    return (pictures * (picture / gpus + scoring) + _text(cfg, policy, pictures)) / max(1, cfg.training.iterations)


def _training(cfg: Config, policy: CountedPolicy, passes: float) -> dict[str, float]:
    counted, times = policy.operations, guidance(cfg, policy)
    again = counted.again[cfg.policy.checkpointing]
    return {
        "training, forward": passes * times.forwards * counted.forward,
        "training, backward": passes * times.together * counted.backward,
        **({"training, computed again": passes * times.together * again} if again else {}),
    }


def _prefixes(cfg: Config, policy: CountedPolicy, trained: int, sampled: int = 0) -> dict[str, float]:
    """What samples share: ``trained`` forwards and backwards of it, and ``sampled`` forwards."""
    prefix, times = policy.prefix, guidance(cfg, policy)
    if not prefix.forward:
        return {}
    frozen = prefix.base if isinstance(cfg, GrpoConfig | ForwardConfig) and cfg.objective.kl > 0 else 0
    forwards = (trained + sampled) * prefix.forward + trained * frozen
    backwards = trained * (prefix.backward + prefix.again[cfg.policy.checkpointing])
    return {"text and references of a prompt": times.forwards * forwards + times.together * backwards}


@dataclass(frozen=True)
class Guidance:
    """What a velocity takes while training: ``forwards`` of the transformer, ``together`` of them in one batch, and
    with a backward."""

    forwards: int
    together: int


def guidance(cfg: Config, policy: CountedPolicy) -> Guidance:
    """A negative prompt doubles what is computed, unless the scale is 1."""
    if not policy.negative or cfg.policy.guidance == 1:
        return Guidance(1, 1)
    return Guidance(2, 1 if cfg.policy.guidance_gradient == "conditional" else 2)


def heldout_forwards(cfg: Config, policy: CountedPolicy) -> int:
    """Forwards of the transformer that a velocity takes while evaluating."""
    scale = cfg.policy.evaluation_guidance or cfg.policy.guidance
    return 2 if policy.negative and scale != 1 else 1


def _old_policy(cfg: GrpoConfig | ForwardConfig, policy: CountedPolicy, pairs: int) -> dict[str, float]:
    """On the forward process the old policy sees the pairs, too: the first update's only where it is another policy."""
    if isinstance(cfg, GrpoConfig):
        return {}
    updates = cfg.training.updates_per_rollout
    seen = pairs if cfg.objective.old else pairs * (updates - 1) // updates
    return {"old policy": seen * guidance(cfg, policy).forwards * policy.operations.forward}


def _reference_policy(cfg: GrpoConfig | ForwardConfig, policy: CountedPolicy, passes: float) -> dict[str, float]:
    """The reference policy is the base, or the frozen adapter that training started from."""
    if cfg.objective.kl == 0:
        return {}
    starts = cfg.policy.start and cfg.policy.start_mode == "continue"
    forward = policy.operations.forward if starts else policy.base
    return {"reference policy (kl)": passes * guidance(cfg, policy).forwards * forward}


def _text(cfg: Config, policy: CountedPolicy, prompts: int) -> float:
    negative = guidance(cfg, policy).forwards - 1
    return 0.0 if cfg.data.cache else (prompts + negative) * policy.text_operations


def _references(cfg: Config, policy: CountedPolicy, tasks: int) -> float:
    return 0.0 if cfg.data.cache else tasks * policy.encode_references


def sharded(cfg: Config, gpus: int) -> bool:
    """Whether the base's blocks are spread over the processes."""
    return cfg.training.parallel == "fsdp2" and gpus > 1
