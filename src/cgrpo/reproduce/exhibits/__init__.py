"""The paper's figures, its table of seconds, and exhibits of our own, in a dictionary by name."""

from cgrpo.reproduce.exhibits import copying, planes, single_runs, table8
from cgrpo.reproduce.exhibits.base import Drawing, Exhibit, TableRuns, rows_of

EXHIBITS: dict[str, Exhibit] = {
    "table8": table8.EXHIBIT,
    "figure1": planes.FIGURE1,
    "figure2": single_runs.FIGURE2,
    "figure3": single_runs.FIGURE3,
    "figure4": single_runs.FIGURE4,
    "figure6": planes.FIGURE6,
    "figure7": single_runs.FIGURE7,
    "front": planes.FRONT,
    "gallery": single_runs.GALLERY,
    "copy-curves": copying.CURVES_EXHIBIT,
    "copy-pictures": copying.PICTURES_EXHIBIT,
}

__all__ = ["EXHIBITS", "Drawing", "Exhibit", "TableRuns", "rows_of"]
