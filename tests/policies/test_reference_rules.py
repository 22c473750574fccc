"""Reference rules: UNO's training buckets and Kontext's sizes against their sources, and UNO's order of conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS
from PIL import Image
from support.tiny_flux import golden
from torch.nn.functional import interpolate

from cgrpo.data.archives import open_picture
from cgrpo.errors import UserError
from cgrpo.policies.encodings.preprocess import prepare_reference
from cgrpo.policies.flux.references import KONTEXT_SIZES, UNO_BUCKETS, kontext_size, resize_reference


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.merge(mode, [Image.fromarray(pixels[..., i]) for i in range(bands)])


def difference(one: Image.Image, other: Image.Image) -> int:
    assert one.size == other.size and one.mode == other.mode == "RGB"
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other)).max())


def test_uno_is_the_inference_rule() -> None:
    picture = noise(100, 70)
    assert difference(prepare_reference(picture, "uno", 64, 16), resize_reference(picture, 64, 16)) == 0


def test_uno_train_sizes() -> None:
    cases = golden("golden_uno/ref_resize.safetensors")["bucket_cases"].tolist()
    assert len(cases) == 24
    for width, height, side, out_width, out_height in cases:
        picture = Image.new("RGB", (width, height))
        assert prepare_reference(picture, "uno-train", side, 16).size == (out_width, out_height), (width, height, side)


@pytest.mark.parametrize(
    "size,expected",
    [
        ((220, 100), (704, 320)),
        ((240, 100), (768, 320)),  # 2.4
        ((100, 220), (320, 704)),
        ((100, 240), (320, 768)),
        ((1000, 100), (768, 256)),  # beyond the widest
        ((32, 89), (256, 768)),  # 2.78: nearer to 3 than to 2.4
    ],
)
def test_uno_train_sizes_that_golden_cases_miss(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert prepare_reference(Image.new("RGB", size), "uno-train", 512, 16).size == expected


def test_uno_train_ratios_are_those_after_flooring() -> None:
    """At 320, 576 x 448 becomes 360 x 280 and then 352 x 272 (ratio 0.773, before 0.778)."""
    assert len(UNO_BUCKETS) == 11
    halfway = (0.6 + 272 / 352) / 2  # to 400 x 240
    near = Image.new("RGB", (1000, round(1000 * halfway) + 1))
    assert prepare_reference(near, "uno-train", 320, 16).size == (352, 272)
    assert near.height / near.width < (0.6 + 280 / 360) / 2  # unfloored, it would have gone to 400 x 240


def test_uno_train_pixels() -> None:
    """Antialiased bilinear of floats, as the training code resizes; ours is rounded to 8 bits."""
    picture = noise(130, 90)
    made = prepare_reference(picture, "uno-train", 64, 16)
    assert made.size == (64, 48)  # 576 x 448 / 8 is 72 x 56
    raw = torch.from_numpy(np.asarray(picture).astype(np.float32)).permute(2, 0, 1)[None]
    exact = interpolate(raw, (48, 64), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(made) - exact).max() < 1


def test_kontext_table() -> None:
    assert KONTEXT_SIZES == PREFERRED_KONTEXT_RESOLUTIONS


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (300, 300), (900, 200), (1000, 937)])
def test_kontext_equals_the_pipeline(size: tuple[int, int]) -> None:
    """The lines of FluxKontextPipeline that prepare its picture, by its own image processor."""
    picture, processor = noise(*size), VaeImageProcessor(vae_scale_factor=16)
    height, width = processor.get_default_height_width(picture)  # pyright: ignore
    _, width, height = min((abs(width / height - w / h), w, h) for w, h in PREFERRED_KONTEXT_RESOLUTIONS)
    theirs = processor.preprocess(processor.resize(picture, height, width), height, width)  # pyright: ignore
    ours = prepare_reference(picture, "kontext", 1024, 16)
    assert torch.equal(processor.preprocess(ours, ours.height, ours.width), theirs)


def test_kontext_takes_the_pipelines_size_for_every_shape() -> None:
    """Both sides are floored to 16 before the ratio is taken: 7 % of shapes go elsewhere without that."""
    differs = 0
    for width in range(16, 2100, 29):
        for height in range(16, 2100, 31):
            ratio = (width // 16 * 16) / (height // 16 * 16)
            _, *theirs = min((abs(ratio - w / h), w, h) for w, h in PREFERRED_KONTEXT_RESOLUTIONS)
            assert kontext_size((width, height), 16) == tuple(theirs), (width, height)
            differs += tuple(theirs) != kontext_size((width, height), 1)
    assert differs > 100
    assert prepare_reference(noise(1080, 1350), "kontext", 1024, 16).size == (880, 1184)
    assert prepare_reference(noise(300, 9), "kontext", 1024, 16).size == (1568, 672)


def test_kontext_scales_down() -> None:
    """640 : 480 is nearest to 1184 x 880; at 64 that is 74 x 55."""
    assert prepare_reference(noise(640, 480), "kontext", 1024, 16).size == (1184, 880)
    assert prepare_reference(noise(640, 480), "kontext", 64, 16).size == (64, 48)
    assert prepare_reference(noise(640, 480), "kontext", 64, 8).size == (72, 48)


@pytest.mark.parametrize("rule", ["uno-train", "kontext"])
def test_too_small_a_size_is_refused(rule: Any) -> None:
    with pytest.raises(UserError, match="reference_size 8"):
        prepare_reference(noise(90, 10), rule, 8, 16)


# Transparency dropped, as UNO does: Image.open, resize, crop, convert("RGB").


def uno(path: Path, long_side: int) -> Image.Image:
    """UNO's order on a picture whose sides scale to whole tokens."""
    opened = Image.open(path)
    scale = long_side / max(opened.size)
    size = (round(opened.width * scale), round(opened.height * scale))
    return opened.resize(size, Image.Resampling.LANCZOS).convert("RGB")


def dropped(path: Path, long_side: int = 32) -> Image.Image:
    return prepare_reference(open_picture(path, "drop"), "uno", long_side, 16)


@pytest.mark.parametrize("mode,name", [("RGBA", "a.png"), ("LA", "a.png"), ("CMYK", "a.tiff"), ("L", "a.png")])
def test_drop_is_unos_order(tmp_path: Path, mode: str, name: str) -> None:
    noise(96, 48, mode).save(tmp_path / name)
    read = open_picture(tmp_path / name, "drop")
    assert read.mode == mode
    assert difference(dropped(tmp_path / name), uno(tmp_path / name, 32)) == 0
    # The order matters: converted first, the same picture comes out otherwise (grey aside).
    assert (difference(resize_reference(read.convert("RGB"), 32, 16), dropped(tmp_path / name)) > 0) == (mode != "L")


@pytest.mark.parametrize("options", [{}, {"transparency": 0}])
def test_drop_with_a_palette(tmp_path: Path, options: dict[str, Any]) -> None:
    """Palettes are resized to the nearest pixel, and a transparent entry shows its colour."""
    noise(96, 48).quantize(16).save(tmp_path / "a.png", **options)
    assert open_picture(tmp_path / "a.png", "drop").mode == "P"
    assert difference(dropped(tmp_path / "a.png"), uno(tmp_path / "a.png", 32)) == 0
    white = prepare_reference(open_picture(tmp_path / "a.png"), "uno", 32, 16)
    assert difference(white, dropped(tmp_path / "a.png")) > 0


def test_drop_shows_what_lay_under_transparency(tmp_path: Path) -> None:
    half = Image.new("RGBA", (32, 32), (200, 40, 40, 128))
    half.save(tmp_path / "a.png")
    assert dropped(tmp_path / "a.png").getpixel((5, 5)) == (200, 40, 40)
    white = prepare_reference(open_picture(tmp_path / "a.png"), "uno", 32, 16)
    assert white.getpixel((5, 5)) == (227, 147, 147)  # 255 - 128 / 255 * (255 - 200), (255 - 40)


def test_drop_scales_sixteen_bits(tmp_path: Path) -> None:
    Image.fromarray(np.full((32, 32), 257 * 100, dtype=np.uint16)).save(tmp_path / "a.png")
    assert dropped(tmp_path / "a.png").getpixel((0, 0)) == (100, 100, 100)


@pytest.mark.parametrize("alpha", ["white", "drop"])
def test_both_turn_by_exif(tmp_path: Path, alpha: Any) -> None:
    picture = noise(64, 32, "RGBA")
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    assert open_picture(tmp_path / "a.png", alpha).size == (32, 64)


@pytest.mark.parametrize("rule", ["uno", "uno-train", "kontext"])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "CMYK", "1", "P"])
def test_rules_end_in_rgb(rule: Any, mode: str) -> None:
    assert prepare_reference(Image.new(mode, (40, 30)), rule, 64, 16).mode == "RGB"


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
