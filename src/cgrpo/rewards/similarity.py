"""What rewards that compare embeddings share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor

from cgrpo.rewards.base import Axis, EncodeOnce, Reward, digest, to_pictures
from cgrpo.types import Batch

Encode = Callable[[Sequence[Image.Image]], Tensor]  # whole pictures -> unit-length rows [N, C], on the CPU


def in_chunks(encode: Encode, pictures: Sequence[Image.Image], chunk: int) -> Tensor:
    """``encode``, at most ``chunk`` pictures at a time: [N, C]."""
    return torch.cat([encode(pictures[first : first + chunk]) for first in range(0, len(pictures), chunk)])


class PictureSimilarity(Reward):
    """Cosine of the embeddings of picture and reference, both whole; its mean over references, NaN with none.

    The last ``remembered`` references are encoded once.
    """

    axis: Axis = "identity"

    def __init__(self, encode: Encode, remembered: int):
        self._encode = encode
        self._references = EncodeOnce(lambda picture: encode([picture])[0], remembered)

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        distinct = {id(picture): picture for row in batch.references for picture in row}  # a group shares its own
        keys = {number: digest(picture) for number, picture in distinct.items()}
        known = self._references({keys[number]: picture for number, picture in distinct.items()})
        scores = []
        for made_C, row in zip(self._encode(to_pictures(images_NHWC)), batch.references, strict=True):
            cosines = [made_C @ known[keys[id(picture)]] for picture in row]
            scores.append(torch.stack(cosines).mean() if cosines else made_C.new_tensor(torch.nan))
        return torch.stack(scores)
