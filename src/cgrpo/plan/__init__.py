"""What a run takes (parameters, operations, memory, hours), counted on models without their weights."""

from cgrpo.plan.estimate import Plan, plan
from cgrpo.plan.gpus import GPUS, Gpu
from cgrpo.plan.render import render

__all__ = ["GPUS", "Gpu", "Plan", "plan", "render"]
