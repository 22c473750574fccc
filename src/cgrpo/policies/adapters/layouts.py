"""Where a family's LoRA sits on its transformer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """What tells one family's adapters from another's.

    targets   the linear layers that get one: a regular expression that a module's whole name must match
    fused     whether q, k and v are made one projection first, with one A between them
    """

    targets: str
    fused: bool


# A list of names would not do: "proj_out" alone also matches the transformer's last layer.
FLUX = Layout(
    r"transformer_blocks\.\d+\.attn\.(to_qkv|to_added_qkv|to_out\.0|to_add_out)"
    r"|single_transformer_blocks\.\d+\.(attn\.to_qkv|proj_out)",
    fused=True,
)
