"""The paper's figures, and its table of seconds: a file an exhibit, in a dictionary by name."""

from cgrpo.reproduce.exhibits import (
    copying,
    figure1,
    figure2,
    figure3,
    figure4,
    figure6,
    figure7,
    front,
    gallery,
    table8,
)
from cgrpo.reproduce.exhibits.made import Exhibit, Made, Shown, rows_of

EXHIBITS: dict[str, Exhibit] = {
    "table8": table8.EXHIBIT,
    "figure1": figure1.EXHIBIT,
    "figure2": figure2.EXHIBIT,
    "figure3": figure3.EXHIBIT,
    "figure4": figure4.EXHIBIT,
    "figure6": figure6.EXHIBIT,
    "figure7": figure7.EXHIBIT,
    "front": front.EXHIBIT,
    "gallery": gallery.EXHIBIT,
    "copy-curves": copying.CURVES_EXHIBIT,
    "copy-pictures": copying.PICTURES_EXHIBIT,
}

__all__ = ["EXHIBITS", "Exhibit", "Made", "Shown", "rows_of"]
