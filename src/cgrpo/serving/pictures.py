"""References and masks that clients have sent, so that each travels once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping

from PIL.Image import Image


class PictureStore:
    """The last pictures by key, up to ``limit`` bytes of pixels together. Safe to use from several threads."""

    def __init__(self, limit: int):
        self._limit, self._size = limit, 0
        self._known: OrderedDict[str, Image] = OrderedDict()
        self._lock = threading.Lock()

    def resolve(self, wanted: Collection[str], sent: Mapping[str, Image]) -> tuple[dict[str, Image], list[str]]:
        """The ``wanted`` pictures, from those just ``sent`` or known; and the keys that are neither."""
        with self._lock:
            found = {key: sent.get(key) or self._known.get(key) for key in wanted}
            pictures = {key: picture for key, picture in found.items() if picture is not None}
            for key, picture in {**sent, **pictures}.items():
                self._keep(key, picture)
            return pictures, sorted(key for key, picture in found.items() if picture is None)

    def _keep(self, key: str, picture: Image) -> None:
        if key not in self._known:
            self._size += _bytes(picture)
        self._known[key] = picture
        self._known.move_to_end(key)
        while self._size > self._limit:
            self._size -= _bytes(self._known.popitem(last=False)[1])


def _bytes(picture: Image) -> int:
    return picture.width * picture.height * len(picture.getbands())
