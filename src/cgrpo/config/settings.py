"""The tables of a run's configuration, with their defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cgrpo.config.rewards import DEFAULT_REWARDS, RewardSettings, with_defaults
from cgrpo.config.section import TOYBOX, Positive, Section, Share


class Policy(Section):
    path: str = TOYBOX
    """A diffusers folder, a hub id (owner/name or owner/name@revision), a BFL transformer file such as
    flux1-dev.safetensors, or "toybox"."""
    autoencoder: str = ""
    """An autoencoder file (ae.safetensors) or folder in place of the checkpoint's own; empty: its own, or
    ae.safetensors beside a BFL file."""
    clip: str = ""
    """Folder or hub id of a CLIP text encoder with its tokenizer, in place of the checkpoint's own."""
    t5: str = ""
    """Folder or hub id of a T5 encoder with its tokenizer, in place of the checkpoint's own."""
    start: str = ""
    """A LoRA to start from, such as UNO's dit_lora.safetensors: a file, a folder, or a file on the hub."""
    start_mode: Literal["merge", "continue"] = "merge"
    """Merge ``start`` into the base and train a fresh adapter on top (the paper), or train it on; then the frozen
    start, not the bare base, is the reference policy."""
    height: Positive = 32
    """Height of generated pictures, pixels."""
    width: Positive = 32
    """Width of generated pictures, pixels."""
    reference_size: Positive = 32
    """Long side of a task's only reference after resizing, pixels (UNO: 512)."""
    several_size: Annotated[int, Field(ge=0)] = 0
    """Long side of each reference where a task has several (UNO: 320); 0: as reference_size."""
    reference_rule: Literal["uno", "uno-train", "kontext"] = "uno"
    """How references are resized: UNO's inference rule, UNO's training buckets, or Kontext's preferred sizes."""
    reference_alpha: Literal["white", "drop"] = "white"
    """What becomes of a reference's transparency: laid on white, or dropped as UNO does."""
    reference_latents: Literal["mean", "sample"] = "mean"
    """A reference's latents: the mean of the autoencoder's posterior, or a draw seeded by the picture itself."""
    position_ids: Literal["d", "h", "w", "o", "kontext"] = "d"
    """Position scheme of the reference tokens: UNO's (d is its default) or Kontext's."""
    guidance: float = 3.5
    """Distilled guidance while training (FLUX.1-dev: 3.5)."""
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    """Precision of the frozen base; the adapter stays in float32 (float64 with a float64 base). A bfloat16 base
    computes under autocast."""
    rank: Positive = 32
    """Rank of the LoRA on the fused attention projections (the paper: 512); "continue" keeps the start's."""
    checkpointing: Literal["off", "selective", "full"] = "off"
    """What is computed again in the backward pass to save memory: nothing, all but matrix products and attention,
    or whole blocks."""
    offload: bool = False
    """Keep text encoders and autoencoder in the CPU's memory while they are idle."""
    compile: str = ""
    """torch.compile backend for the transformer's blocks, such as "inductor"; empty is off."""
    quantise: Literal["none", "int8"] = "none"
    """Keep the frozen blocks' matrices in 8 bits (torchao, an extra): half the memory of bfloat16."""


class Data(Section):
    source: str = TOYBOX
    """A data set of prompts and references (a file or folder in any layout of docs/data.md), or "toybox"."""
    root: str = ""
    """Folder of the data set's pictures, where they don't lie beside its file; for the release's subset, SynCD's."""
    limit: Annotated[int, Field(ge=0)] = 0
    """The data set's first so many tasks; 0 is all of them. Of the toy world, which has no end, as many."""
    cache: str = ""
    """Folder that `cgrpo data encode` filled: the text encoders are not loaded then."""
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
    shift: Annotated[float, Field(gt=0)] | Literal["flux", "uno"] = 1.5
    """Sigma schedule: shift * s / (1 + (shift - 1) * s) of linspace(1, 0, T + 1) (the release: 3). "flux" computes
    the shift from the number of tokens as FLUX does, "uno" as UNO's pipeline does."""
    kind: Literal["constant", "flow-grpo", "cps"] = "constant"
    """How a stochastic step draws its noise (Eq. 13): constant g, Flow-GRPO's, or Flow-CPS's."""
    noise_level: Annotated[float, Field(gt=0)] = 0.5
    """eta of "constant" (the release: 0.4), a of "flow-grpo" (0.7) and "cps"."""
    batch: Positive = 96
    """Samples per forward while sampling, in whole groups, at least one; bounds memory."""
    window: WindowSettings = WindowSettings()


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
    others: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Constant weights of other rewards by name, beside those two; one that is not named here is watched only."""

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
    """The run stops when a reward fails on all samples of a group, or gives all samples of each group one score,
    this many iterations running."""
    checkpoint_every: Positive = 10
    """Iterations between checkpoints; the last iteration always leaves one."""
    keep_checkpoints: Positive = 2
    """Older checkpoints are deleted."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """Several processes: the whole base on each, or the frozen base sharded over them (FSDP2). The adapter is on
    each, and its gradients are summed."""
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


class Guard(Section):
    every: Annotated[int, Field(ge=0)] = 10
    """Iterations between two checks on held-out tasks while training; 0 is off."""
    source: str = ""
    """A manifest of held-out tasks. Empty: the toy world's validation split, and no guard over a data set of one's
    own."""
    tasks: Positive = 64
    """Held-out tasks of a check: a manifest's first rows, all of it if it has fewer; in the toy world each has a
    subject of its own, which tells more than several prompts for one."""
    batch: Positive = 16
    """Held-out pictures made at a time. Such batches are dealt to the processes, so a check is shared evenly where
    there are as many of them."""
    scorers: dict[str, RewardSettings] = Field(default_factory=dict)
    """Judges by name: scorers that are not trained on, with the settings of rewards.NAME. Empty with the toy world's
    tasks: its read-back judges."""
    patience: Annotated[int, Field(ge=0)] = 0
    """The run stops after this many checks in a row that brought no better one; 0 never stops it."""


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
    rewards: dict[str, RewardSettings] = DEFAULT_REWARDS
    """Rewards by name. "identity" and "prompt" carry the weights; any other is watched only. What is not said of
    these two stays as here; type = "none" leaves one out."""
    shaping: Shaping = Shaping()
    weights: Weights = Weights()
    training: Training = Training()
    supervised: Supervised = Supervised()
    evaluation: Evaluation = Evaluation()
    guard: Guard = Guard()
    logging: Logging = Logging()

    @model_validator(mode="before")
    @classmethod
    def _keep_default_rewards(cls, table: Any) -> Any:
        if isinstance(table, dict) and isinstance(table.get("rewards"), dict):
            return table | {"rewards": with_defaults(table["rewards"])}
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
        if self.policy.quantise != "none" and self.training.parallel == "fsdp2":
            raise ValueError("policy.quantise and training.parallel = fsdp2 do not go together; choose one")
        if not self.rewards:
            raise ValueError("rewards must name at least one reward")
        for name in self.guard.scorers:
            if name in self.rewards:
                raise ValueError(f"guard.scorers.{name}: a reward has this name; a judge needs another")
        shares = {"prompt": self.weights.prompt, "identity": 1 - self.weights.prompt}
        for name in self.weights.others:
            if name not in self.rewards or name in shares:
                raise ValueError(f"weights.others.{name}: must be a reward of that name beside identity and prompt")
        for name, share in shares.items():
            if name not in self.rewards and (share > 0 or self.weights.type != "constant"):
                raise ValueError(f"reward {name!r} carries weight but is left out; give rewards.{name}, or set weights")
        return self
