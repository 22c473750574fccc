"""The paper in one room: pure functions on tensors, no model, no file, no process.

advantages -> credit <- weights     what a sample is worth at each step (Eq. 8-12), one table
rivals                              the credit functions of other papers, to compare with
flow -> sampling <- windows         how samples are drawn and their steps replayed (Eq. 13)
objective                           what is minimised (Eq. 7)
forward                             the same credit on the forward process: no steps to replay (beyond the paper)
preference                          winners and losers in place of credit: the paper's RPO
optimisation                        learning rate over a run, average of its weights
"""

import types as _types

from cgrpo.algorithm.advantages import Synergy, group_advantages, scored_mask, synergy
from cgrpo.algorithm.credit import (
    Credit,
    CreditFunction,
    CreditSettings,
    combine,
    credit_table,
    diagnostics,
    harmonic,
    linear,
    maximum,
    minimum,
    one_sided,
    sars,
)
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
    apex,
    batch_normalised,
    dyref,
    focal_weights,
    gdpo,
    noise_weights,
    raw_sum,
)
from cgrpo.algorithm.sampling import (
    Noise,
    Velocity,
    evaluated_once,
    firsts,
    integrate,
    replay_logp,
    rollout,
    shared_lead,
)
from cgrpo.algorithm.weights import constant_weights, measured_weights, reward_weights, sigmoid_weights
from cgrpo.algorithm.windows import Window, all_steps, random_fraction, sliding_window, window_start

# The imports above are the list of names.
__all__ = [
    name for name, value in list(globals().items()) if name[0] != "_" and not isinstance(value, _types.ModuleType)
]  # pyright: ignore
