"""Customized-GRPO: online reinforcement learning of subject-driven image generators with rewards that compete.

The names below are loaded on first use, so that ``import cgrpo`` and ``import cgrpo.config`` pull no torch.
"""

import importlib
import importlib.util
import logging
from typing import Any

__version__ = "0.1.0"

# Libraries that warn on import of what no user of ours can change.
for _name in ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer", "matplotlib"):
    if (_logger := logging.getLogger(_name)).level == logging.NOTSET:  # a user's own level stays
        _logger.setLevel(logging.ERROR)

_EXPORTS = {
    "AnalysisRequest": "cgrpo.app.requests",
    "EvaluationRequest": "cgrpo.app.requests",
    "analyze_conflict": "cgrpo.app.analyze",
    "analyze_copying": "cgrpo.app.analyze",
    "analyze_decisions": "cgrpo.app.analyze",
    "analyze_gradients": "cgrpo.app.analyze",
    "analyze_shaping": "cgrpo.app.analyze",
    "analyze_spectrum": "cgrpo.app.analyze",
    "compare_methods": "cgrpo.evaluation.statistics.comparison",
    "evaluate_adapters": "cgrpo.app.evaluate",
    "evaluate_dreambench": "cgrpo.app.evaluate",
    "evaluate_manifest": "cgrpo.app.evaluate",
    "evaluate_toybox": "cgrpo.app.evaluate",
    "load_config": "cgrpo.config",
    "load_policy": "cgrpo.build",
    "load_reward": "cgrpo.rewards",
    "read_scores": "cgrpo.scores",
    "sample": "cgrpo.app.sample",
    "train": "cgrpo.app.run",
    "write_comparison": "cgrpo.evaluation.pages.comparison",
}
"""The algorithm's functions come on top, as ``cgrpo.algorithm`` lists them."""


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    if name == "__all__" or not (name.startswith("_") or importlib.util.find_spec(f"cgrpo.{name}")):
        algorithm = importlib.import_module("cgrpo.algorithm")
        functions = [name for name in algorithm.__all__ if name.islower()]
        if name == "__all__":
            return sorted([*_EXPORTS, *functions, "__version__"])
        if name in functions:
            return getattr(algorithm, name)
    raise AttributeError(f"module 'cgrpo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __getattr__("__all__")
