"""What a reward's client and its server say to each other: typed JSON, pictures without loss, nothing pickled.

``GET /health`` -> Health. ``POST /score``, a ScoreRequest -> Scores. Anything but a 200 carries a Refusal.

Generated pictures travel as differences under zlib. References and masks travel as PNG, once: afterwards a request
names them by the SHA-256 of their pixels, and a server that has forgotten one answers 409 with the keys to send.
The world's ground truth (``Batch.spec``) does not travel: no reward may look at it.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Mapping
from importlib import metadata
from typing import Annotated, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cgrpo.fingerprint import of_picture
from cgrpo.rewards.base import Axis
from cgrpo.types import Batch

PROTOCOL = 1  # of these messages
MAX_PIXELS = 2**28  # of all pictures in a request together: 805 MB
MAX_ROWS = 65536
PACKAGES = ("customized-grpo", "torch", "transformers", "numpy", "pillow")

Key = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Texts = Annotated[list[Annotated[str, Field(max_length=100_000)]], Field(max_length=MAX_ROWS)]
Side = Annotated[int, Field(ge=1, le=65536)]


class Message(BaseModel):
    """Frozen; bytes are base64 in JSON."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")


class Pixels(Message):
    """N pictures of one size, uint8 [N, H, W, 3]: each pixel less its left neighbour, modulo 256, under zlib."""

    shape: tuple[Annotated[int, Field(ge=1, le=MAX_ROWS)], Side, Side, Literal[3]]
    data: bytes


class ScoreRequest(Message):
    """N pictures and their tasks. ``references`` and ``masks`` are keys; ``sent`` holds the PNGs the server needs."""

    model_config = ConfigDict(extra="forbid")

    reward: str
    pictures: Pixels
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


def pack_images(images_NHWC: Tensor) -> Pixels:
    """uint8 [N, H, W, 3] without loss."""
    count, height, width, channels = images_NHWC.shape
    if images_NHWC.dtype != torch.uint8 or channels != 3:
        raise ValueError(f"pictures must be uint8 [N, H, W, 3], not {images_NHWC.dtype} {list(images_NHWC.shape)}")
    pixels = images_NHWC.cpu().numpy()
    change = pixels.copy()
    change[:, :, 1:] -= pixels[:, :, :-1]
    # Photos shrink to about half; run lengths alone, since looking for repetitions costs seven times as long for less.
    deflate = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return Pixels(shape=(count, height, width, 3), data=deflate.compress(change.tobytes()) + deflate.flush())


def unpack_images(pixels: Pixels) -> Tensor:
    """uint8 [N, H, W, 3]. Never inflates beyond the size it states; ValueError where it isn't what it says."""
    size = math.prod(pixels.shape)
    if size > 3 * MAX_PIXELS:
        raise ValueError(f"pictures of {size // 3} pixels together; the limit is {MAX_PIXELS}")
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(pixels.data, size + 1)
    except zlib.error as error:
        raise ValueError(f"pictures can't be read ({error})") from error
    if len(raw) != size or not inflate.eof or inflate.unused_data:
        raise ValueError(f"pictures are not the {size} bytes of their shape {list(pixels.shape)}")
    change = np.frombuffer(raw, dtype=np.uint8).reshape(pixels.shape)
    return torch.from_numpy(np.cumsum(change, axis=2, dtype=np.uint8))


def pack_picture(picture: Image.Image) -> bytes:
    """PNG of an RGB or L picture."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def unpack_pictures(sent: Mapping[str, bytes]) -> dict[str, Image.Image]:
    """RGB or L pictures by key. Sizes are looked at before anything is inflated; ValueError for one that is wrong."""
    opened = {key: _open(data) for key, data in sent.items()}
    if sum(picture.width * picture.height for picture in opened.values()) > MAX_PIXELS:
        raise ValueError(f"references of more than {MAX_PIXELS} pixels together")
    for key, picture in opened.items():
        try:
            picture.load()
        except Exception as error:  # a broken file shows in many ways
            raise ValueError(f"a reference can't be read ({error})") from error
        if of_picture(picture) != key:
            raise ValueError("a reference is not the picture that its key names")
    return opened


def _open(data: bytes) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(data), formats=["PNG"])
    except Exception as error:
        raise ValueError(f"a reference is no readable PNG ({error})") from error
    if picture.mode not in ("RGB", "L"):
        raise ValueError(f"a reference has mode {picture.mode}; send RGB, and masks as L")
    return picture


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
        pictures=pack_images(images_NHWC),
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
    count = request.pictures.shape[0]
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
