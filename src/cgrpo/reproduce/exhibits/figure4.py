"""Figure 4: energy of the predicted picture over steps, in a low and a high band."""

from cgrpo.analysis import measure_spectrum
from cgrpo.reproduce.exhibits.analysed import analysed
from cgrpo.reproduce.exhibits.made import Exhibit

ROW = "Customized-GRPO"
EXHIBIT = Exhibit(
    "When structure and detail come to be", "Figure 4", analysed("table2", ROW, measure_spectrum, 96), {"table2": [ROW]}
)
