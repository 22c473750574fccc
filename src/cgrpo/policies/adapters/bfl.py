"""FLUX's layers as Black Forest Labs call them: by a stock list of blocks, theirs and what is stacked in each layer.

Checkpoints in one file and the LoRAs of programs that use these names are read by the tables. FLUX.2's is that of
diffusers' own conversion (convert_flux2_transformer_checkpoint_to_diffusers).
"""

from __future__ import annotations

from collections.abc import Mapping

Blocks = Mapping[str, tuple[str, Mapping[str, list[str]]]]

SWAPPED = "final_layer.adaLN_modulation.1"
_TOP = {
    "img_in": ["x_embedder"],
    "txt_in": ["context_embedder"],
    "final_layer.linear": ["proj_out"],
    SWAPPED: ["norm_out.linear"],
} | {
    f"{theirs}_in.{side}_layer": [f"time_text_embed.{ours}_embedder.linear_{number}"]
    for theirs, ours in {"time": "timestep", "vector": "text", "guidance": "guidance"}.items()
    for number, side in enumerate(("in", "out"), start=1)
}
_DOUBLE = {
    "img_mod.lin": ["norm1.linear"],
    "txt_mod.lin": ["norm1_context.linear"],
    "img_attn.qkv": ["attn.to_q", "attn.to_k", "attn.to_v"],
    "txt_attn.qkv": ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
    "img_attn.proj": ["attn.to_out.0"],
    "txt_attn.proj": ["attn.to_add_out"],
    "img_attn.norm.query_norm": ["attn.norm_q"],
    "img_attn.norm.key_norm": ["attn.norm_k"],
    "txt_attn.norm.query_norm": ["attn.norm_added_q"],
    "txt_attn.norm.key_norm": ["attn.norm_added_k"],
    "img_mlp.0": ["ff.net.0.proj"],
    "img_mlp.2": ["ff.net.2"],
    "txt_mlp.0": ["ff_context.net.0.proj"],
    "txt_mlp.2": ["ff_context.net.2"],
}
_SINGLE = {
    "modulation.lin": ["norm.linear"],
    "linear1": ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"],
    "linear2": ["proj_out"],
    "norm.query_norm": ["attn.norm_q"],
    "norm.key_norm": ["attn.norm_k"],
}
FLUX_BLOCKS = {
    "": ("", _TOP),
    "transformer_blocks": ("double_blocks", _DOUBLE),
    "single_transformer_blocks": ("single_blocks", _SINGLE),
}

_TOP2 = {
    "img_in": ["x_embedder"],
    "txt_in": ["context_embedder"],
    "final_layer.linear": ["proj_out"],
    SWAPPED: ["norm_out.linear"],
    "double_stream_modulation_img.lin": ["double_stream_modulation_img.linear"],
    "double_stream_modulation_txt.lin": ["double_stream_modulation_txt.linear"],
    "single_stream_modulation.lin": ["single_stream_modulation.linear"],
} | {
    f"{theirs}_in.{side}_layer": [f"time_guidance_embed.{ours}_embedder.linear_{number}"]
    for theirs, ours in {"time": "timestep", "guidance": "guidance"}.items()
    for number, side in enumerate(("in", "out"), start=1)
}
_DOUBLE2 = {
    "img_attn.qkv": ["attn.to_q", "attn.to_k", "attn.to_v"],
    "txt_attn.qkv": ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
    "img_attn.proj": ["attn.to_out.0"],
    "txt_attn.proj": ["attn.to_add_out"],
    "img_mlp.0": ["ff.linear_in"],
    "img_mlp.2": ["ff.linear_out"],
    "txt_mlp.0": ["ff_context.linear_in"],
    "txt_mlp.2": ["ff_context.linear_out"],
}
_SINGLE2 = {"linear1": ["attn.to_qkv_mlp_proj"], "linear2": ["attn.to_out"]}
FLUX2_BLOCKS = {
    "": ("", _TOP2),
    "transformer_blocks": ("double_blocks", _DOUBLE2),
    "single_transformer_blocks": ("single_blocks", _SINGLE2),
}
