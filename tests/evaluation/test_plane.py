"""Notes in the plane of both judges do not cover each other."""

from itertools import combinations

from cgrpo.evaluation.show.plots import INK, Spot, canvas, draw_plane


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
