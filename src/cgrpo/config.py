"""Every knob. Frozen, typed, unknown keys refused; the defaults are the vetted setting of the embedded world.

A recipe (TOML) states only differences from these defaults; ``--set dotted.key=value`` states more.
This module imports neither torch nor anything heavy.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cgrpo.errors import UserError

TOYBOX = "toybox"  # in place of a path: what the package carries

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Policy(Section):
    path: str = TOYBOX
    """A standard diffusers folder, or "toybox"."""
    height: Positive = 32
    """Height of generated pictures, pixels."""
    width: Positive = 32
    """Width of generated pictures, pixels."""
    reference_size: Positive = 32
    """Long side of a reference after resizing, pixels (UNO: 512 for one reference, 320 for several)."""
    guidance: float = 3.5
    """Distilled guidance while training (FLUX.1-dev: 3.5)."""
    position_ids: Literal["d", "h", "w", "o"] = "d"
    """UNO's position scheme for reference tokens."""
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    """Precision of the frozen base; the adapter stays in float32 (float64 with a float64 base)."""
    rank: Positive = 32
    """Rank of the LoRA on the fused attention projections (the paper: 512)."""


class Data(Section):
    source: str = TOYBOX
    """A manifest (.json or .jsonl) of prompts and references, or "toybox"."""
    dial: Share = 0.35
    """Toybox only: share of prompts that ask for a property ("a red toy") and so compete with identity."""


class WindowSettings(Section):
    type: Literal["all", "fraction", "sliding"] = "fraction"
    """Which steps are trained: all but the last, a random share drawn anew for each sample (the release), or a
    sliding window outside of which sampling is deterministic (MixGRPO)."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the first T - 1 steps that "fraction" trains."""
    size: Positive = 4
    """Steps in the "sliding" window."""
    stride: Positive = 1
    """Steps by which the "sliding" window moves on."""
    every: Positive = 1
    """Iterations between two moves of the "sliding" window."""


class Sampling(Section):
    steps: Annotated[int, Field(ge=2)] = 10
    """Denoising steps T (the paper: 25)."""
    shift: Annotated[float, Field(gt=0)] = 1.5
    """Sigma schedule: shift * s / (1 + (shift - 1) * s) of linspace(1, 0, T + 1) (the release: 3)."""
    kind: Literal["constant", "flow-grpo", "cps"] = "constant"
    """How a stochastic step draws its noise (Eq. 13): constant g, Flow-GRPO's, or Flow-CPS's."""
    noise_level: Annotated[float, Field(gt=0)] = 0.5
    """eta of "constant" (the release: 0.4), a of "flow-grpo" (0.7) and "cps"."""
    window: WindowSettings = WindowSettings()


class RewardSettings(Section):
    type: str
    """"dino-seg", "clip", "none", or your own as "package.module:function" (pictures, batch) -> scores."""
    path: str = TOYBOX
    """Folder of the reward's checkpoint, or "toybox"."""
    segmenter: str = TOYBOX
    """dino-seg only: folder of the segmenter's checkpoint, or "toybox"."""
    axis: Literal["identity", "prompt"] = "prompt"
    """Your own only: what it measures, for the reports."""


class Shaping(Section):
    type: Literal["tanh", "none", "harmonic", "min", "max"] = "tanh"
    """The synergy function (Eq. 10-11, Table 3): tanh is SARS, none is naive GRPO; min and max replace the sum."""
    alpha: Annotated[float, Field(ge=0)] = 0.5
    """Strength of the synergy bonus (the paper: 0.5; the release: 0.4)."""
    recentre: bool = False
    """Subtract the bonus's mean in each group, which SARS otherwise moves below 0."""


class Weights(Section):
    type: Literal["sigmoid", "inverted", "constant"] = "sigmoid"
    """Weights over denoising steps: Timestep-Aware Dynamic Weighting (Eq. 12), its inverse, or a constant."""
    high: Share = 0.7
    """Prompt weight in the first phase of "sigmoid"."""
    low: Share = 0.3
    """Prompt weight in the last phase of "sigmoid"."""
    prompt: Share = 0.5
    """Prompt weight of "constant"; identity gets the rest (identity:prompt 1:1 is 0.5, 1:1.5 is 0.6)."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not exceed high ({self.high}); use type = 'inverted' to swap them")
        return self


class Training(Section):
    iterations: Annotated[int, Field(ge=0)] = 80
    """Rollouts; 0 evaluates the base alone."""
    group_size: Annotated[int, Field(ge=2)] = 12
    """Samples per prompt, G; advantages compare them, so at least 2."""
    prompts_per_iteration: Positive = 6
    """Prompts per rollout over all processes together; must be divisible by their number."""
    updates_per_rollout: Positive = 2
    """Optimizer steps per rollout: every group's samples are dealt to this many equal parts."""
    micro_batch: Positive = 54
    """(sample, step) pairs per forward and backward; bounds memory, does not change the result."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """AdamW (the paper: 1e-5 at rank 512)."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """AdamW's decoupled weight decay (the paper: 1e-4)."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """AdamW's decay rates of the gradient's and the squared gradient's running means."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """The gradient is scaled down to this norm."""
    clip: Annotated[float, Field(gt=0)] = 1e-3
    """Clip range of the ratio, for log-probabilities averaged over latent dimensions (the release: 1e-4)."""
    clamp: Annotated[float, Field(gt=0)] = 5.0
    """Credit is clamped to +- this."""
    kl: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL divergence to the adapter-off policy; 0 is off (the paper)."""
    max_ratio_drift: Annotated[float, Field(gt=0)] = 1e-3
    """The run stops when |ratio - 1| before the first update exceeds this: rollout and replay disagree."""
    max_failed_groups: Positive = 3
    """The run stops when a reward fails on all samples of a group this many iterations running."""
    checkpoint_every: Positive = 10
    """Iterations between checkpoints; the last iteration always leaves one."""
    keep_checkpoints: Positive = 2
    """Older checkpoints are deleted."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the adapter, the tasks and all noise."""


class Supervised(Section):
    batch: Positive = 256
    """Pairs per iteration over all processes; must be divisible by their number."""


class Evaluation(Section):
    enabled: bool = True
    """Compare base and trained policy on held-out subjects and prompts after the run (toybox only)."""
    subjects: Positive = 48
    """Held-out subjects; the intervals are clustered by them."""
    prompts_per_subject: Positive = 8
    """Held-out prompts for each subject."""
    split: Literal["test", "validation"] = "test"
    """Choose settings on "validation" only."""
    batch: Positive = 96
    """Pictures generated at a time."""


class Logging(Section):
    tracker: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    samples_every: Positive = 10
    """Iterations between grids of samples."""


class Config(Section):
    """A whole run."""

    method: Literal["grpo", "sft"] = "grpo"
    """Online reinforcement learning (the paper), or supervised fine-tuning on target pictures (its baseline)."""
    policy: Policy = Policy()
    data: Data = Data()
    sampling: Sampling = Sampling()
    rewards: dict[str, RewardSettings] = {
        "identity": RewardSettings(type="dino-seg"),
        "prompt": RewardSettings(type="clip"),
    }
    """Rewards by name. "identity" and "prompt" carry the weights; any other is watched only. What is not said of
    these two stays as here; type = "none" leaves one out."""
    shaping: Shaping = Shaping()
    weights: Weights = Weights()
    training: Training = Training()
    supervised: Supervised = Supervised()
    evaluation: Evaluation = Evaluation()
    logging: Logging = Logging()

    @model_validator(mode="before")
    @classmethod
    def _keep_default_rewards(cls, table: Any) -> Any:
        if isinstance(table, dict) and isinstance(table.get("rewards"), dict):
            defaults = {name: settings.model_dump() for name, settings in cls.model_fields["rewards"].default.items()}
            given = {name: s.model_dump() if isinstance(s, Section) else s for name, s in table["rewards"].items()}
            merged = {
                name: {**defaults.get(name, {}), **given[name]} if isinstance(given.get(name), dict) else given[name]
                for name in given
            }
            kept = {**defaults, **merged}
            table = {**table, "rewards": {n: s for n, s in kept.items() if not _left_out(s)}}
        return table

    @model_validator(mode="after")
    def _geometry(self) -> Self:
        group, updates = self.training.group_size, self.training.updates_per_rollout
        if group % updates:
            raise ValueError(f"training.updates_per_rollout ({updates}) must divide training.group_size ({group})")
        window = self.sampling.window
        if window.type == "sliding" and window.size > self.sampling.steps - 1:
            raise ValueError(
                f"sampling.window.size ({window.size}) must be below sampling.steps ({self.sampling.steps})"
            )
        if not self.rewards:
            raise ValueError("rewards must name at least one reward")
        shares = {"prompt": self.weights.prompt, "identity": 1 - self.weights.prompt}
        for name, share in shares.items():
            if name not in self.rewards and (share > 0 or self.weights.type != "constant"):
                raise ValueError(f"reward {name!r} carries weight but is left out; give rewards.{name}, or set weights")
        return self


def _left_out(settings: Any) -> bool:
    return isinstance(settings, dict) and settings.get("type") == "none"


def recipes() -> dict[str, Path]:
    """The recipes that the package carries, by name."""
    folder = Path(str(resources.files("cgrpo") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_config(recipe: str = TOYBOX, settings: Iterable[str] = ()) -> Config:
    """A recipe (a packaged name or a TOML file) with ``key=value`` settings on top. Raises UserError."""
    known = recipes()
    path = known.get(recipe, Path(recipe))
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no recipe {recipe!r}: give a TOML file or one of {', '.join(known)}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"recipe {path}: {error}") from error
    for setting in settings:
        _apply(table, setting)
    return parse_config(table, str(recipe))


def override(cfg: Config, settings: Iterable[str]) -> Config:
    """``cfg`` with ``key=value`` settings on top. Raises UserError."""
    table = cfg.model_dump(mode="json")
    for setting in settings:
        _apply(table, setting)
    return parse_config(table, "--set")


def parse_config(table: dict[str, Any], origin: str) -> Config:
    """Validate a table; the first mistake becomes one line that names the key."""
    try:
        return Config.model_validate(table)
    except ValidationError as error:
        raise UserError(f"{origin}: {_explain(error)}") from None


def _apply(table: dict[str, Any], setting: str) -> None:
    """Set a dotted key in a nested table; values are read as TOML, plain words as strings."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise UserError(f"--set {setting}: write it as dotted.key=value")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise UserError(f"--set {setting}: {parent} is a value, not a table")
    table[last] = value


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, list(_keys(Config)), 1, 0.5)
        return f"unknown key {key}" + (f"; did you mean {near[0]}?" if near else "; see docs/config.md")
    message = first["msg"].removeprefix("Value error, ")
    got = "" if isinstance(first["input"], dict | Section) else f", got {json.dumps(first['input'], default=str)}"
    return f"{key + ': ' if key else ''}{message}{got}"


def _keys(section: type[Section], prefix: str = "") -> Iterable[str]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name
