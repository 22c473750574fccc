"""A reward behind HTTP: it may run in another process, on another GPU or machine. See rewards/remote/wire.py."""

from __future__ import annotations

from cgrpo.errors import UserError
from cgrpo.extensions import is_installed


def check_installed(command: str) -> None:
    """Raise UserError where a package that ``command`` serves with is missing."""
    for package in ("fastapi", "uvicorn"):
        if not is_installed(package):
            raise UserError(f"{command} needs {package}", "pip install fastapi httpx uvicorn")
