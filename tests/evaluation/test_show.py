"""What pages show: numbers and tables, the skeleton of every page, curves, the plane, and contact sheets."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image

from cgrpo.evaluation.show import plots
from cgrpo.evaluation.show.page import Details, Facts, Page, Plots, Section, Text, Verdict
from cgrpo.evaluation.show.plots import INK, Spot, canvas, draw_plane
from cgrpo.evaluation.show.sheets import GAP, MARGIN, SMALL, fit, grid, row_sheet, sample_sheet
from cgrpo.evaluation.show.table import DASH, MINUS, Cell, Table, interval, number, p_value, sentence
from cgrpo.types import Batch

NAN = math.nan
EVIL = "<b>a|b & 5%</b>"
TABLE = Table(
    "Some <numbers>",
    "A note.",
    ["Method", "Kind", "Gain"],
    [[Cell(EVIL, dot="identity"), "plain", Cell("\N{MINUS SIGN}0.5", "fell")], ["base", "property", "12.25"]],
    "llr",
)


def test_html_escapes_everything_and_colours_what_is_told():
    html = TABLE.__html__()
    assert "<b>" not in html and "&lt;b&gt;a|b &amp; 5%&lt;/b&gt;" in html
    assert 'aria-label="Some &lt;numbers&gt;"' in html
    assert '<span class="dot identity" aria-hidden="true"></span>' in html
    assert '<td class="fell">\N{MINUS SIGN}0.5</td>' in html and "<td>12.25</td>" in html
    assert html.count('<th scope="row" class="text">') == 2 and html.count('<th scope="col">') == 1


def test_markdown_keeps_its_cells():
    assert TABLE.markdown().splitlines() == [
        "## Some &lt;numbers>",
        "",
        "A note.",
        "",
        "| Method | Kind | Gain |",
        "| --- | --- | ---: |",
        "| &lt;b>a\\|b & 5%&lt;/b> | plain | \N{MINUS SIGN}0.5 |",
        "| base | property | 12.25 |",
    ]


def test_latex_escapes_and_aligns():
    text = TABLE.latex()
    assert r"\begin{tabular}{llr}" in text and r"\caption{Some $<$numbers$>$. A note.}" in text
    assert r"$<$b$>$a|b \& 5\%$<$/b$>$ & plain & $-$0.5 \\" in text


def test_a_terminal_gets_columns():
    table = Table("", "", ["", "clip"], [["base", "0.25"], ["uno-tdw", "0.3"]], "lr")
    assert table.text() == "         clip\nbase     0.25\nuno-tdw   0.3"


@pytest.mark.parametrize("row", [["one"], ["one", "two", "three", "four"]])
def test_a_row_of_another_width_is_no_row(row):
    with pytest.raises(ValueError):
        Table("", "", ["a", "b"], [row], "lr").__html__()


def test_a_page_is_its_lead_and_its_sections():
    page = Page(
        f"Title {EVIL}",
        [Verdict("rose", EVIL), Text(EVIL, "caution"), Facts([("seed", 3)])],
        [
            Section("one", "First", [Text("words", "muted"), *TABLE.noted()]),
            Section("two", "Second", [Plots(["<svg></svg>", ""]), Details("more", [Text(EVIL)])]),
        ],
        links=[("two", "To the second")],
        style=".own { color: red; }",
    ).render()
    assert "<b>" not in page and page.count("<h1>") == 1
    assert page.index('class="verdict rose"') < page.index('class="caution"') < page.index("<dt>seed</dt><dd>3</dd>")
    assert page.index('<h2 id="one">First</h2>') < page.index("A note.") < page.index('<h2 id="two">Second</h2>')
    assert page.count("<svg></svg>") == 1 and '<a href="#two">To the second</a>' in page
    assert ".own { color: red; }" in page and "--identity:" in page and "<script" not in page
    assert 'class="wide"' not in page


def test_plots_that_there_are_none_of_leave_nothing():
    assert Plots(["", ""]).__html__() == ""


def test_words():
    minus, dash = "\N{MINUS SIGN}", "\N{EN DASH}"
    assert (
        interval(-0.01, 0.2) == f"{minus}0.010 to +0.200" and interval(None, 0.5, 1, signed=False) == f"{dash} to 0.5"
    )
    assert (p_value(0.0004), p_value(0.25)) == ("< 0.001", "0.250")
    assert sentence("no check was better") == "No check was better."


def test_an_interval_may_go_below_its_number_on_a_page_alone() -> None:
    table = Table("t", "n", ["", "found"], [["a", "+0.1 [+0.0 to +0.3]"], ["b [c", "1"]], "lr")
    assert '+0.1 <span class="range">[+0.0 to +0.3]</span></td>' in table.__html__()
    assert "b [c</th>" in table.__html__() and "| +0.1 [+0.0 to +0.3] |" in table.markdown()


def test_notes_of_neighbours_stand_apart() -> None:
    """Marks that lie close together, as methods do that differ little."""
    points = {"base": (0.0, 0.0), "naive GRPO 1:1": (0.4, 0.3), "Customized-GRPO": (0.395, 0.3), "far": (1.0, 1.0)}
    _, axes = canvas("plane", (6, 4))
    draw_plane(axes, [Spot(point, INK, note=name) for name, point in points.items()], "identity", "prompt")
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert boxes.keys() == points.keys()
    assert not any(first.overlaps(second) for first, second in combinations(boxes.values(), 2))


def test_notes_are_not_cut_off_where_they_fit() -> None:
    """A long note of the mark furthest to the right, whose other places are taken."""
    points = {"base": (0.0, 0.0), "a method with a long name": (1.0, 0.0), "SFT": (1.0, 0.03)}
    _, axes = canvas("plane", (6, 4))
    draw_plane(axes, [Spot(point, INK, note=name) for name, point in points.items()], "identity", "prompt")
    within = axes.get_window_extent()
    assert all(within.contains(*corner) for text in axes.texts for corner in text.get_window_extent().corners())


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


def test_numbers():
    assert [number(v) for v in (0.12345, -1, None, NAN, math.inf, "x")] == ["0.123", MINUS + "1.000"] + 4 * [DASH]
    assert number(0.5, 1, signed=True) == "+0.5"


def test_curve_leaves_out_what_is_no_number():
    rows = [{"iteration": i, "a": v} for i, v in enumerate([1.0, None, NAN, 3.0])]
    assert "2 iterations, moving mean from 1 to 3" in plots.curve(rows, "a", "title")
    assert plots.curve(rows, "b", "title") == "" == plots.curve([], "a", "title")
    assert plots.curve([{"iteration": 0, "a": 0.0}], "a", "title", scale="log") == ""


def test_moving_mean_by_hand():
    values = [float(i == 24) for i in range(48)]  # half a window is 48 // 24 = 2
    smooth = plots.moving_mean(values)
    assert [round(v, 3) for v in smooth[21:28]] == [0, 0.2, 0.2, 0.2, 0.2, 0.2, 0]
    assert all(math.isnan(v) for v in plots.moving_mean([NAN, NAN]))
