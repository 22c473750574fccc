"""The paper's figures, its table of seconds, and exhibits of our own, in a dictionary by name."""

from cgrpo.reproduce.exhibits import copying, of_runs, planes, table8
from cgrpo.reproduce.exhibits.made import Exhibit, Made, Shown, rows_of

EXHIBITS: dict[str, Exhibit] = {
    "table8": table8.EXHIBIT,
    "figure1": planes.FIGURE1,
    "figure2": of_runs.FIGURE2,
    "figure3": of_runs.FIGURE3,
    "figure4": of_runs.FIGURE4,
    "figure6": planes.FIGURE6,
    "figure7": of_runs.FIGURE7,
    "front": planes.FRONT,
    "gallery": of_runs.GALLERY,
    "copy-curves": copying.CURVES_EXHIBIT,
    "copy-pictures": copying.PICTURES_EXHIBIT,
}

__all__ = ["EXHIBITS", "Exhibit", "Made", "Shown", "rows_of"]
