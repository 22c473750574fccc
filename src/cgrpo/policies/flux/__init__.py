"""FLUX.1 with references: UNO, Kontext, and the toy world's policy."""

from cgrpo.policies.flux.condition import FluxCondition
from cgrpo.policies.flux.policy import FluxPolicy
from cgrpo.policies.flux.positions import PositionScheme, position_ids

__all__ = ["FluxCondition", "FluxPolicy", "PositionScheme", "position_ids"]
