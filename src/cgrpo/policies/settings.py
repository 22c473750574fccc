"""The table ``policy`` of a configuration. Imports neither torch nor anything heavy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cgrpo.section import TOYBOX, Place, Positive, Section


class PolicySettings(Section):
    path: Place = TOYBOX
    """A diffusers folder, a hub id (owner/name or owner/name@revision), a BFL transformer file such as
    flux1-dev.safetensors, "toybox", or "toybox-copy", which copies its reference into one picture of six."""
    autoencoder: Place = ""
    """An autoencoder file (ae.safetensors) or folder in place of the checkpoint's own; empty: its own, or
    ae.safetensors beside a BFL file."""
    clip: Place = ""
    """Folder or hub id of a CLIP text encoder with its tokenizer, in place of the checkpoint's own."""
    t5: Place = ""
    """Folder or hub id of a T5 encoder with its tokenizer, in place of the checkpoint's own."""
    start: Place = ""
    """A LoRA to start from, such as UNO's dit_lora.safetensors: a file, a folder, or a file on the hub."""
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
    reference_rule: Literal["uno", "uno-train", "kontext", "flux2"] = "uno"
    """How references are resized: UNO's inference rule, UNO's training buckets, Kontext's preferred sizes, or at most
    so many pixels (FLUX.2)."""
    reference_alpha: Literal["white", "drop"] = "white"
    """What becomes of a reference's transparency: laid on white, or dropped as UNO does."""
    reference_latents: Literal["mean", "sample"] = "mean"
    """A reference's latents: the mean of the autoencoder's posterior, or a draw seeded by the picture itself."""
    position_ids: Literal["d", "h", "w", "o", "kontext"] = "d"
    """Position scheme of FLUX.1's reference tokens: UNO's (d is its default) or Kontext's. FLUX.2 has its own."""
    guidance: float = 3.5
    """Guidance while training: FLUX.1's distilled one (FLUX.1-dev: 3.5), FLUX.2's by a negative prompt, 1 or more (1 is
    off, at half the cost)."""
    evaluation_guidance: Annotated[float, Field(ge=0)] = 0.0
    """Guidance of held-out pictures and of `cgrpo sample`; 0: as guidance."""
    guidance_gradient: Literal["both", "conditional"] = "both"
    """What of a guidance by a negative prompt gradients go through: both halves, or the prompt's alone (the other half
    is then a constant: a backward costs no more than without guidance)."""
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    """Precision of the frozen base; the adapter stays in float32 (float64 with a float64 base). A bfloat16 base
    computes under autocast."""
    rank: Positive = 32
    """Rank of the LoRA on the fused attention projections (the paper: 512); "continue" keeps the start's."""
    checkpointing: Literal["off", "selective", "full"] = "off"
    """What is computed again in the backward pass to save memory: nothing, all but matrix products and attention,
    or whole blocks."""
    offload: bool = False
    """Keep text encoders and autoencoder in the CPU's memory while they are idle."""
    compile: str = ""
    """torch.compile backend for the transformer's blocks, such as "inductor"; empty is off."""
    quantise: Literal["none", "int8"] = "none"
    """Keep the frozen blocks' matrices in 8 bits (torchao, an extra): half the memory of bfloat16."""
