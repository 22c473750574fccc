"""`cgrpo rewards serve`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

import torch

from cgrpo.config import Config
from cgrpo.errors import UserError
from cgrpo.rewards import make_reward
from cgrpo.rewards.network import is_loopback, read_token

MAX_BODY = 512 * 2**20


def serve(
    cfg: Config,
    host: str = "127.0.0.1",
    port: int = 8420,
    *,
    names: Sequence[str] = (),
    token_variable: str = "",
    max_body: int = MAX_BODY,
    device: str = "",
) -> None:
    """Serve ``cfg``'s rewards, or those in ``names``, until interrupted; for rewards of type "remote".

    ``token_variable`` names the environment variable with the token that every request must bear; it is required on
    any ``host`` but this machine's own. ``max_body``: bytes of a request. ``device``: empty for the first GPU if there
    is one. The address is taken before the rewards are loaded. Raises UserError.
    """
    for package in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"cgrpo rewards serve needs {package}: pip install fastapi httpx uvicorn")
    from cgrpo.serving.listening import listen, run
    from cgrpo.serving.server import create_app

    token = _token(host, token_variable)
    absent = [name for name in names if name not in cfg.rewards]
    if absent:
        raise UserError(f"no reward {absent[0]!r} in the recipe; it has {', '.join(cfg.rewards)}")
    with listen(host, port) as bound:
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        rewards = {name: make_reward(name, cfg.rewards[name], place) for name in names or cfg.rewards}
        app = create_app(rewards, max_body=max_body, token=token)
        shown = f"[{host}]" if ":" in host else host
        print(f"serving {', '.join(rewards)} on http://{shown}:{bound.getsockname()[1]}", file=sys.stderr, flush=True)
        try:
            run(app, bound)
        except KeyboardInterrupt:  # the usual end
            return


def _token(host: str, variable: str) -> str:
    """The token; empty where none is asked for, which only this machine's own addresses allow."""
    if not variable:
        if is_loopback(host):
            return ""
        raise UserError(
            f"on {host} others can reach this server: set a token, and name its variable with --token-variable"
        )
    return read_token("cgrpo rewards serve", variable)
