"""Where a family's LoRA sits on its transformer, and what Black Forest Labs call the same layers.

Their names occur in checkpoints of one file and in the LoRAs of programs that use them. FLUX.2's are those of
diffusers' own conversion (convert_flux2_transformer_checkpoint_to_diffusers).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cgrpo.errors import UserError

Blocks = Mapping[str, tuple[str, Mapping[str, list[str]]]]
"""By a stock list of blocks ("" for the rest): theirs, and by its layers the stock ones stacked in each, top first."""


@dataclass(frozen=True)
class Layout:
    """What tells one family's adapters from another's.

    family    what its models are called
    targets   the linear layers that get one: a regular expression that a module's whole name must match
    fused     whether q, k and v are made one projection first, with one A between them
    own       parts of names that only this family's layers have
    blocks    its layers under Black Forest Labs' names, or whatever other programs call them
    unread    of the targets in the last block ({last} is its number) those whose output nothing reads
    """

    family: str
    targets: str
    fused: bool
    own: tuple[str, ...]
    blocks: Blocks
    unread: str = ""


_LATE_BLOCK = re.compile(r"(?<![a-z_])transformer_blocks\.(19|[2-9]\d)\.")
SWAPPED = "final_layer.adaLN_modulation.1"  # its halves lie the other way round in diffusers


def _ends(home: str, embedders: Mapping[str, str]) -> dict[str, list[str]]:
    """The layers outside blocks; ``embedders`` have two layers each in the stock module ``home``."""
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


_ATTENTION = {
    "img_attn.qkv": ["attn.to_q", "attn.to_k", "attn.to_v"],
    "txt_attn.qkv": ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
    "img_attn.proj": ["attn.to_out.0"],
    "txt_attn.proj": ["attn.to_add_out"],
}

UNO: Blocks = {  # the released checkpoints' names (XLabs'), of FLUX.1's layers
    "transformer_blocks": (
        "double_blocks",
        {
            "processor.qkv_lora1": _ATTENTION["img_attn.qkv"],
            "processor.qkv_lora2": _ATTENTION["txt_attn.qkv"],
            "processor.proj_lora1": _ATTENTION["img_attn.proj"],
            "processor.proj_lora2": _ATTENTION["txt_attn.proj"],
        },
    ),
    "single_transformer_blocks": (
        "single_blocks",
        {"processor.qkv_lora": _ATTENTION["img_attn.qkv"], "processor.proj_lora": ["proj_out"]},
    ),
}

# A list of names would not do for targets: "proj_out" alone also matches the transformer's last layer.
FLUX = Layout(
    "FLUX.1",
    r"transformer_blocks\.\d+\.attn\.(to_qkv|to_added_qkv|to_out\.0|to_add_out)"
    r"|single_transformer_blocks\.\d+\.(attn\.to_qkv|proj_out)",
    fused=True,
    own=(".proj_out.", ".proj_mlp.", ".net.", ".norm.linear.", ".norm1.", "time_text_embed."),
    blocks={
        "": ("", _ends("time_text_embed", {"time": "timestep", "vector": "text", "guidance": "guidance"})),
        "transformer_blocks": (
            "double_blocks",
            _ATTENTION
            | {
                "img_mod.lin": ["norm1.linear"],
                "txt_mod.lin": ["norm1_context.linear"],
                "img_attn.norm.query_norm": ["attn.norm_q"],
                "img_attn.norm.key_norm": ["attn.norm_k"],
                "txt_attn.norm.query_norm": ["attn.norm_added_q"],
                "txt_attn.norm.key_norm": ["attn.norm_added_k"],
                "img_mlp.0": ["ff.net.0.proj"],
                "img_mlp.2": ["ff.net.2"],
                "txt_mlp.0": ["ff_context.net.0.proj"],
                "txt_mlp.2": ["ff_context.net.2"],
            },
        ),
        "single_transformer_blocks": (
            "single_blocks",
            {
                "modulation.lin": ["norm.linear"],
                "linear1": ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"],
                "linear2": ["proj_out"],
                "norm.query_norm": ["attn.norm_q"],
                "norm.key_norm": ["attn.norm_k"],
            },
        ),
    },
)

# q, k and v stay apart in the double blocks, each with an A of its own, as in the LoRAs that people have; single blocks
# have one projection for q, k, v and the MLP.
FLUX2 = Layout(
    "FLUX.2",
    r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|add_q_proj|add_k_proj|add_v_proj|to_out\.0|to_add_out)"
    r"|single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)",
    fused=False,
    own=(".to_qkv_mlp_proj.", ".linear_in.", ".linear_out.", "_stream_modulation", "time_guidance_embed."),
    blocks={
        "": (
            "",
            _ends("time_guidance_embed", {"time": "timestep", "guidance": "guidance"})
            | {
                f"{name}.lin": [f"{name}.linear"]
                for name in (
                    "double_stream_modulation_img",
                    "double_stream_modulation_txt",
                    "single_stream_modulation",
                )
            },
        ),
        "transformer_blocks": (
            "double_blocks",
            _ATTENTION
            | {
                "img_mlp.0": ["ff.linear_in"],
                "img_mlp.2": ["ff.linear_out"],
                "txt_mlp.0": ["ff_context.linear_in"],
                "txt_mlp.2": ["ff_context.linear_out"],
            },
        ),
        "single_transformer_blocks": (
            "single_blocks",
            {"linear1": ["attn.to_qkv_mlp_proj"], "linear2": ["attn.to_out"]},
        ),
    },
)


# Every program calls the layers as diffusers does. The last block's text is not read, nor what makes it alone.
QWEN = Layout(
    "Qwen-Image",
    r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|add_q_proj|add_k_proj|add_v_proj|to_out\.0|to_add_out)",
    fused=False,
    own=(
        "img_mlp.net",
        "txt_mlp.net",
        "img_mod.1",
        "txt_mod.1",
        "img_mlp_net",
        "txt_mlp_net",
        "img_mod_1",
        "txt_mod_1",
    ),
    blocks={
        "": (
            "",
            {
                name: [name]
                for name in (
                    "img_in",
                    "txt_in",
                    "proj_out",
                    "norm_out.linear",
                    "time_text_embed.timestep_embedder.linear_1",
                    "time_text_embed.timestep_embedder.linear_2",
                )
            },
        ),
        "transformer_blocks": (
            "transformer_blocks",
            {name: [name] for parts in _ATTENTION.values() for name in parts}
            | {
                name: [name]
                for stream in ("img", "txt")
                for name in (f"{stream}_mlp.net.0.proj", f"{stream}_mlp.net.2", f"{stream}_mod.1")
            },
        ),
    },
    unread=r"transformer_blocks\.{last}\.attn\.(add_q_proj|to_add_out)",
)


def layout_of(keys: Iterable[str]) -> Layout | None:
    """The layout whose layers these stock keys name; None where several families have them.

    Only Qwen-Image has more than 19 blocks of two streams.
    """
    names = list(keys)
    # Qwen-Image first: it has layers with parts of FLUX.1's names in theirs.
    if any(_LATE_BLOCK.search(name) or any(own in name for own in QWEN.own) for name in names):
        return QWEN
    return next((layout for name in names for layout in (FLUX, FLUX2) if any(own in name for own in layout.own)), None)


def refuse_other_family(where: object, keys: Iterable[str], layout: Layout) -> None:
    """Raises UserError where ``keys`` are another family's than the layout's."""
    theirs = layout_of(keys)
    if theirs and theirs != layout:
        raise UserError(
            f"{where}: an adapter of {theirs.family}'s layers, but this base is {layout.family}",
            "load it on its own base",
        )
