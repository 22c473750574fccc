"""Rewards that compare embeddings: of a picture and its references, or of a picture and its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cgrpo.fingerprint import of_picture
from cgrpo.rewards.base import Axis, EncodeOnce, Reward, to_pictures
from cgrpo.types import Batch

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor


class Encoder:
    """Unit-length embeddings of pictures and texts by ``model``, ``chunk`` pictures per forward, on the CPU.

    A subclass says how pictures become pixel values (``prepare``) and these an embedding (``embed``), and how texts
    do (``read``) if the model has a text tower.
    """

    model: Any

    def __init__(self, model: Any, chunk: int, device: torch.device | str):
        self.model, self.chunk = model, chunk
        self.to(device)

    def prepare(self, pictures: list[Image]) -> Any:
        """RGB pictures as ``embed`` takes them: pixel values [N, 3, H, W], or anything with ``to``."""
        raise NotImplementedError

    def embed(self, pixels: Any) -> Tensor:
        """[N, C], of any length."""
        raise NotImplementedError

    def read(self, texts: list[str]) -> Tensor:
        """[N, C], of any length."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> None:
        self.model.to(device)

    def pictures(self, pictures: Sequence[Image]) -> Tensor:
        """[N, C]."""
        import torch

        rows = []
        for first in range(0, len(pictures), self.chunk):
            part = [picture.convert("RGB") for picture in pictures[first : first + self.chunk]]
            with torch.no_grad():
                rows.append(_unit_length(self.embed(self.prepare(part).to(self.device))))
        return torch.cat(rows)

    def texts(self, texts: list[str]) -> Tensor:
        """[N, C]."""
        import torch

        with torch.no_grad():
            return _unit_length(self.read(texts))


def _unit_length(rows_NC: Tensor) -> Tensor:
    from torch.nn import functional as F

    return F.normalize(rows_NC, dim=-1).cpu()


class EncoderReward(Reward):
    """A reward whose only model is ``encoder``'s."""

    def __init__(self, encoder: Encoder, unit: str):
        self.encoder, self.unit = encoder, unit

    def to(self, device: torch.device | str) -> None:
        self.encoder.to(device)


class PictureSimilarity(EncoderReward):
    """Cosine of the embeddings of picture and reference, both whole; its mean over references, NaN with none.

    The last 4,096 references are encoded once.
    """

    axis: Axis = "identity"

    def __init__(self, encoder: Encoder, unit: str):
        super().__init__(encoder, unit)
        self._references = EncodeOnce(self._encode_reference)

    def _encode_reference(self, picture: Image) -> Tensor:
        return self.encoder.pictures([picture])[0]

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        import torch

        distinct = {id(picture): picture for row in batch.references for picture in row}  # a group shares its own
        fingerprints = {number: of_picture(picture) for number, picture in distinct.items()}
        features = self._references({fingerprints[number]: picture for number, picture in distinct.items()})
        scores = []
        for feature_C, row in zip(self.encoder.pictures(to_pictures(images_NHWC)), batch.references, strict=True):
            cosines = [feature_C @ features[fingerprints[id(picture)]] for picture in row]
            scores.append(torch.stack(cosines).mean() if cosines else feature_C.new_tensor(torch.nan))
        return torch.stack(scores)


class PromptSimilarity(EncoderReward):
    """Cosine of the embeddings of picture and raw prompt, times ``scale``. The last 4,096 prompts are encoded once."""

    axis: Axis = "prompt"

    def __init__(self, encoder: Encoder, unit: str, scale: Tensor | float = 1.0):
        super().__init__(encoder, unit)
        self.scale = scale
        self._texts = EncodeOnce(self._encode_prompt)

    def _encode_prompt(self, prompt: str) -> Tensor:
        return self.encoder.texts([prompt])[0]

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        import torch

        texts = self._texts({prompt: prompt for prompt in batch.prompts})
        text_NC = torch.stack([texts[prompt] for prompt in batch.prompts])
        return self.scale * (self.encoder.pictures(to_pictures(images_NHWC)) * text_NC).sum(-1)
