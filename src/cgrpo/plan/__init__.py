"""What a run takes (parameters, operations, memory, hours), before anything is loaded: arithmetic alone."""

from cgrpo.plan.estimate import Plan, plan
from cgrpo.plan.gpus import GPUS, Gpu
from cgrpo.plan.render import render

__all__ = ["GPUS", "Gpu", "Plan", "plan", "render"]
