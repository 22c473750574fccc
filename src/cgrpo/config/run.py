"""The configuration of a run: the tables that all methods share, and the base of every method's own."""

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cgrpo.policies.settings import AnyPolicySettings, PolicySettings, ShiftRule
from cgrpo.rewards import AnyReward, RewardSettings
from cgrpo.rewards.clip import ClipSettings
from cgrpo.rewards.dino import DinoSegSettings
from cgrpo.section import TOYBOX, Place, Positive, Section, Seed, Share

Decay = Annotated[float, Field(ge=0, lt=1)]
BatchSize = Positive | Literal["auto"]

DEFAULT_REWARDS: dict[str, RewardSettings] = {"identity": DinoSegSettings(), "prompt": ClipSettings()}


class Data(Section):
    source: Place = TOYBOX
    """A data set of prompts and references (a file or folder in any layout of docs/reference/data.md), or "toybox"."""
    root: Place = ""
    """Folder of the data set's pictures, where they don't lie beside its file; for the release's subset, SynCD's."""
    limit: Annotated[int, Field(ge=0)] = 0
    """The data set's first so many tasks; 0 is all of them. Of the toy world, which has no end, as many."""
    cache: Place = ""
    """Folder that `cgrpo data encode` filled: the text encoders are not loaded then."""
    dial: Share = 0.35
    """Toybox only: share of prompts that ask for a property ("a red toy") and so compete with identity."""


class Sampling(Section):
    steps: Annotated[int, Field(ge=2, le=1000)] = 10
    """Denoising steps T (the paper: 25)."""
    shift: Annotated[float, Field(ge=0.01, le=100)] | ShiftRule = 1.5
    """Sigma schedule: shift * s / (1 + (shift - 1) * s) of linspace(1, 0, T + 1) (the release: 3), or the name of a
    rule of the policy's family, such as "flux", which computes the shift from the number of tokens."""


class Training(Section):
    iterations: Annotated[int, Field(ge=0)] = 80
    """How many; 0 evaluates the base alone."""
    micro_batch: BatchSize = 54
    """(sample, step) pairs, or pairs of reference and target, per forward and backward; bounds memory, does not change
    the result. "auto" is the fastest that fits, measured at the run's start and kept in its config.json."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """AdamW (the paper: 1e-5 at rank 512)."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """AdamW's decoupled weight decay (the paper: 1e-4)."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """AdamW's decay rates of the gradient's and the squared gradient's running means."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """The learning rate over the run: constant, or falling to 0 behind its last iteration. A run that falls can't be
    continued beyond its length."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Iterations over which the learning rate first rises."""
    average: Decay = 0.0
    """Decay per iteration of an exponential average of the adapter's weights: it is then what is evaluated, guarded
    and saved as the run's adapter. 0 is off; 0.9 spans about 10 iterations. Early in a run it spans fewer."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """The gradient is scaled down to this norm."""
    checkpoint_every: Positive = 10
    """Iterations between checkpoints; the last iteration always leaves one."""
    keep_checkpoints: Positive = 2
    """Older checkpoints are deleted."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """Several processes: the whole base on each, or the frozen base sharded over them (FSDP2). The adapter is on
    each, and its gradients are summed."""
    seed: Seed = 0
    """Of the adapter, the tasks and all noise."""


class Evaluation(Section):
    enabled: bool = True
    """Compare base and trained policy on held-out tasks after the run, where there are any."""
    source: Place = ""
    """A manifest of held-out tasks. Empty: the toy world's split, or with a data set of one's own guard.source."""
    tasks: Positive = 64
    """Of a manifest, at most its first so many tasks."""
    subjects: Positive = 48
    """Of the toy world: held-out subjects; the intervals are clustered by them."""
    prompts_per_subject: Positive = 8
    """Of the toy world: held-out prompts for each subject."""
    split: Literal["test", "validation"] = "test"
    """Of the toy world; choose settings on "validation" only."""
    batch: Positive = 96
    """Pictures generated at a time."""
    best_of: Annotated[int, Field(ge=1, lt=4096)] = 1
    """Pictures that the trained policy draws for each task, from as many noises; the one with the greatest sum of the
    run's rewards is kept. The base draws one. With ``training.iterations = 0``: best of n without any training."""
    copies: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """A held-out picture is a copy of its reference where its copy_paste measure (1: the same pixels) lies above this;
    the share of copies is then measured, here and by the guard. 0 leaves it out."""


class Guard(Section):
    every: Annotated[int, Field(ge=0)] = 10
    """Iterations between two checks on held-out tasks while training; 0 is off."""
    source: Place = ""
    """A manifest of held-out tasks. Empty: the toy world's validation split, and no guard over a data set of one's
    own."""
    tasks: Positive = 64
    """Held-out tasks of a check: a manifest's first rows, all of it if it has fewer; in the toy world each has a
    subject of its own, which tells more than several prompts for one."""
    batch: Positive = 16
    """Held-out pictures made at a time. Such batches are dealt to the processes, so a check is shared evenly where
    there are as many of them."""
    scorers: dict[str, AnyReward] = Field(default_factory=dict)
    """Judges by name: scorers that are not trained on, with the settings of rewards.NAME. Empty with the toy world's
    tasks: its read-back judges."""
    patience: Annotated[int, Field(ge=0)] = 0
    """The run stops after this many checks in a row that brought no better one; 0 never stops it."""


class Logging(Section):
    tracker: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    """Where curves go beside metrics.jsonl: TensorBoard writes into the run directory, others are to be installed."""
    samples_every: Positive = 10
    """Iterations between grids of samples."""


class Config(Section):
    """A whole run. A method's own configuration adds tables to these, and widens some."""

    loop: ClassVar[str]
    """The method's ``Loop`` as "module:class", imported when a run begins."""
    health: ClassVar[str] = ""
    """What to look for in the curves of "Training health", for the report."""

    method: str
    """How the policy is trained."""
    policy: AnyPolicySettings = PolicySettings()
    data: Data = Data()
    sampling: Sampling = Sampling()
    rewards: dict[str, AnyReward] = DEFAULT_REWARDS
    """Rewards by name. "identity" and "prompt" carry the weights; any other is watched only. What a recipe does not say
    of these two stays as here; type = "none" leaves one out."""
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    guard: Guard = Guard()
    logging: Logging = Logging()

    @abstractmethod
    def share(self) -> tuple[int, str]:
        """The tasks of an iteration over all processes, among which they are dealt evenly, and that number's key."""

    def batches(self) -> dict[str, int | str]:
        """The batch sizes that may be "auto", by dotted key."""
        return {"training.micro_batch": self.training.micro_batch}

    @abstractmethod
    def title(self) -> str:
        """The method in the field's words, as precisely as the settings say."""

    @abstractmethod
    def facts(self) -> dict[str, str]:
        """The method's own main settings in words, by heading."""

    def limits(self) -> dict[str, float]:
        """Where the run stops by itself: the largest values of metrics, by name."""
        return {}

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.policy.quantise != "none" and self.training.parallel == "fsdp2":
            raise ValueError("policy.quantise and training.parallel = fsdp2 do not go together; choose one")
        for key, size in self.batches().items():
            if size == "auto" and self.training.parallel == "fsdp2":
                raise ValueError(f"{key} = auto and training.parallel = fsdp2 do not go together; give a number")
        if not self.rewards:
            raise ValueError("rewards must name at least one reward")
        for name in self.guard.scorers:
            if name in self.rewards:
                raise ValueError(f"guard.scorers.{name}: a reward has this name; a judge needs another")
        return self
