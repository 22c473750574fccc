"""What is known of FLUX.2-klein before anything of it is imported."""

from __future__ import annotations

import re

from cgrpo.policies.family import Family
from cgrpo.policies.layouts import ATTENTION, Layout, bfl_ends

# q, k and v stay apart in the double blocks, each with an A of its own, as in the LoRAs that people have; single blocks
# have one projection for q, k, v and the MLP.
LAYOUT = Layout(
    "FLUX.2",
    r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|add_q_proj|add_k_proj|add_v_proj|to_out\.0|to_add_out)"
    r"|single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)",
    fused=False,
    own=re.compile(r"\.(to_qkv_mlp_proj|linear_in|linear_out)\.|_stream_modulation|time_guidance_embed\."),
    blocks={
        "": (
            "",
            bfl_ends("time_guidance_embed", {"time": "timestep", "guidance": "guidance"})
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
            ATTENTION
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
    ratios={
        r"single_blocks[._]\d+[._]linear1$": (9, 1),
        r"single_blocks[._]\d+[._]linear2$": (1, 4),
        r"double_blocks[._]\d+[._](img|txt)_mlp[._]0$": (6, 1),
        r"double_blocks[._]\d+[._](img|txt)_mlp[._]2$": (1, 3),
    },
)

FAMILY = Family(
    policy="cgrpo.policies.flux2.policy:Flux2Policy",
    layout=LAYOUT,
    own_settings=frozenset({"guidance_gradient"}),
    shifts={"flux2": "cgrpo.policies.flux2.inputs:flux2_sigmas"},
    reference_rules={"flux2": "cgrpo.policies.flux2.inputs:limit_area"},
)
