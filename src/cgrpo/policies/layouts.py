"""Where a family's LoRA sits on its transformer, and what other programs call the same layers.

Black Forest Labs' names occur in checkpoints of one file and in the LoRAs of programs that use them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Blocks = Mapping[str, tuple[str, Mapping[str, list[str]]]]
"""By a stock list of blocks ("" for the rest): theirs, and by its layers the stock ones stacked in each, top first."""


@dataclass(frozen=True)
class Layout:
    """What tells one family's adapters from another's.

    family    what its models are called
    targets   the linear layers that get one: a regular expression that a module's whole name must match
    fused     whether q, k and v are made one projection first, with one A between them
    own       finds a name that this family's layers have, and no family's of another kind of blocks
    blocks    its layers under Black Forest Labs' names, or whatever most programs call them
    programs  its layers under the names of single programs, by program
    alphas    whether diffusers' reader of ComfyUI's files takes an alpha for each layer
    ratios    rows to inputs of layers that tell this family from others of the same names: by an expression that finds
              a layer's name
    unread    of the targets in the last block ({last} is its number) those whose output nothing reads
    """

    family: str
    targets: str
    fused: bool
    own: re.Pattern[str]
    blocks: Blocks
    programs: Mapping[str, Blocks] = field(default_factory=dict)
    alphas: bool = False
    ratios: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    unread: str = ""


SWAPPED = "final_layer.adaLN_modulation.1"  # of Black Forest Labs; its halves lie the other way round in diffusers


def bfl_ends(home: str, embedders: Mapping[str, str]) -> dict[str, list[str]]:
    """Black Forest Labs' layers outside blocks; ``embedders`` have two layers each in the stock module ``home``."""
    ends = {
        "img_in": ["x_embedder"],
        "txt_in": ["context_embedder"],
        "final_layer.linear": ["proj_out"],
        SWAPPED: ["norm_out.linear"],
    }
    for theirs, ours in embedders.items():
        for number, side in enumerate(("in", "out"), start=1):
            ends[f"{theirs}_in.{side}_layer"] = [f"{home}.{ours}_embedder.linear_{number}"]
    return ends


ATTENTION = {  # of a block of two streams
    "img_attn.qkv": ["attn.to_q", "attn.to_k", "attn.to_v"],
    "txt_attn.qkv": ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
    "img_attn.proj": ["attn.to_out.0"],
    "txt_attn.proj": ["attn.to_add_out"],
}
