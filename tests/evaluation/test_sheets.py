"""Contact sheets: where pictures land, how large, and which tasks are shown."""

import numpy as np
import pytest
import torch
from PIL import Image

from cgrpo.evaluation.show.sheets import GAP, MARGIN, SMALL, fit, grid, row_sheet, sample_sheet
from cgrpo.types import Batch


def plain(colour, size=(8, 8)):
    return Image.new("RGB", size, colour)


def batch_of(count, references=1, prompt="a toy"):
    ids = tuple(map(str, range(count)))
    return Batch(ids, (prompt,) * count, ((plain("red"),) * references,) * count, ("toy",) * count)


def colours(sheet):
    return {colour for _, colour in sheet.getcolors(sheet.width * sheet.height)}


def test_small_pictures_grow_by_a_whole_factor_and_stay_sharp():
    checks = Image.fromarray((np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)).convert("RGB")
    sheet = grid([[checks]])
    cell = np.asarray(sheet)[MARGIN : MARGIN + 128, MARGIN : MARGIN + 128]
    assert (cell == np.asarray(checks).repeat(4, 0).repeat(4, 1)).all()


def test_large_pictures_shrink_and_keep_their_shape():
    assert grid([[plain("red", (1024, 512))]]).width == 2 * MARGIN + 256
    assert fit(plain("red", (1024, 512)), 256, 256).size == (256, 128)


def test_every_picture_lands_in_its_cell():
    sheet = grid([[plain("red"), plain("lime")], [None, plain("blue")]])
    step = 128 + GAP
    centre = MARGIN + 64
    assert sheet.getpixel((centre, centre)) == (255, 0, 0)
    assert sheet.getpixel((centre + step, centre)) == (0, 255, 0)
    assert sheet.getpixel((centre, centre + step)) == (255, 255, 255)
    assert sheet.getpixel((centre + step, centre + step)) == (0, 0, 255)


def test_long_titles_are_wrapped_not_cut():
    short, long = grid([[plain("red")]], ["toy"]), grid([[plain("red")]], ["a small toy on the left " * 5])
    assert long.width == short.width and long.height > short.height


def test_samples_follow_their_prompts_reference():
    images_NHWC = torch.zeros(6, 8, 8, 3, dtype=torch.uint8)
    images_NHWC[4] = torch.tensor([0, 255, 0], dtype=torch.uint8)  # prompt 1, sample 1
    sheet = sample_sheet(images_NHWC, batch_of(2, references=2), 3)
    assert sheet.width == 2 * MARGIN + 5 * (128 + GAP) - GAP
    y, x = np.argwhere((np.asarray(sheet) == (0, 255, 0)).all(-1)).min(0)
    assert x == MARGIN + 3 * (128 + GAP) and y > sheet.height / 2
    scored = sample_sheet(
        images_NHWC, batch_of(2, references=2), 3, {"identity": torch.rand(6), "prompt": torch.rand(6)}
    )
    assert scored.height > sheet.height


def test_sample_sheet_refuses_pictures_that_do_not_fit_the_prompts():
    with pytest.raises(ValueError, match="5 pictures are not 2 prompts x 3"):
        sample_sheet(torch.zeros(5, 8, 8, 3, dtype=torch.uint8), batch_of(2), 3)


def test_odd_prompts_and_references_without_pictures_are_drawn():
    batch = Batch(("0",), ("",), ((),), ("",))
    assert colours(sample_sheet(torch.full((2, 8, 8, 3), 7, dtype=torch.uint8), batch, 2)) >= {(7, 7, 7)}
    sample_sheet(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), batch_of(2, prompt="ein Bär 小さい\n<b>"), 1)


def test_row_sheet_shows_reference_base_and_trained():
    base_NHWC = torch.zeros(6, 8, 8, 3, dtype=torch.uint8)
    trained_NHWC = base_NHWC + torch.tensor([0, 0, 255], dtype=torch.uint8)
    made = {"base": base_NHWC, "trained": trained_NHWC}
    sheet = row_sheet(batch_of(6), {"first": [4, 0, 1, 2, 3], "none": [], "last": [5]}, made)
    assert {(255, 0, 0), (0, 0, 0), (0, 0, 255)} <= colours(sheet)
    panel = 2 * MARGIN + 3 * SMALL + 2 * GAP
    assert sheet.width == 4 * panel
    blue = (np.asarray(sheet) == (0, 0, 255)).all(-1).sum()
    assert blue == 6 * SMALL**2
