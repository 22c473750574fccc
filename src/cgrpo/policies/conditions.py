"""What conditions made of tensors have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class TensorCondition:
    """A ``Condition`` whose fields are tensors of a row for each sample, but for those named in ``shared``.

    A field that is None stays so: a negative prompt that there isn't.
    """

    shared: ClassVar[frozenset[str]] = frozenset()

    def __len__(self) -> int:
        return len(next(iter(self._by_sample().values())))

    def repeat(self, times: int) -> Self:
        """Every task ``times`` times in a row: P tasks become N = P * times samples."""
        return self._rows(lambda t: t.repeat_interleave(times, dim=0))

    def select(self, index: slice | Sequence[int] | Tensor) -> Self:
        """The samples at ``index`` (slice, numbers or long tensor), in that order."""
        return self._rows(lambda t: t[index])

    def join(self, other: Self) -> Self:
        """The samples of both, ``other``'s behind; what is shared must be equal, and both have the same fields."""
        theirs = other._by_sample()
        return replace(self, **{name: torch.cat((own, theirs[name])) for name, own in self._by_sample().items()})

    def _by_sample(self) -> dict[str, Tensor]:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in self.shared}
        return {name: value for name, value in values.items() if value is not None}

    def _rows(self, pick: Callable[[Tensor], Tensor]) -> Self:
        return replace(self, **{name: pick(value) for name, value in self._by_sample().items()})
