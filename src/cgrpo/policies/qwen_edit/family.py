"""What is known of Qwen-Image-Edit before anything of it is imported."""

from __future__ import annotations

import re

from cgrpo.policies.family import Family
from cgrpo.policies.layouts import ATTENTION, Layout

# Every program calls the layers as diffusers does. The last block's text is not read, nor what makes it alone. Block 19
# and above tell it from FLUX, in files of attention alone.
LAYOUT = Layout(
    "Qwen-Image",
    r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|add_q_proj|add_k_proj|add_v_proj|to_out\.0|to_add_out)",
    fused=False,
    own=re.compile(r"(img|txt)_(mlp[._]net|mod[._]1)|(?<![a-z_])transformer_blocks\.(19|[2-9]\d)\."),
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
            {name: [name] for parts in ATTENTION.values() for name in parts}
            | {
                name: [name]
                for stream in ("img", "txt")
                for name in (f"{stream}_mlp.net.0.proj", f"{stream}_mlp.net.2", f"{stream}_mod.1")
            },
        ),
    },
    unread=r"transformer_blocks\.{last}\.attn\.(add_q_proj|to_add_out)",
)

FAMILY = Family(
    policy="cgrpo.policies.qwen_edit.policy:QwenEditPolicy",
    layout=LAYOUT,
    own_settings=frozenset({"guidance_gradient"}),
    shifts={"qwen": "cgrpo.policies.qwen_edit.inputs:qwen_sigmas"},
    reference_rules={"qwen": "cgrpo.policies.qwen_edit.inputs:fit_area"},
)
