"""The sizes of a recipe's models: read from local folders, else assumed, and then said so."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from cgrpo.errors import UserError
from cgrpo.plan.encoders import T5, ClipText, Vae
from cgrpo.plan.flux2 import FLUX2_9B, QWEN3_8B, Flux2, Qwen3
from cgrpo.plan.transformer import Flux, Tokens, Transformer
from cgrpo.policies.settings import PolicySettings
from cgrpo.section import TOYBOX_POLICIES

TEXT_TOKENS = 512  # tokens of a prompt, padding included; a checkpoint's tokenizer may ask for fewer
FLUX2_VAE = Vae(latent=32, quant=True, post_quant=True)

Sizes = TypeVar("Sizes")


@dataclass(frozen=True)
class Text:
    """A text encoder. ``flops``: of one prompt."""

    name: str
    parameters: int
    flops: float


@dataclass(frozen=True)
class Shapes:
    """Sizes of the policy's parts; ``assumed`` says in words what was not read but taken for granted.

    negative   whether its guidance is by a negative prompt: a second forward
    """

    flux: Transformer
    vae: Vae
    texts: tuple[Text, ...]
    text_tokens: int
    assumed: tuple[str, ...]
    negative: bool = False

    def tokens(self, policy: PolicySettings, references: int) -> Tokens:
        """Tokens of a sample with square references. Raises UserError for sides that are no whole tokens."""
        side = self.vae.pixels_per_token
        if policy.height % side or policy.width % side:
            raise UserError(
                f"policy.height and policy.width ({policy.height} x {policy.width}): must be multiples of {side}"
            )
        target = (policy.height // side) * (policy.width // side)
        long_side = (policy.several_size if references > 1 else 0) or policy.reference_size
        return Tokens(target, references * (long_side // side) ** 2, self.text_tokens)


def asset(name: str) -> Path:
    """The folder of one of the package's own checkpoints."""
    return Path(str(resources.files("cgrpo"))) / "toybox" / "assets" / name


def policy_shapes(policy: PolicySettings) -> Shapes:
    """The sizes of the policy that the settings name. Nothing is downloaded, and no weight is read.

    Raises UserError where a local folder lacks a config.json or that lacks a size.
    """
    folder = asset("policy") if policy.path in TOYBOX_POLICIES else Path(policy.path)
    if _is_flux2(folder, policy.path):
        return _flux2_shapes(policy, folder)
    if folder.is_dir():
        flux = _read(folder / "transformer", Flux.from_config)
        vae = _read(folder / "vae", Vae.from_config)
        clip = _read(folder / "text_encoder", ClipText.from_config)
        t5 = _read(folder / "text_encoder_2", T5.from_config)
        length, assumed = _text_tokens(folder / "tokenizer_2"), []
    else:
        flux, vae, clip, t5, length = Flux(), Vae(), ClipText(), T5(), TEXT_TOKENS
        assumed = [f"policy.path {policy.path!r} is no local folder: the sizes of FLUX.1-dev are assumed"]
    if policy.autoencoder and policy.path not in TOYBOX_POLICIES:
        vae = _other("autoencoder", policy.autoencoder, Vae.from_config, Vae(), "FLUX's autoencoder", assumed)
    if policy.clip:
        clip = _other("clip", policy.clip, ClipText.from_config, ClipText(), "CLIP ViT-L/14's text encoder", assumed)
    if policy.t5:
        t5 = _other("t5", policy.t5, T5.from_config, T5(), "T5-XXL's encoder", assumed)
    if policy.start and policy.start_mode == "continue":
        assumed.append(f"the rank of {policy.start!r} is taken to be policy.rank ({policy.rank})")
    texts = Text("T5", t5.parameters, t5.flops(length)), Text("CLIP", clip.parameters, clip.flops())
    return Shapes(flux, vae, texts, length, tuple(assumed))


def _is_flux2(folder: Path, path: str) -> bool:
    """By the folder, as far as there is one; else by its name."""
    if not folder.is_dir():
        return "flux.2" in path.lower()
    file = folder / "transformer" / "config.json"
    return file.is_file() and read_json(file).get("_class_name") == "Flux2Transformer2DModel"


def _flux2_shapes(policy: PolicySettings, folder: Path) -> Shapes:
    if folder.is_dir():
        flux, vae = _read(folder / "transformer", Flux2.from_config), _read(folder / "vae", Vae.from_config)
        qwen, assumed = _read(folder / "text_encoder", Qwen3.from_config), []
        length = _text_tokens(folder / "tokenizer")
    else:
        small = "9b" not in policy.path.lower()
        flux, qwen = (Flux2(), Qwen3()) if small else (FLUX2_9B, QWEN3_8B)
        vae, length = FLUX2_VAE, TEXT_TOKENS
        name = f"FLUX.2-klein-{'4B' if small else '9B'}"
        assumed = [f"policy.path {policy.path!r} is no local folder: the sizes of {name} are assumed"]
    if policy.autoencoder:
        what = "FLUX.2's autoencoder"
        vae = _other("autoencoder", policy.autoencoder, Vae.from_config, FLUX2_VAE, what, assumed)
    if policy.start and policy.start_mode == "continue":
        assumed.append(f"the rank of {policy.start!r} is taken to be policy.rank ({policy.rank})")
    text = Text("Qwen3", qwen.parameters, qwen.flops(length))
    return Shapes(flux, vae, (text,), length, tuple(assumed), negative=True)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON table. Raises UserError where there is none."""
    try:
        table = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: can't be read ({reason}); give a whole checkpoint folder") from error
    if not isinstance(table, dict):
        raise UserError(f"{file}: holds no table; give a whole checkpoint folder")
    return table


def _read(folder: Path, build: Callable[[Mapping[str, Any]], Sizes]) -> Sizes:
    file = folder / "config.json"
    try:
        return build(read_json(file))
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: lacks {error}; is this a checkpoint of FLUX's kind?") from error


def _other(
    key: str, path: str, build: Callable[[Mapping[str, Any]], Sizes], default: Sizes, what: str, assumed: list[str]
) -> Sizes:
    """The sizes of a part given in place of the checkpoint's own."""
    if Path(path).is_dir():
        return _read(Path(path), build)
    assumed.append(f"policy.{key} {path!r} is no local folder: the sizes of {what} are assumed")
    return default


def _text_tokens(tokenizer: Path) -> int:
    file = tokenizer / "tokenizer_config.json"
    length = read_json(file).get("model_max_length", TEXT_TOKENS) if file.is_file() else TEXT_TOKENS
    return min(TEXT_TOKENS, int(length))
