"""Why a run learns what it learns: numbers, a table and a plot of any run, or of the base.

subject     what is analysed, and groups drawn as its training draws them
decisions   which step decides which reward, by branching; weights measured from it
conflict    how often the rewards disagree about a sample, and what such a sample is worth
shaping     what SARS is beside a scaled plain sum
gradients   whether the rewards pull the same way, step by step or level by level
spectrum    when structure and detail of the picture come to be

Each has ``measure_...(subject, ...)``, which needs a policy, and pure functions of what was measured.
"""

from cgrpo.analysis.conflict import Conflict, conflict, measure_conflict
from cgrpo.analysis.decisions import Decisions, branching, measure_decisions
from cgrpo.analysis.gradients import Gradients, measure_gradients, with_gradients
from cgrpo.analysis.shaping import ShapingFound, measure_shaping, shaping_against_sum
from cgrpo.analysis.spectrum import Spectrum, measure_spectrum
from cgrpo.analysis.subject import Found, Subject, grouped

__all__ = [
    "Conflict",
    "Decisions",
    "Found",
    "Gradients",
    "ShapingFound",
    "Spectrum",
    "Subject",
    "branching",
    "conflict",
    "grouped",
    "measure_conflict",
    "measure_decisions",
    "measure_gradients",
    "measure_shaping",
    "measure_spectrum",
    "shaping_against_sum",
    "with_gradients",
]
