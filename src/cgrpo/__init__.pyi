"""The types of the names in __init__.py, which loads them on first use."""

from cgrpo.algorithm import *  # noqa: F403 - its names are listed there
from cgrpo.app.analyze import analyze_conflict as analyze_conflict
from cgrpo.app.analyze import analyze_copying as analyze_copying
from cgrpo.app.analyze import analyze_decisions as analyze_decisions
from cgrpo.app.analyze import analyze_gradients as analyze_gradients
from cgrpo.app.analyze import analyze_shaping as analyze_shaping
from cgrpo.app.analyze import analyze_spectrum as analyze_spectrum
from cgrpo.app.evaluate import evaluate_adapters as evaluate_adapters
from cgrpo.app.evaluate import evaluate_dreambench as evaluate_dreambench
from cgrpo.app.evaluate import evaluate_manifest as evaluate_manifest
from cgrpo.app.evaluate import evaluate_toybox as evaluate_toybox
from cgrpo.app.requests import AnalysisRequest as AnalysisRequest
from cgrpo.app.requests import EvaluationRequest as EvaluationRequest
from cgrpo.app.run import train as train
from cgrpo.app.sample import sample as sample
from cgrpo.build import load_policy as load_policy
from cgrpo.config import load_config as load_config
from cgrpo.evaluation.pages.comparison import write_comparison as write_comparison
from cgrpo.evaluation.statistics.comparison import compare_methods as compare_methods
from cgrpo.rewards import load_reward as load_reward
from cgrpo.scores import read_scores as read_scores

__version__: str
