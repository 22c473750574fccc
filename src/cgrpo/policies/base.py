"""What a policy is: the one contract between a model and all that trains, evaluates or shows it.

Trainers, evaluation and commands call what is here and know no family. A family is a class of policies, listed by name
in ``family.POLICIES``. One that is a diffusers transformer with reference tokens and a LoRA builds on
``ReferencedPolicy`` (referenced.py), which is most of it. tests/policies/test_contract.py holds every family to this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from cgrpo.errors import UserError
from cgrpo.policies.settings import PolicySettings
from cgrpo.types import Batch, Condition

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor, nn

    from cgrpo.policies.encodings.store import Encoded
    from cgrpo.policies.models import Model

C = TypeVar("C", bound=Condition)


@dataclass(frozen=True)
class Making:
    """How a policy is made, beside the table ``policy``.

    device    where it computes
    adapter   a file or folder; None is a fresh one that changes nothing yet
    seed      of a fresh adapter
    cache     folder of encodings that ``make_encoder`` filled; the text encoders are not loaded then
    spread    keep on the CPU what ``shard`` is about to spread over processes
    called    the base's name in the headers of adapters, where that isn't policy.path
    """

    device: torch.device | str = "cpu"
    adapter: Path | None = None
    seed: int = 0
    cache: str = ""
    spread: bool = False
    called: str = ""


Spread = Callable[[Sequence["nn.Module"], Collection["nn.Parameter"]], None]
"""(blocks, whole): spreads the blocks' parameters over the processes, all but those in ``whole``.

The last of ``blocks`` is the module that the others are in."""


class Policy(ABC, Generic[C]):
    """A flow-matching picture generator with references. Time is sigma: 1 is noise, 0 is the picture.

    The rectified-flow convention holds: ``x = (1 - sigma) * data + sigma * noise`` and the velocity is
    ``noise - data``. Nothing here reads or moves the global random state.

    C        what it is conditioned on: made by ``encode``, taken by ``velocity``, opaque to everybody else
    height, width   pixels of its pictures
    dtype    of the latents that sampling starts from; sums over steps are fp32 or better all the same
    device   where it computes: latents and sigmas are to be there

    Guidance is the policy's own business. Distilled or by a second forward without the prompt, its scale and what
    a negative prompt needs are part of the condition, and ``velocity`` gives the guided velocity, with gradient.
    """

    has_prefix: ClassVar[bool] = False
    """Whether ``shared_prefix`` has anything to share."""

    height: int
    width: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def recognises(cls, transformer_class: str, path: str) -> bool:
        """Whether a checkpoint is of this family. A family that never says so is chosen by ``policy.type`` alone.

        transformer_class   the class that the checkpoint's transformer/config.json names, "" where there is none
        path                policy.path
        """
        return False

    @classmethod
    @abstractmethod
    def make(cls, settings: PolicySettings, making: Making) -> Self:
        """The base of ``settings`` with an adapter. Raises UserError naming all that is missing or doesn't fit."""

    @classmethod
    def make_encoder(
        cls, settings: PolicySettings, out: Path, device: torch.device
    ) -> Callable[[Iterable[Batch], Callable[[int], object] | None], Encoded]:
        """What puts the prompts and references of batches into the folder ``out``, and reports how many are done.

        The transformer is not loaded. Raises UserError for a folder of other encodings, before anything is loaded.
        """
        raise UserError(f"policy.type = {settings.type}: has no encodings to make before training")

    @classmethod
    def make_cut(cls, settings: PolicySettings) -> Callable[[Sequence[str]], dict[str, list[int]]]:
        """``cut_prompts`` from the tokenizers alone. Raises UserError where one is missing."""
        return lambda prompts: {}

    @classmethod
    def models(cls, settings: PolicySettings) -> dict[str, Model]:
        """The checkpoint's models by part, as stock classes and their configurations, for ``cgrpo plan``."""
        raise UserError(f"policy.type = {settings.type}: says nothing about its models' sizes")

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, int]:
        """(L, C): tokens and channels of one sample's latents; noise is N(0, 1) of this shape."""

    @abstractmethod
    def noise(self, seed: int) -> Tensor:
        """Noise [1, L, C], fp32 on the CPU, that the family's stock pipeline draws for ``seed``."""

    @abstractmethod
    def sigmas(self, steps: int, shift: float | str) -> Tensor:
        """The grid of ``steps`` steps, fp32 [steps + 1], falling from 1 to 0.

        ``shift`` > 0 is a number (algorithm.shifted_sigmas), or the name of a rule of this family's. Raises
        UserError for a name that it doesn't know.
        """

    @abstractmethod
    def alike(self, batch: Batch, most: int) -> list[list[int]]:
        """The tasks' numbers in parts that can share a condition, each in order, of at most ``most`` tasks."""

    @abstractmethod
    def encode_parts(self, batch: Batch, parts: Sequence[Sequence[int]]) -> list[C]:
        """A condition for each of ``parts`` (lists of the batch's tasks), as training samples and replays them.

        Deterministic, without gradients; a task's condition does not depend on what is encoded beside it, up to
        the rounding of batched sums. Raises UserError where the tasks of a part can't share a condition.
        """

    def encode(self, batch: Batch) -> C:
        """P tasks as a condition of P rows, as evaluation and users see them.

        A family that is guided otherwise there than in training puts another scale in. Raises as ``encode_parts``.
        """
        (cond,) = self.encode_parts(batch, [range(len(batch))])
        return cond

    @abstractmethod
    def velocity(self, x_NLC: Tensor, sigma_N: Tensor, cond: C) -> Tensor:
        """v_NLC, in x's dtype, at ``x_NLC`` and ``sigma_N`` (fp32 or better, in [0, 1]), sample by sample.

        The only method that gradients pass through. Deterministic: rollout and replay rest on it.
        """

    @contextmanager
    def shared_prefix(self, cond: C) -> Iterator[C]:
        """Within it: ``cond``, whose velocities share what depends on nothing but ``cond`` and the weights.

        That is evaluated once, here. Gradients of all backwards within it are summed, and go through it in one backward
        on leaving: exact, and not before. Without gradients the condition serves after leaving, too, until the weights
        change. Most policies have nothing to share: their references and texts see the picture, or its sigma.
        """
        yield cond

    @abstractmethod
    def encode_targets(self, pictures: Sequence[Image]) -> Tensor:
        """RGB pictures of any size, made the policy's, as x_NLC at sigma = 0: fp32 or better. Without gradients."""

    @abstractmethod
    def decode(self, x_NLC: Tensor) -> Tensor:
        """Latents at sigma = 0 as pictures: uint8 on the CPU, [N, H, W, 3], RGB. Without gradients."""

    def materials(self) -> dict[str, str]:
        """Fingerprints of the weights that training builds on, by the setting that names them: "path", "start"."""
        return {}

    def cut_prompts(self, prompts: Sequence[str]) -> dict[str, list[int]]:
        """Which of ``prompts`` its text encoders don't read to the end, as numbers, by what they read ("T5 at ...")."""
        return {}

    @abstractmethod
    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """What training moves, by name, always in the same order; checkpoints and averages use the names."""

    @abstractmethod
    def reference(self) -> AbstractContextManager[None]:
        """Within it the policy is what training started from, and nothing trains. Left exactly as it was found."""

    @contextmanager
    def using(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Within it the policy has other trained weights, by ``trainable_parameters``' names: an average, say.

        Nothing is copied where dtype and device are the parameters' own, and the very tensors come back on leaving,
        so that it may stand between a forward and its backward. For what needs no gradient: sampling, ``save``,
        ``pictures_depend_on``. Raises ValueError, with nothing changed, where names or shapes differ.
        """
        own = self.trainable_parameters()
        other = [name for name in own.keys() | weights.keys() if name not in own or name not in weights]
        other += [name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape]
        if other:
            raise ValueError(f"{len(other)} weights are not the policy's in name or shape, such as {min(other)}")
        kept = {name: parameter.data for name, parameter in own.items()}
        try:
            for name, parameter in own.items():
                parameter.data = weights[name].detach().to(parameter)
            yield
        finally:
            for name, parameter in own.items():
                parameter.data = kept[name]

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Within it the policy, trained or not, is as evaluation and users see it. Without gradients."""
        yield

    @abstractmethod
    def save(self, folder: Path) -> Path:
        """Write the trained weights into ``folder``, in one move, as the family's stock pipeline loads them.

        Returns the file. Raises UserError where it can't be written.
        """

    @abstractmethod
    def pictures_depend_on(self) -> dict[str, Any]:
        """All that its pictures depend on but prompts, references, noise and sigmas, as plain values by name.

        How pictures are prepared and guided, and fingerprints of the weights that are in use now. Policies that are
        equal in this make equal pictures, up to rounding. Call it before ``shard``.
        """

    @abstractmethod
    def shard(self, spread: Spread) -> None:
        """Let ``spread`` distribute what doesn't train; called once, before anything else is. What trains is whole.

        Afterwards all processes must call ``velocity`` together.
        """
