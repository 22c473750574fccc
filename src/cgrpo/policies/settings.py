"""The table ``policy`` of a configuration, and the families of policies by name. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny

from cgrpo.errors import UserError
from cgrpo.extensions import Extensions, is_installed, resolve
from cgrpo.hub import Wanted
from cgrpo.policies.family import POLICIES, REFERENCE_RULES, SHIFTS, own_settings
from cgrpo.section import TOYBOX, Place, Positive, Section

Posterior = Literal["mean", "sample"]
PositionScheme = Literal["d", "h", "w", "o", "kontext"]
GuidanceGradient = Literal["both", "conditional"]
Checkpointing = Literal["off", "selective", "full"]
Attention = Literal["default", "math", "efficient", "flash", "cudnn", "flash-attn-2", "flash-attn-3"]

# By torch itself, and by packages that add to it in torch's own way; only the names are used here.
OWN_COMPILERS: dict[str, str] = dict.fromkeys(("inductor", "cudagraphs", "eager", "aot_eager"), "torch")
COMPILERS = Extensions("backend of torch.compile", "torch_dynamo_backends", OWN_COMPILERS)


ShiftRule = Annotated[str, AfterValidator(SHIFTS.check)]
"""The name of a rule of ``sampling.shift``, of any family's."""


class PolicySettings(Section):
    """A base model, an adapter to start from, sizes and precision. A family may add keys in a subclass."""

    type: str = ""
    """The family of the base model, one of this package or of an installed one. Empty: the family that recognises the
    checkpoint."""
    path: Place = TOYBOX
    """A diffusers folder, a hub id (owner/name or owner/name@revision), a BFL transformer file such as
    flux1-dev.safetensors, "toybox", "toybox-copy", which copies its reference into one picture of six, or
    "toybox-pair", which draws two subjects."""
    autoencoder: Place = ""
    """An autoencoder file (ae.safetensors) or folder in place of the checkpoint's own; empty: its own, or
    ae.safetensors beside a BFL file."""
    clip: Place = ""
    """Folder or hub id of a CLIP text encoder with its tokenizer, in place of the checkpoint's own."""
    t5: Place = ""
    """Folder or hub id of a T5 encoder with its tokenizer, in place of the checkpoint's own."""
    start: Place = ""
    """A LoRA to start from, such as UNO's dit_lora.safetensors: a file, a folder, or a file on the hub."""
    base_differs: bool = False
    """Take an adapter whose base has another fingerprint: a copy of the same base in another precision, such as fp8."""
    start_mode: Literal["merge", "continue"] = "merge"
    """Merge ``start`` into the base and train a fresh adapter on top (the paper), or train it on; then the frozen
    start, not the bare base, is the reference policy."""
    height: Positive = 32
    """Height of generated pictures, pixels."""
    width: Positive = 32
    """Width of generated pictures, pixels."""
    reference_size: Positive = 32
    """Long side of a task's only reference after resizing, pixels (UNO: 512)."""
    several_size: Annotated[int, Field(ge=0)] = 0
    """Long side of each reference where a task has several (UNO: 320); 0: as reference_size."""
    reference_rule: Annotated[str, AfterValidator(REFERENCE_RULES.check)] = "uno"
    """How references are resized, by the name of a family's rule; "uno" is UNO's at inference."""
    reference_alpha: Literal["white", "drop"] = "white"
    """What becomes of a reference's transparency: laid on white, or dropped as UNO does."""
    reference_latents: Posterior = "mean"
    """A reference's latents: the mean of the autoencoder's posterior, or a draw seeded by the picture itself."""
    position_ids: PositionScheme = "d"
    """Position scheme of FLUX.1's reference tokens: UNO's (d is its default) or Kontext's. FLUX.2 has its own."""
    guidance: float = 3.5
    """Guidance while training: a distilled one (FLUX.1-dev: 3.5), or by a negative prompt, as most families have it:
    1 or more (1 is off, at half the cost)."""
    evaluation_guidance: Annotated[float, Field(ge=0)] = 0.0
    """Guidance of held-out pictures and of `cgrpo sample`; 0: as guidance."""
    evaluation_lora: Place = ""
    """A LoRA on top of base and adapter while evaluating and sampling, such as one that distils the base to few steps:
    a file, a folder, or a file on the hub. Pictures of training are made without it."""
    guidance_gradient: GuidanceGradient = "both"
    """What of a guidance by a negative prompt gradients go through: both halves, or the prompt's alone (the other half
    is then a constant: a backward costs no more than without guidance)."""
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    """Precision of the frozen base; the adapter stays in float32 (float64 with a float64 base). A bfloat16 base
    computes under autocast."""
    rank: Positive = 32
    """Rank of the LoRA on the fused attention projections (the paper: 512); "continue" keeps the start's."""
    checkpointing: Checkpointing = "off"
    """What is computed again in the backward pass to save memory: nothing, all but matrix products and attention,
    or whole blocks."""
    offload: bool = False
    """Keep text encoders and autoencoder in the CPU's memory while they are idle."""
    compile: Annotated[str, AfterValidator(lambda name: name and COMPILERS.check(name))] = ""
    """torch.compile backend for the transformer's blocks, such as "inductor"; empty is off."""
    attention: Attention = "default"
    """How the transformer's blocks compute attention: by PyTorch's choice, one of PyTorch's own ways, or the package
    flash-attn or FlashAttention 3. Most need a GPU and a bfloat16 base. They differ by rounding."""
    quantise: Literal["none", "int8"] = "none"
    """Keep the frozen blocks' matrices in 8 bits (torchao, an extra): half the memory of bfloat16."""

    def refuse_foreign(self, family: str) -> None:
        """Raises UserError for a setting that only other families have, unless it is left at its default."""
        for name in sorted(own_settings() - POLICIES.load(family).own_settings):
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                raise UserError(f"policy.{name} = {value}: the family {family!r} has no such setting; leave it out")

    def checkpoints(self) -> Mapping[str, Wanted]:
        """The settings that name a checkpoint, and what of it is needed."""
        kind: Wanted = "file" if self.path.endswith(".safetensors") else "folder"
        return {"path": kind, "start": "file", "evaluation_lora": "file"}

    def missing(self) -> list[str]:
        """What must be installed first, a line each; checkpoints apart."""
        if self.quantise == "int8" and not is_installed("torchao"):
            return ["quantise = int8 needs torchao: pip install torchao, or set quantise = none"]
        return []


def _of_family(value: Any) -> Any:
    """A table whose ``type`` names a family with keys of its own, as that family's settings."""
    name = value.get("type") if isinstance(value, dict) else None
    place = POLICIES.load(name).settings if isinstance(name, str) and name else ""
    return resolve(place).model_validate(value) if place else value


AnyPolicySettings = Annotated[SerializeAsAny[PolicySettings], BeforeValidator(_of_family)]
"""The settings of any family: what a configuration's table ``policy`` is."""
