"""Reading pictures as users have them, and UNO's reference resize against golden pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_flux import golden

from cgrpo.errors import UserError
from cgrpo.policies import read_picture
from cgrpo.policies.encodings.preprocess import resize_reference

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def test_resize_sizes() -> None:
    cases = golden("golden_uno/ref_resize.safetensors")["cases"].tolist()
    assert len(cases) == 78
    for width, height, long_side, out_width, out_height in cases:
        picture = Image.new("RGB", (width, height))
        assert resize_reference(picture, long_side, 16).size == (out_width, out_height), (width, height, long_side)


@pytest.mark.parametrize("name", ["down", "up", "sq"])
def test_resize_pixels(name: str) -> None:
    vectors = golden("golden_uno/ref_resize.safetensors")
    picture = Image.fromarray(vectors[f"img.{name}.in"].numpy())
    resized = resize_reference(picture, int(vectors[f"img.{name}.long"]), 16)
    assert np.array_equal(np.asarray(resized), vectors[f"img.{name}.out"].numpy())


def test_resize_for_a_smaller_autoencoder() -> None:
    assert resize_reference(Image.new("RGB", (40, 30)), 32, 8).size == (32, 24)


def test_resize_refuses_slivers() -> None:
    with pytest.raises(UserError, match="too narrow"):
        resize_reference(Image.new("RGB", (1000, 10)), 320, 16)


def saved(folder: Path, name: str, picture: Image.Image, **options: Any) -> Image.Image:
    picture.save(folder / name, **options)
    shown = read_picture(folder / name)
    assert shown.mode == "RGB"
    return shown


def test_exif_is_obeyed(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 20), RED)
    exif = picture.getexif()
    exif[0x0112] = 6  # the camera was held upright
    assert saved(tmp_path, "a.jpg", picture, exif=exif).size == (20, 40)


def test_palette_and_its_transparency(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([*GREEN, *RED])
    picture.putpixel((1, 0), 1)
    assert saved(tmp_path, "a.png", picture).getpixel((0, 0)) == GREEN
    shown = saved(tmp_path, "b.png", picture, transparency=0)
    assert shown.getpixel((0, 0)) == WHITE and shown.getpixel((1, 0)) == RED


@pytest.mark.parametrize("mode,clear", [("RGBA", (255, 0, 0, 0)), ("LA", (0, 0))])
def test_alpha_lies_on_white(tmp_path: Path, mode: str, clear: tuple[int, ...]) -> None:
    assert saved(tmp_path, "a.png", Image.new(mode, (4, 4), clear)).getpixel((0, 0)) == WHITE


def test_half_alpha_is_blended(tmp_path: Path) -> None:
    assert saved(tmp_path, "a.png", Image.new("RGBA", (4, 4), (0, 0, 0, 51))).getpixel((0, 0)) == (204, 204, 204)


def test_cmyk(tmp_path: Path) -> None:
    red, green, _ = saved(tmp_path, "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0))).getpixel((0, 0))  # type: ignore[misc]
    assert red > 240 and green < 20


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    shown = np.asarray(saved(tmp_path, "a.png", Image.fromarray(ramp)))
    assert shown[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize("name", ["a.gif", "a.mpo", "a.webp"])
def test_first_frame(tmp_path: Path, name: str) -> None:
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), GREEN)
    red, green, _ = saved(tmp_path, name, first, save_all=True, append_images=[second]).getpixel((0, 0))  # type: ignore[misc]
    assert red > 240 and green < 20


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey(tmp_path: Path, mode: str) -> None:
    assert saved(tmp_path, "a.png", Image.new(mode, (4, 4), 255)).getpixel((0, 0)) == WHITE


def test_missing_and_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(UserError, match="no such picture") as caught:
            read_picture(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_no_picture(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(UserError, match="bad.png") as caught:
        read_picture(tmp_path / "bad.png")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg"])
def test_cut_short(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=name):
        read_picture(tmp_path / name)


@pytest.mark.parametrize("limit", [99, 40])  # Pillow warns above the limit and refuses above its double
def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    Image.new("RGB", (10, 10)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UserError, match="bomb.png.*pixels"):
        read_picture(tmp_path / "bomb.png")


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(UserError, match="32-bit"):
        read_picture(tmp_path / "a.tiff")
