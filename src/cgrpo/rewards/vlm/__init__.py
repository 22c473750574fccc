"""A judge behind an OpenAI-compatible endpoint (GPT, Gemini, Qwen-VL, vLLM): pictures and a rubric in, 0 to 4 out.

rubrics   what is asked: two rubrics of our own, and the form of the reply
replies   a reply's text -> its score; what is ambiguous or out of range is no score
cache     finished judgements on disk, one small file each
client    one request over the openai client: bounded in time and size, the key in no message
rounds    how one request can end, and many questions at a time: retries, waits, costs, the end of the budget
judge     VlmJudge, the reward: what is asked of whom, what is cached already, and numbers for the log
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cgrpo.rewards.base import Reward
from cgrpo.rewards.network import VARIABLE
from cgrpo.rewards.settings import AxisName, RewardSettings
from cgrpo.rewards.sketch import ModelSketch
from cgrpo.section import Positive, Seed
from cgrpo.text import is_address

if TYPE_CHECKING:
    import torch


class VlmSettings(RewardSettings):
    """A vision-language model as judge, behind an OpenAI-compatible endpoint: 0 to 4 by our rubric."""

    type: Literal["vlm"] = "vlm"
    task: AxisName
    """What is judged: "identity" (references and picture) or "prompt" (text and picture)."""
    model: str
    """The endpoint's name for the model."""
    base_url: str = ""
    """The endpoint, such as http://localhost:8000/v1 for vLLM; empty: OpenAI's."""
    key_variable: str = "OPENAI_API_KEY"
    """Name of the environment variable with the key, never the key itself; empty for an endpoint without one."""
    format: Literal["schema", "json", "text"] = "schema"
    """How a reply is asked for: by a JSON schema (surest), JSON mode, or plain text, where an endpoint has no more."""
    scoring: Literal["text", "logits"] = "text"
    """The score as the reply states it; or "logits", the mean of all levels by the probabilities of its tokens, finer
    than whole numbers, where the endpoint gives top_logprobs (OpenAI, vLLM, SGLang)."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Of the judge's sampling; left out where the model refuses it."""
    seed: Seed = 0
    """Of the judge's sampling; left out where the model refuses it."""
    picture_side: Annotated[int, Field(ge=32, le=4096)] = 1024
    """Longest side of a picture that is sent, pixels; a larger one is shrunk. Endpoints shrink to about this, too."""
    max_tokens: Positive = 1000
    """Longest reply, tokens; a model that thinks aloud needs more."""
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 16
    """Requests at a time, for each process."""
    timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds for one whole request."""
    attempts: Positive = 6
    """Requests for a judgement before it is given up (NaN)."""
    refusals: Positive = 2
    """Refusals of a judgement before it stands as refused (NaN)."""
    backoff: Annotated[float, Field(gt=0)] = 1.0
    """Seconds before the second attempt, doubled with each further one up to 60; an endpoint may ask for more."""
    cache: str = "~/.cache/cgrpo/vlm"
    """Folder of finished judgements, which cost nothing again; empty is off."""
    input_price: Annotated[float, Field(ge=0)] = 0.0
    """Price of a million input tokens, any currency."""
    output_price: Annotated[float, Field(ge=0)] = 0.0
    """Price of a million output tokens, same currency."""
    budget: Annotated[float, Field(ge=0)] = 0.0
    """The run stops when its judgements, of all processes since its start, have cost this; 0 is no limit."""
    token_budget: Annotated[int, Field(ge=0)] = 0
    """The same in tokens, input and output together; 0 is no limit."""

    packages: ClassVar = ("openai",)

    def models(self) -> tuple[ModelSketch, ...]:
        return ()

    def build(self, name: str, device: torch.device | str) -> Reward:
        from cgrpo.rewards.vlm.judge import VlmJudge

        return VlmJudge(self)

    @model_validator(mode="after")
    def _safe(self) -> Self:
        # Raised for the table as a whole, so that no message repeats a key that was put in the wrong place.
        if self.key_variable and not VARIABLE.fullmatch(self.key_variable):
            raise ValueError("key_variable must be the name of an environment variable that holds the key")
        if self.base_url and not is_address(self.base_url):
            raise ValueError("base_url must start with http:// or https:// and hold no key, user or query")
        if self.budget and not (self.input_price or self.output_price):
            raise ValueError("budget needs input_price and output_price; or set token_budget")
        return self
