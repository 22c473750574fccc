"""Settings that guard a small run."""

# A check after every iteration, on four tasks.
GUARDED = ("guard.every=1", "guard.tasks=4", "guard.batch=4")
JUDGED = (
    "guard.scorers.light.type=support.exact_rewards:brightness",
    "guard.scorers.light.axis=identity",
    "guard.scorers.red.type=support.exact_rewards:redness",
)
