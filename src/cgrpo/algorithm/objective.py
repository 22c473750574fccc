"""What is minimised: the clipped surrogate (Eq. 7), its optional KL term, and the flow-matching loss of SFT."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_surrogate(logp: Tensor, old_logp: Tensor, credit: Tensor, clip: float = 1e-4) -> Tensor:
    """The loss whose mean over (sample, step) pairs is minus Eq. 7.

        -min(rho * A, clip(rho, 1 - clip, 1 + clip) * A),   rho = exp(logp - old_logp)

    logp (with gradient), old_logp, credit: one shape; 0 < clip < 1, on the scale of log-probabilities averaged over
    the latent's axes (1e-4 in the release) -> loss of that shape. Raises ValueError outside these ranges.
    """
    if not logp.shape == old_logp.shape == credit.shape:
        shapes = f"{list(logp.shape)}, {list(old_logp.shape)}, {list(credit.shape)}"
        raise ValueError(f"logp, old_logp and credit must have one shape, got {shapes}")
    if not 0 < clip < 1:
        raise ValueError(f"clip must be in (0, 1), got {clip}")
    ratio = (logp - old_logp).exp()
    return -torch.minimum(ratio * credit, ratio.clamp(1 - clip, 1 + clip) * credit)


def policy_kl(mean: Tensor, reference_mean: Tensor, std: Tensor) -> Tensor:
    """KL divergence of the policy's transition from the reference's (the adapter switched off), per sample.

        (mean - reference_mean)^2 / (2 std^2), averaged over all axes but the first; both transitions share std

    mean (with gradient), reference_mean [N, ...]; std > 0, broadcastable -> [N]; Eq. 7's optional term, off by
    default. Raises ValueError outside these ranges.
    """
    if mean.shape != reference_mean.shape:
        raise ValueError(f"mean {list(mean.shape)} and reference_mean {list(reference_mean.shape)} must have one shape")
    if not std.is_cuda and not (std > 0).all():  # on a GPU the host would wait for it
        raise ValueError("std must be > 0: deterministic transitions have no KL divergence")
    return _mean_over_rest(((mean - reference_mean) / std).square() / 2)


def flow_matching_loss(velocity: Tensor, x0: Tensor, noise: Tensor) -> Tensor:
    """Squared error of the velocity at (1 - sigma) * x0 + sigma * noise against noise - x0, per sample. SFT.

    velocity (with gradient), x0, noise [N, ...] -> [N], the mean over all other axes; in float32 at least.
    Raises ValueError for shapes that disagree.
    """
    if not velocity.shape == x0.shape == noise.shape:
        shapes = f"{list(velocity.shape)}, {list(x0.shape)}, {list(noise.shape)}"
        raise ValueError(f"velocity, x0 and noise must have one shape, got {shapes}")
    dtype = torch.promote_types(velocity.dtype, torch.float32)
    return _mean_over_rest((velocity.to(dtype) - (noise.to(dtype) - x0.to(dtype))).square())


def _mean_over_rest(values: Tensor) -> Tensor:
    return values.reshape(len(values), -1).mean(dim=1)
