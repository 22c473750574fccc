"""Rewards: pictures and tasks in, one score a picture out."""

from cgrpo.rewards.base import FunctionReward, Reward, scored

__all__ = ["FunctionReward", "Reward", "scored"]
