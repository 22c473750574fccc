"""What is known of FLUX.1 (UNO, Kontext, the toy world's policy) before anything of it is imported."""

from __future__ import annotations

import re

from cgrpo.policies.family import Family
from cgrpo.policies.layouts import ATTENTION, Blocks, Layout, bfl_ends

UNO: Blocks = {  # the released checkpoints' names (XLabs'), of FLUX.1's layers
    "transformer_blocks": (
        "double_blocks",
        {
            "processor.qkv_lora1": ATTENTION["img_attn.qkv"],
            "processor.qkv_lora2": ATTENTION["txt_attn.qkv"],
            "processor.proj_lora1": ATTENTION["img_attn.proj"],
            "processor.proj_lora2": ATTENTION["txt_attn.proj"],
        },
    ),
    "single_transformer_blocks": (
        "single_blocks",
        {"processor.qkv_lora": ATTENTION["img_attn.qkv"], "processor.proj_lora": ["proj_out"]},
    ),
}

# A list of names would not do for targets: "proj_out" alone also matches the transformer's last layer.
LAYOUT = Layout(
    "FLUX.1",
    r"transformer_blocks\.\d+\.attn\.(to_qkv|to_added_qkv|to_out\.0|to_add_out)"
    r"|single_transformer_blocks\.\d+\.(attn\.to_qkv|proj_out)",
    fused=True,
    own=re.compile(
        r"single_transformer_blocks\.\d+\.(proj_out|proj_mlp|norm\.linear)\."
        r"|\.(ff|ff_context)\.net\.|\.norm1(_context)?\.linear\.|time_text_embed\.(text|guidance)_embedder\."
    ),
    blocks={
        "": ("", bfl_ends("time_text_embed", {"time": "timestep", "vector": "text", "guidance": "guidance"})),
        "transformer_blocks": (
            "double_blocks",
            ATTENTION
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
    programs={"UNO": UNO},
    alphas=True,
)

FAMILY = Family(
    policy="cgrpo.policies.flux.policy:FluxPolicy",
    layout=LAYOUT,
    own_settings=frozenset({"clip", "t5", "position_ids"}),
    shifts={name: f"cgrpo.policies.flux.inputs:{name}_sigmas" for name in ("flux", "uno")},
    reference_rules={
        "uno": "cgrpo.policies.flux.references:resize_reference",
        "uno-train": "cgrpo.policies.flux.references:stretch_to_bucket",
        "kontext": "cgrpo.policies.flux.references:stretch_to_preferred",
    },
)
