"""FLUX.2's layers as Black Forest Labs call them, and with them the LoRAs of programs that use their names.

As diffusers' own conversion has them (convert_flux2_transformer_checkpoint_to_diffusers).
"""

from __future__ import annotations

from cgrpo.policies.checkpoints.bfl import SWAPPED

_TOP = {
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
_DOUBLE = {
    "img_attn.qkv": ["attn.to_q", "attn.to_k", "attn.to_v"],
    "txt_attn.qkv": ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
    "img_attn.proj": ["attn.to_out.0"],
    "txt_attn.proj": ["attn.to_add_out"],
    "img_mlp.0": ["ff.linear_in"],
    "img_mlp.2": ["ff.linear_out"],
    "txt_mlp.0": ["ff_context.linear_in"],
    "txt_mlp.2": ["ff_context.linear_out"],
}
_SINGLE = {"linear1": ["attn.to_qkv_mlp_proj"], "linear2": ["attn.to_out"]}
BLOCKS = {
    "": ("", _TOP),
    "transformer_blocks": ("double_blocks", _DOUBLE),
    "single_transformer_blocks": ("single_blocks", _SINGLE),
}
