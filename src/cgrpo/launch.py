"""What a launcher such as torchrun says in the environment, read in one place."""

from __future__ import annotations

import os

from cgrpo.errors import UserError

NEEDED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched() -> tuple[int, int]:
    """This process's rank and the number of processes; (0, 1) where nothing launched it.

    Raises UserError where the environment says a part only, or what can't be.
    """
    told = {name: os.environ[name].strip() for name in NEEDED if os.environ.get(name, "").strip()}
    if "LOCAL_RANK" not in told and told.get("WORLD_SIZE", "1") == "1":
        return 0, 1  # a cluster that says RANK or MASTER_ADDR by the way has launched one process
    if missing := [name for name in NEEDED if name not in told]:
        raise UserError(
            f"environment: {', '.join(sorted(told))} is set but not {', '.join(missing)}; start several processes with "
            f"torchrun, or one with env {' '.join(f'-u {name}' for name in sorted(told))} cgrpo ..."
        )
    for name in (name for name in NEEDED if name != "MASTER_ADDR"):
        if not (told[name].isascii() and told[name].isdigit()):
            raise UserError(f"environment: {name} must be a whole number from 0 on, got {told[name]!r}")
    rank, world = int(told["RANK"]), int(told["WORLD_SIZE"])
    if rank >= world:
        raise UserError(f"environment: RANK ({rank}) must be below WORLD_SIZE ({world}); start with torchrun")
    if not 0 < int(told["MASTER_PORT"]) < 2**16:
        raise UserError(f"environment: MASTER_PORT must be from 1 to 65535, got {told['MASTER_PORT']}")
    return rank, world
