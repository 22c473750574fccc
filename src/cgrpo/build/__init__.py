"""The composition root: configuration -> objects. The only room that knows every name."""

from cgrpo.build.data import make_source
from cgrpo.build.guard import make_final_tasks, make_guard, make_guard_tasks, make_held_out_judges
from cgrpo.build.policy import load_policy, make_policy
from cgrpo.build.subject import make_subject
from cgrpo.build.trainer import make_trainer

__all__ = [
    "load_policy",
    "make_final_tasks",
    "make_guard",
    "make_guard_tasks",
    "make_held_out_judges",
    "make_policy",
    "make_source",
    "make_subject",
    "make_trainer",
]
