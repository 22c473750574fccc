"""FLUX.2-klein with references and classifier-free guidance."""

from cgrpo.policies.flux2.condition import Flux2Condition
from cgrpo.policies.flux2.policy import Flux2Policy

__all__ = ["Flux2Condition", "Flux2Policy"]
