"""Masks are read for what they are; one that can't be is reported, with its row."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.datasets import scene, write_rows

from cgrpo.data import check_manifest
from cgrpo.data.masks import read_mask
from cgrpo.data.sources import ManifestSource
from cgrpo.errors import UserError

INSIDE = np.zeros((32, 32), dtype=bool)
INSIDE[8:24, 4:20] = True
DAVIS = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]  # the first colours of its palette


def labels(values: np.ndarray) -> Image.Image:
    picture = Image.fromarray(values.astype(np.uint8), "P")
    picture.putpalette(DAVIS)
    return picture


def grey(values: np.ndarray, dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(values.astype(dtype))


MASKS = {
    "black and white": grey(255 * INSIDE),
    "one label, 2": grey(2 * INSIDE),
    "one label, 18": grey(18 * INSIDE),
    "one label, 100": grey(100 * INSIDE),
    "16 bits, one label, 1000": grey(1000 * INSIDE, np.uint16),
    "one bit": Image.fromarray(INSIDE),
    "0 and 1": grey(INSIDE),
    "16 bits": grey(65535 * INSIDE, np.uint16),
    "16 bits, 0 and 1": grey(INSIDE, np.uint16),
    "16 bits, 0 and 255": grey(255 * INSIDE, np.uint16),
    "DAVIS": labels(INSIDE),
    "DAVIS, the second label": labels(2 * INSIDE),
    "colour": labels(INSIDE).convert("RGB"),
    "grey palette": grey(255 * INSIDE).convert("P"),
    "RGB": grey(255 * INSIDE).convert("RGB"),
    "opaque": grey(255 * INSIDE).convert("RGBA"),
}


def manifest(folder: Path, mask: Image.Image) -> Path:
    scene(0, 32).save(folder / "r.png")
    mask.save(folder / "m.png")
    return write_rows(folder / "m.json", {"prompt": "x", "references": ["r.png"], "masks": ["m.png"]})


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_read_for_what_it_is(tmp_path: Path, name: str) -> None:
    listed = manifest(tmp_path, MASKS[name])
    ((mask,),) = ManifestSource(listed).batch([0]).reference_masks or ()
    assert mask is not None and np.array_equal(np.asarray(mask), 255 * INSIDE.astype(np.uint8))
    assert check_manifest(listed).problems == ()


def cut_out() -> Image.Image:
    picture = Image.new("RGBA", (32, 32))
    picture.putalpha(grey(255 * INSIDE))
    return picture


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (cut_out(), "in an alpha channel"),
        (labels(INSIDE + 2 * INSIDE.T), "a map of [23] labels"),
        (grey(70000 * INSIDE, np.int32), "32-bit"),
    ],
)
def test_a_mask_that_may_mean_two_things_is_refused(tmp_path: Path, mask: Image.Image, says: str) -> None:
    mask.save(tmp_path / "m.tif")
    with pytest.raises(UserError, match=f"m.tif: .*{says}"):
        read_mask(tmp_path / "m.tif")


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (cut_out(), "in an alpha channel"),
        (labels(INSIDE + 2 * INSIDE.T), "labels"),
        (grey(0 * INSIDE), "is empty"),
        (grey(2 * INSIDE + INSIDE.T), "is empty"),  # several labels, perhaps: not for us to say
        (grey(0 * INSIDE + 255), "is full"),
        (grey(255 * INSIDE[:16]), "of another shape than its picture: 32 x 16, not 32 x 32"),
    ],
)
def test_the_check_reports_masks_at_fault(tmp_path: Path, mask: Image.Image, says: str) -> None:
    (problem,) = check_manifest(manifest(tmp_path, mask)).problems
    assert (problem.id, problem.row, problem.kind) == ("0", 0, "mask")
    assert says in problem.message and "m.png" in problem.message


def test_training_says_that_a_mask_is_empty(tmp_path: Path, capsys) -> None:
    from cgrpo.data.masks import say_empty

    say_empty.cache_clear()
    source = ManifestSource(manifest(tmp_path, grey(0 * INSIDE)))
    for _ in range(2):
        source.batch([0])
    assert capsys.readouterr().err.count("a mask is empty") == 1


def test_masks_are_black_and_white_and_as_large_as_their_pictures(tmp_path: Path) -> None:
    levels = np.zeros((32, 32), np.uint8)
    levels[:, 8:16], levels[:, 16:] = 8, 9
    grey(levels).save(tmp_path / "m.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "r.png")
    Image.new("RGB", (64, 48)).save(tmp_path / "wide.png")
    row = {"prompt": "x", "references": ["r.png", "wide.png"], "masks": ["m.png"] * 2, "mask_threshold": 8}
    ((fitted, other),) = ManifestSource(write_rows(tmp_path / "m.json", row)).batch([0]).reference_masks or ()
    assert fitted is not None and other is not None
    assert (fitted.size, fitted.mode, other.size) == ((64, 64), "L", (32, 32))
    assert np.unique(np.asarray(fitted)).tolist() == [0, 255]
    assert (np.asarray(fitted)[:, :31] == 0).all() and (np.asarray(fitted)[:, 33:] == 255).all()
