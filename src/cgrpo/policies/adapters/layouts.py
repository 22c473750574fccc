"""Where a family's LoRA sits on its transformer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cgrpo.errors import UserError


@dataclass(frozen=True)
class Layout:
    """What tells one family's adapters from another's.

    family    what its models are called
    targets   the linear layers that get one: a regular expression that a module's whole name must match
    fused     whether q, k and v are made one projection first, with one A between them
    """

    family: str
    targets: str
    fused: bool


# A list of names would not do: "proj_out" alone also matches the transformer's last layer.
FLUX = Layout(
    "FLUX.1",
    r"transformer_blocks\.\d+\.attn\.(to_qkv|to_added_qkv|to_out\.0|to_add_out)"
    r"|single_transformer_blocks\.\d+\.(attn\.to_qkv|proj_out)",
    fused=True,
)

# q, k and v stay apart in the double blocks, each with an A of its own, as in the LoRAs that people have; single blocks
# have one projection for q, k, v and the MLP.
FLUX2 = Layout(
    "FLUX.2",
    r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|add_q_proj|add_k_proj|add_v_proj|to_out\.0|to_add_out)"
    r"|single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)",
    fused=False,
)

_OWN = {  # what only that family's layers are called
    "FLUX.1": (".proj_out.", ".proj_mlp.", ".net.", ".norm.linear.", ".norm1.", "time_text_embed."),
    "FLUX.2": (".to_qkv_mlp_proj.", ".linear_in.", ".linear_out.", "_stream_modulation", "time_guidance_embed."),
}


def family_of(keys: Iterable[str]) -> str:
    """The family whose layers these stock keys name; "" where both have them."""
    return next((family for key in keys for family, own in _OWN.items() if any(part in key for part in own)), "")


def refuse_other_family(where: object, keys: Iterable[str], layout: Layout) -> None:
    """Raises UserError where ``keys`` are another family's than the layout's."""
    found = family_of(keys)
    if found and found != layout.family:
        raise UserError(
            f"{where}: an adapter of {found}'s layers, but this base is {layout.family}; load it on its own base"
        )
