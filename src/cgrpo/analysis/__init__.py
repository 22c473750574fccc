"""Why a run learns what it learns: numbers, a table and a plot of any run, or of the base.

inputs      what all analyses share: a policy with tasks and rewards, groups drawn as its training draws them, estimates
decisions   which step decides which reward, by branching; weights measured from it
conflict    how often the rewards disagree about a sample, and what such a sample is worth
shaping     what SARS is compared with a scaled plain sum
gradients   whether the rewards pull the same way, step by step or level by level
spectrum    when structure and detail of the picture come to be
copying     whether a base is in danger of learning to copy its reference; votes: how SARS votes on copies

Each has ``measure_...(inputs, ...)``, which needs a policy and returns a ``Result``, and pure functions of what was
measured.
"""

from cgrpo.analysis.conflict import conflict, measure_conflict
from cgrpo.analysis.copying import copying, measure_copying
from cgrpo.analysis.decisions import branching, measure_decisions
from cgrpo.analysis.gradients import measure_gradients, with_gradients
from cgrpo.analysis.inputs import AnalysisInputs, Result, grouped
from cgrpo.analysis.shaping import measure_shaping, shaping_against_sum
from cgrpo.analysis.spectrum import measure_spectrum

__all__ = [
    "AnalysisInputs",
    "Result",
    "branching",
    "conflict",
    "copying",
    "grouped",
    "measure_conflict",
    "measure_copying",
    "measure_decisions",
    "measure_gradients",
    "measure_shaping",
    "measure_spectrum",
    "shaping_against_sum",
    "with_gradients",
]
