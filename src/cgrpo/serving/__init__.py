"""A reward behind HTTP: it may run in another process, on another GPU or machine. See rewards/remote/wire.py."""

from __future__ import annotations

import importlib.util

from cgrpo.errors import UserError


def check_installed(command: str) -> None:
    """Raise UserError where a package that ``command`` serves with is missing."""
    for package in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{command} needs {package}", "pip install fastapi httpx uvicorn")
