"""The paper in one room: pure functions on tensors, no model, no file, no process.

advantages -> credit <- weights     what a sample is worth at each step (Eq. 8-12), one table
flow -> sampling <- windows         how samples are drawn and their steps replayed (Eq. 13)
objective                           what is minimised (Eq. 7)
forward                             the same credit on the forward process: no steps to replay (beyond the paper)
preference                          winners and losers in place of credit: the paper's RPO
rivals                              the field's other fills of the table, to compare with
optimisation                        learning rate over a run, average of its weights
"""

from cgrpo.algorithm.advantages import Synergy, group_advantages, scored_mask, synergy
from cgrpo.algorithm.credit import Credit, Shaping, combine, credit_table, diagnostics, replace_advantages
from cgrpo.algorithm.flow import Kind, flux_shift, gaussian_logp, predict_x0, sde_transition, shifted_sigmas
from cgrpo.algorithm.forward import (
    Spread,
    awm_loss,
    draw_levels,
    nft_loss,
    noised,
    optimality,
    steps_at,
    velocity_gap,
)
from cgrpo.algorithm.objective import clipped_surrogate, flow_matching_loss, policy_kl
from cgrpo.algorithm.optimisation import average_decay, join_average, learning_rate_factor
from cgrpo.algorithm.preference import harmonic_mean, preference_loss, winner_and_loser
from cgrpo.algorithm.rivals import (
    adaptive_priorities,
    batch_normalised,
    focal_weights,
    noise_weights,
    raw_sum,
)
from cgrpo.algorithm.sampling import Noise, Velocity, integrate, replay_logp, rollout, shared_lead
from cgrpo.algorithm.weights import constant_weights, measured_weights, reward_weights, sigmoid_weights
from cgrpo.algorithm.windows import Window, all_steps, random_fraction, sliding_window, window_start

__all__ = [
    "Credit",
    "Kind",
    "Noise",
    "Shaping",
    "Spread",
    "Synergy",
    "Velocity",
    "Window",
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
]
