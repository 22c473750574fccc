"""The settings of each kind of reward: a closed union told apart by ``type``."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, model_validator

from cgrpo.section import TOYBOX, Place, Positive, Section, Seed

AxisName = Literal["identity", "prompt"]
VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)  # of the environment, by its name
ADDRESS = re.compile(r"https?://[^\s@?#]+", re.IGNORECASE)


class ModelSettings(Section):
    """What rewards with a model of their own share."""

    chunk: Positive = 64
    """Pictures per forward."""
    offload: bool = False
    """Keep the models in the CPU's memory between calls."""


class DinoSegSettings(ModelSettings):
    """Identity: DINOv2 similarity of the segmented subjects (the paper)."""

    type: Literal["dino-seg"] = "dino-seg"
    path: Place = TOYBOX
    """Folder or hub id of a DINOv2 (or DINOv3) checkpoint, or "toybox" (the paper: DINOv2-large)."""
    segmenter: Place = TOYBOX
    """Folder or hub id of the segmenter: SAM with a ``detector``, SAM 3, or a Segformer that knows the subject's word;
    or "toybox". Empty with masks = "reference": the data set's own masks alone."""
    detector: Place = ""
    """Folder or hub id of a GroundingDINO checkpoint that finds the box SAM segments; empty for none."""
    masks: Literal["both", "reference", "none"] = "both"
    """What is segmented: both pictures (the paper), the reference alone (the release), or nothing (plain DINO)."""


class DinoSettings(ModelSettings):
    """Identity: DreamBench's DINO, DINO v1 ViT-S/16 similarity of whole pictures."""

    type: Literal["dino"] = "dino"
    path: Place = "facebook/dino-vits16"
    """Folder or hub id of DINO v1 ViT-S/16."""


class ClipSettings(ModelSettings):
    """Prompt: CLIP similarity of picture and text (DreamBench's CLIP-T: ViT-B/32, there clamped at 0)."""

    type: Literal["clip"] = "clip"
    path: Place = TOYBOX
    """Folder or hub id of a CLIP checkpoint, or "toybox"."""


class ClipImageSettings(ModelSettings):
    """Identity: CLIP similarity of whole pictures (DreamBench's CLIP-I: ViT-B/32)."""

    type: Literal["clip-i"] = "clip-i"
    path: Place = "openai/clip-vit-base-patch32"
    """Folder or hub id of a CLIP checkpoint, or "toybox"."""


class AestheticSettings(ModelSettings):
    """Prompt: LAION's aesthetic score of the picture alone, V1 or V2 as the head is."""

    type: Literal["aesthetic"] = "aesthetic"
    path: Place = "openai/clip-vit-large-patch14"
    """Folder or hub id of OpenAI's CLIP ViT-L/14."""
    head: Place
    """The head as safetensors: `cgrpo rewards convert` makes it once from LAION's .pth file."""


class HpsV2Settings(ModelSettings):
    """Prompt: HPSv2's human preference score (v2.1)."""

    type: Literal["hpsv2"] = "hpsv2"
    path: Place
    """Folder that `cgrpo rewards convert` makes once from HPS_v2.1_compressed.pt."""
    chunk: Positive = 16
    """Pictures per forward."""


class PickScoreSettings(ModelSettings):
    """Prompt: PickScore's human preference logit."""

    type: Literal["pickscore"] = "pickscore"
    path: Place = "yuvalkirstain/PickScore_v1"
    """Folder or hub id of PickScore's weights."""
    processor: Place = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    """Folder or hub id of its tokenizer and preprocessing; empty: those in ``path``."""
    chunk: Positive = 16
    """Pictures per forward."""


class ImageRewardSettings(ModelSettings):
    """Prompt: ImageReward's human preference score."""

    type: Literal["image-reward"] = "image-reward"
    path: Place
    """Folder that `cgrpo rewards convert` makes once from ImageReward.pt."""
    chunk: Positive = 16
    """Pictures per forward."""


class HpsV3Settings(ModelSettings):
    """Prompt: HPSv3's human preference score (the paper)."""

    type: Literal["hpsv3"] = "hpsv3"
    path: Place
    """HPSv3.safetensors, or a hub id that holds it."""
    backbone: Place
    """Folder or hub id with Qwen2-VL-7B-Instruct's configuration and tokenizer."""
    template: Place = ""
    """File with the prompt template (.txt, or the .py of the hpsv3 package); empty: the installed hpsv3 package's."""
    rotary: Literal["reference", "fp32"] = "reference"
    """Rotary tables rounded to bfloat16 as HPSv3 was trained, or exact."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of the backbone; the head stays in float32."""
    chunk: Positive = 4
    """Pictures per forward."""


def is_address(url: str) -> bool:
    """Of a server, by http or https, with a port that there is, and with no user, key or query."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")  # which refuses an empty part and one of 64 letters
        return bool(url.isprintable() and ADDRESS.fullmatch(url) and parts.hostname and parts.port != 0)
    except ValueError:  # of a port that there is not, too
        return False


class RemoteSettings(Section):
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

    @model_validator(mode="after")
    def _safe(self) -> Self:
        # As below: no message repeats a secret that was put in the wrong place.
        if not is_address(self.url):
            raise ValueError("url must be http://HOST:PORT or https://HOST, without a user name or query")
        if self.token_variable and not VARIABLE.fullmatch(self.token_variable):
            raise ValueError("token_variable must be the name of an environment variable that holds the token")
        return self


class VlmSettings(Section):
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


class FunctionSettings(Section):
    """A reward of your own."""

    type: str
    """"package.module:function", called with (pictures, batch), returns scores."""
    axis: AxisName = "prompt"
    """What it measures, for the reports."""


def _kind(value: Any) -> str:
    name = value.get("type", "") if isinstance(value, dict) else getattr(value, "type", "")
    return "function" if ":" in str(name) else str(name)


RewardSettings = Annotated[
    Annotated[DinoSegSettings, Tag("dino-seg")]
    | Annotated[DinoSettings, Tag("dino")]
    | Annotated[ClipSettings, Tag("clip")]
    | Annotated[ClipImageSettings, Tag("clip-i")]
    | Annotated[AestheticSettings, Tag("aesthetic")]
    | Annotated[HpsV2Settings, Tag("hpsv2")]
    | Annotated[PickScoreSettings, Tag("pickscore")]
    | Annotated[ImageRewardSettings, Tag("image-reward")]
    | Annotated[HpsV3Settings, Tag("hpsv3")]
    | Annotated[RemoteSettings, Tag("remote")]
    | Annotated[VlmSettings, Tag("vlm")]
    | Annotated[FunctionSettings, Tag("function")],
    Discriminator(
        _kind,
        custom_error_type="reward_type",
        custom_error_message="type must be dino-seg, dino, clip, clip-i, aesthetic, hpsv2, pickscore, image-reward, "
        "hpsv3, remote, vlm, none, or package.module:function",
    ),
]
REWARD_TYPES: dict[str, type[Section]] = {
    "dino-seg": DinoSegSettings,
    "dino": DinoSettings,
    "clip": ClipSettings,
    "clip-i": ClipImageSettings,
    "aesthetic": AestheticSettings,
    "hpsv2": HpsV2Settings,
    "pickscore": PickScoreSettings,
    "image-reward": ImageRewardSettings,
    "hpsv3": HpsV3Settings,
    "remote": RemoteSettings,
    "vlm": VlmSettings,
    "function": FunctionSettings,
}
DEFAULT_REWARDS: dict[str, RewardSettings] = {"identity": DinoSegSettings(), "prompt": ClipSettings()}


def with_defaults(table: dict[str, Any]) -> dict[str, Any]:
    """A recipe's rewards over the default ones.

    What is not said of "identity" and "prompt" stays as there, unless another type is asked for; type "none" leaves
    a reward out.
    """
    merged: dict[str, Any] = dict(DEFAULT_REWARDS)
    for name, given in table.items():
        default = DEFAULT_REWARDS.get(name)
        if isinstance(given, dict) and default is not None and given.get("type", default.type) == default.type:
            given = default.model_dump() | given
        merged[name] = given
    return {name: s for name, s in merged.items() if not (isinstance(s, dict) and s.get("type") == "none")}
