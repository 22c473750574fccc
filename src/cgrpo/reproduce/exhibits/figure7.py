"""Figure 7: how many samples of a group are in conflict, and what they are worth."""

from cgrpo.analysis import measure_conflict
from cgrpo.reproduce.exhibits.analysed import analysed
from cgrpo.reproduce.exhibits.made import Exhibit

ROW = "naive GRPO 1:1"
EXHIBIT = Exhibit(
    "Reward conflict, and what SARS makes of it",
    "Figure 7",
    analysed("table2", ROW, measure_conflict, 300),
    {"table2": [ROW]},
)
