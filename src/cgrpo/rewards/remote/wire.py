"""What a reward's client and its server say to each other: typed JSON, pictures without loss, nothing pickled.

``GET /health`` -> Health. ``POST /score``, a ScoreRequest -> Scores. Anything but a 200 carries a Refusal.

Pictures travel as PNG, references and masks once: afterwards a request names them by their fingerprints, and a server
that has forgotten one answers 409 with the keys to send.
The world's ground truth (``Batch.spec``) does not travel: no reward may look at it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Annotated

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cgrpo.fingerprint import of_picture
from cgrpo.rewards.base import Axis, to_pictures, to_tensor
from cgrpo.types import Batch

PROTOCOL = 1  # of these messages
MAX_PIXELS = 2**28  # of all pictures in a request together: 805 MB
MAX_ROWS = 65536
PACKAGES = ("customized-grpo", "torch", "transformers", "numpy", "pillow")

Key = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Texts = Annotated[list[Annotated[str, Field(max_length=100_000)]], Field(max_length=MAX_ROWS)]


class Message(BaseModel):
    """Frozen; bytes are base64 in JSON."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")


class ScoreRequest(Message):
    """N pictures (PNG) and their tasks. ``references`` and ``masks`` are keys, ``sent`` the PNGs the server needs."""

    model_config = ConfigDict(extra="forbid")

    reward: str
    pictures: Annotated[list[bytes], Field(min_length=1, max_length=MAX_ROWS)]
    ids: Texts
    prompts: Texts
    subjects: Texts
    references: Annotated[list[list[Key]], Field(max_length=MAX_ROWS)]
    masks: Annotated[list[list[Key | None]], Field(max_length=MAX_ROWS)] | None
    sent: dict[Key, bytes]


class Scores(Message):
    """One score a picture, None where it could not be scored; and what made them."""

    scores: list[float | None]
    report: dict[str, float | None]
    checkpoint: str
    versions: dict[str, str]


class RewardInfo(Message):
    axis: Axis
    unit: str
    checkpoint: str
    """Of its weights and settings, see ``reward_fingerprint``."""


class Health(Message):
    """A server that answers is ready: rewards are loaded before it listens."""

    ready: bool
    protocol: int
    rewards: dict[str, RewardInfo]
    versions: dict[str, str]
    max_body: int


class Refusal(Message):
    """One line that says what is wrong; with 409, the keys of the pictures to send."""

    error: str
    missing: list[str] = []


def number(value: float) -> float | None:
    """JSON has no NaN: null instead."""
    return value if math.isfinite(value) else None


def versions() -> dict[str, str]:
    """Of the packages that scores depend on."""
    return {name: metadata.version(name) for name in PACKAGES}


def pack_picture(picture: Image.Image) -> bytes:
    """PNG of an RGB or L picture."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def unpack_images(files: Sequence[bytes]) -> Tensor:
    """uint8 [N, H, W, 3] of PNGs of one size. ValueError for any that is wrong, before much of it is inflated."""
    pictures = _unpack(files, ("RGB",))
    if len({picture.size for picture in pictures}) > 1:
        raise ValueError("the pictures are of several sizes")
    return to_tensor(pictures)


def unpack_pictures(sent: Mapping[str, bytes]) -> dict[str, Image.Image]:
    """RGB or L pictures by key. ValueError for one that is wrong, before much of it is inflated."""
    pictures = dict(zip(sent, _unpack(list(sent.values()), ("RGB", "L")), strict=True))
    if any(of_picture(picture) != key for key, picture in pictures.items()):
        raise ValueError("a reference is not the picture that its key names")
    return pictures


def _unpack(files: Sequence[bytes], modes: tuple[str, ...]) -> list[Image.Image]:
    """Sizes and modes are looked at before any picture is inflated."""
    try:
        pictures = [Image.open(io.BytesIO(file), formats=["PNG"]) for file in files]
        if sum(picture.width * picture.height for picture in pictures) > MAX_PIXELS:
            raise ValueError(f"pictures of more than {MAX_PIXELS} pixels together")
        for picture in pictures:
            if picture.mode not in modes:
                raise ValueError(f"a picture has mode {picture.mode}; send RGB, and masks as L")
            picture.load()
    except Exception as error:  # a broken file shows in many ways
        raise ValueError(f"a picture can't be read ({error})") from error
    return list(pictures)


def make_request(reward: str, images_NHWC: Tensor, batch: Batch) -> tuple[ScoreRequest, dict[str, Image.Image]]:
    """A request that brings no references or masks yet, and those that it names, by key."""
    named: dict[str, Image.Image] = {}
    keys: dict[tuple[int, str], str] = {}  # the rows of a group share their pictures

    def key_of(picture: Image.Image, mode: str) -> str:
        if (id(picture), mode) not in keys:
            plain = picture if picture.mode == mode else picture.convert(mode)
            keys[id(picture), mode] = of_picture(plain)
            named[keys[id(picture), mode]] = plain
        return keys[id(picture), mode]

    masks = batch.reference_masks
    request = ScoreRequest(
        reward=reward,
        pictures=[pack_picture(picture) for picture in to_pictures(images_NHWC)],
        ids=list(batch.ids),
        prompts=list(batch.prompts),
        subjects=list(batch.subjects),
        references=[[key_of(picture, "RGB") for picture in row] for row in batch.references],
        masks=None if masks is None else [[mask and key_of(mask, "L") for mask in row] for row in masks],
        sent={},
    )
    return request, named


def named_pictures(request: ScoreRequest) -> set[str]:
    """The keys of all references and masks of a request."""
    rows = [*request.references, *(request.masks or [])]
    return {key for row in rows for key in row if key is not None}


def read_batch(request: ScoreRequest, pictures: Mapping[str, Image.Image]) -> Batch:
    """The tasks of a request, one for each of its pictures. ValueError where the numbers of rows differ."""
    count = len(request.pictures)
    columns = (request.ids, request.prompts, request.subjects, request.references)
    if any(len(column) != count for column in (*columns, *([] if request.masks is None else [request.masks]))):
        raise ValueError(f"{count} pictures need as many ids, prompts, subjects, references and masks")
    masks = None
    if request.masks is not None:
        pairs = zip(request.masks, request.references, strict=True)
        if any(len(mine) != len(theirs) for mine, theirs in pairs):
            raise ValueError("each reference needs a mask, or null")
        masks = tuple(tuple(None if key is None else pictures[key] for key in row) for row in request.masks)
    return Batch(
        ids=tuple(request.ids),
        prompts=tuple(request.prompts),
        references=tuple(tuple(pictures[key] for key in row) for row in request.references),
        subjects=tuple(request.subjects),
        reference_masks=masks,
    )
