"""Customized-GRPO: online reinforcement learning of subject-driven image generators with rewards that compete.

The names below are loaded on first use, so that ``import cgrpo`` and ``import cgrpo.config`` pull no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_ALGORITHM = (
    "adaptive_priorities",
    "all_steps",
    "average_decay",
    "awm_loss",
    "batch_normalised",
    "clipped_surrogate",
    "combine",
    "constant_weights",
    "credit_table",
    "diagnostics",
    "draw_levels",
    "flow_matching_loss",
    "flux_shift",
    "focal_weights",
    "gaussian_logp",
    "group_advantages",
    "harmonic_mean",
    "integrate",
    "join_average",
    "learning_rate_factor",
    "measured_weights",
    "nft_loss",
    "noise_weights",
    "noised",
    "optimality",
    "policy_kl",
    "predict_x0",
    "preference_loss",
    "random_fraction",
    "raw_sum",
    "replace_advantages",
    "replay_logp",
    "reward_weights",
    "rollout",
    "scored_mask",
    "sde_transition",
    "shared_lead",
    "shifted_sigmas",
    "sigmoid_weights",
    "sliding_window",
    "steps_at",
    "synergy",
    "velocity_gap",
    "window_start",
    "winner_and_loser",
)
_EXPORTS = {name: "cgrpo.algorithm" for name in _ALGORITHM} | {
    "AnalysisRequest": "cgrpo.commands.analyze",
    "EvaluationRequest": "cgrpo.commands.benchmark",
    "analyze_conflict": "cgrpo.commands.analyze",
    "analyze_decisions": "cgrpo.commands.analyze",
    "analyze_gradients": "cgrpo.commands.analyze",
    "analyze_shaping": "cgrpo.commands.analyze",
    "analyze_spectrum": "cgrpo.commands.analyze",
    "compare_methods": "cgrpo.evaluation.statistics",
    "evaluate_dreambench": "cgrpo.commands.benchmark",
    "evaluate_manifest": "cgrpo.commands.benchmark",
    "evaluate_toybox": "cgrpo.commands.benchmark",
    "load_config": "cgrpo.config",
    "load_policy": "cgrpo.build",
    "load_reward": "cgrpo.rewards",
    "read_scores": "cgrpo.scores",
    "train": "cgrpo.commands.train",
    "write_comparison": "cgrpo.evaluation.pages.comparison",
}
__all__ = sorted([*_EXPORTS, "__version__"])  # pyright: ignore


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'cgrpo' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
