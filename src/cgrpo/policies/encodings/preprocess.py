"""References as users have them, made into the pictures a policy takes."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from cgrpo.errors import UserError
from cgrpo.extensions import resolve
from cgrpo.policies.family import REFERENCE_RULES


def prepare_references(
    pictures: Sequence[Image.Image], rule: str, one_size: int, several_size: int, multiple: int
) -> list[Image.Image]:
    """A task's references by ``prepare_reference``: a single one at ``one_size``, several at ``several_size``."""
    side = one_size if len(pictures) == 1 else several_size or one_size
    return [prepare_reference(picture, rule, side, multiple) for picture in pictures]


def prepare_reference(image: Image.Image, rule: str, side: int, multiple: int) -> Image.Image:
    """A reference as RGB in the size that ``rule``, one of any family's, makes of ``side`` pixels.

    Both sides are multiples of ``multiple``, the pixels of one token: 16 for FLUX, 8 behind a four-times-down
    autoencoder. Raises UserError where one would be less than that.
    """
    return resolve(REFERENCE_RULES.place(rule))(image, side, multiple)


def require_one_size(pictures: Sequence[Image.Image], ids: Sequence[str], place: int) -> None:
    """Raises UserError unless the prepared references number ``place`` of tasks ``ids`` are of one size."""
    for picture, name in zip(pictures, ids, strict=True):
        if picture.size != pictures[0].size:
            (width, height), (first_width, first_height) = picture.size, pictures[0].size
            raise UserError(
                f"reference {place + 1} of task {name} is {width} x {height} after resizing, that of task {ids[0]} "
                f"{first_width} x {first_height}; batch tasks of equal reference sizes"
            )
