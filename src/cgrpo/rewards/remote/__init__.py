"""A reward that another process computes: the client of `cgrpo rewards serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cgrpo.rewards.base import Reward
from cgrpo.rewards.network import VARIABLE
from cgrpo.rewards.settings import AxisName, RewardSettings
from cgrpo.rewards.sketch import ModelSketch
from cgrpo.text import is_address

if TYPE_CHECKING:
    import torch


class RemoteSettings(RewardSettings):
    """A reward that `cgrpo rewards serve` computes in another process, perhaps on another machine."""

    type: Literal["remote"] = "remote"
    url: str
    """Of the server, such as http://127.0.0.1:8420."""
    reward: str
    """Its name on the server."""
    axis: AxisName = "prompt"
    """What it measures; a server that says otherwise is refused."""
    checkpoint: str = ""
    """Hash of the checkpoint, as the server's /health says; another is refused. Empty: whichever answers first."""
    token_variable: str = ""
    """Environment variable with the server's token; empty for none."""
    timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds to wait for the scores of a batch."""
    patience: Annotated[float, Field(ge=0)] = 300.0
    """Seconds to go on asking a server that does not answer."""
    on_failure: Literal["stop", "nan"] = "stop"
    """After that: stop the run, which can be resumed, or go on with these pictures unscored."""

    packages: ClassVar = ("httpx",)

    def models(self) -> tuple[ModelSketch, ...]:
        return ()

    def build(self, name: str, device: torch.device | str) -> Reward:
        from cgrpo.rewards.remote.client import RemoteReward

        return RemoteReward(name, self)

    @model_validator(mode="after")
    def _safe(self) -> Self:
        # Raised for the table as a whole, so that no message repeats a secret that was put in the wrong place.
        if not is_address(self.url):
            raise ValueError("url must be http://HOST:PORT or https://HOST, without a user name or query")
        if self.token_variable and not VARIABLE.fullmatch(self.token_variable):
            raise ValueError("token_variable must be the name of an environment variable that holds the token")
        return self
