"""What is known of Qwen-Image-2.1 before anything of it is imported."""

from __future__ import annotations

import re

from cgrpo.policies.family import Family
from cgrpo.policies.layouts import Layout

_BLOCK = (
    "attn.to_q",
    "attn.to_k",
    "attn.to_v",
    "attn.to_out.0",
    "img_mlp.proj",
    "img_mlp.gate_layer",
    "img_mlp.out",
)
_ENDS = (
    "img_in",
    "txt_in.in_layer",
    "txt_in.out_layer",
    "time_text_embed.timestep_embedder.linear_1",
    "time_text_embed.timestep_embedder.linear_2",
    "modulation.1",
    "norm_out.linear",
    "proj_out",
)

# Every program calls the layers as diffusers does. Attention of its late blocks alone could be Qwen-Image's, too.
LAYOUT = Layout(
    "Qwen-Image-2.1",
    r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0)",
    fused=False,
    own=re.compile(
        r"img_mlp[._](proj|gate_layer|out)\b|txt_in[._](in|out)_layer"
        r"|(?<![a-z_])transformer_blocks\.(19|2\d|3[01])\.attn\.to_(q|k|v|out)\b"
    ),
    blocks={
        "": ("", {name: [name] for name in _ENDS}),
        "transformer_blocks": ("transformer_blocks", {name: [name] for name in _BLOCK}),
    },
)

FAMILY = Family(
    policy="cgrpo.policies.qwen21.policy:Qwen21Policy",
    layout=LAYOUT,
    own_settings=frozenset({"guidance_gradient"}),
    shifts={"qwen": "cgrpo.policies.qwen_edit.inputs:qwen_sigmas"},
)
