"""What a policy is: the one contract between a model and the algorithm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cgrpo.types import Batch, Condition


class Policy(Protocol):
    """A flow-matching picture generator with references. Time is sigma: 1 is noise, 0 is the picture.

    The rectified-flow convention holds: ``x = (1 - sigma) * data + sigma * noise`` and the
    velocity is ``noise - data``.
    """

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(L, C): tokens and channels of one sample's latents; noise is N(0, 1) of this shape."""
        ...

    def encode(self, batch: Batch) -> Condition:
        """Prompts and references of P tasks as a condition of P rows. Deterministic, without gradients."""
        ...

    def velocity(self, x_NLC: Tensor, sigma_N: Tensor, cond: Condition) -> Tensor:
        """v_NLC at ``x_NLC`` and ``sigma_N`` (fp32, in [0, 1]). The only method that gradients pass through."""
        ...

    def decode(self, x_NLC: Tensor) -> Tensor:
        """Latents at sigma = 0 as pictures: uint8 on the CPU, [N, H, W, 3], RGB. Without gradients."""
        ...

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters that training moves, always in the same order."""
        ...
