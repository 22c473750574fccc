"""The inverse of what bfl.py does, written out plainly: stock weights as Black Forest Labs' files hold them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

State = dict[str, Tensor]


def bfl_transformer(ours: Mapping[str, Tensor]) -> State:
    def both(theirs: str, *modules: str) -> State:
        return {
            f"{theirs}.{leaf}": torch.cat([ours[f"{module}.{leaf}"] for module in modules])
            for leaf in ("weight", "bias")
        }

    theirs = both("img_in", "x_embedder") | both("txt_in", "context_embedder") | both("final_layer.linear", "proj_out")
    for leaf in ("weight", "bias"):
        scale, shift = ours[f"norm_out.linear.{leaf}"].chunk(2)
        theirs[f"final_layer.adaLN_modulation.1.{leaf}"] = torch.cat((shift, scale))
    for name, module in {"time": "timestep", "guidance": "guidance", "vector": "text"}.items():
        if f"time_text_embed.{module}_embedder.linear_1.weight" in ours:
            theirs |= both(f"{name}_in.in_layer", f"time_text_embed.{module}_embedder.linear_1")
            theirs |= both(f"{name}_in.out_layer", f"time_text_embed.{module}_embedder.linear_2")
    i = 0
    while f"transformer_blocks.{i}.attn.to_q.weight" in ours:
        block, there = f"transformer_blocks.{i}", f"double_blocks.{i}"
        attn = f"{block}.attn"
        theirs |= both(f"{there}.img_attn.qkv", f"{attn}.to_q", f"{attn}.to_k", f"{attn}.to_v")
        theirs |= both(f"{there}.txt_attn.qkv", f"{attn}.add_q_proj", f"{attn}.add_k_proj", f"{attn}.add_v_proj")
        theirs |= both(f"{there}.img_attn.proj", f"{attn}.to_out.0")
        theirs |= both(f"{there}.txt_attn.proj", f"{attn}.to_add_out")
        theirs |= both(f"{there}.img_mod.lin", f"{block}.norm1.linear")
        theirs |= both(f"{there}.txt_mod.lin", f"{block}.norm1_context.linear")
        for stream, ff in {"img": "ff", "txt": "ff_context"}.items():
            theirs |= both(f"{there}.{stream}_mlp.0", f"{block}.{ff}.net.0.proj")
            theirs |= both(f"{there}.{stream}_mlp.2", f"{block}.{ff}.net.2")
        theirs[f"{there}.img_attn.norm.query_norm.scale"] = ours[f"{attn}.norm_q.weight"]
        theirs[f"{there}.img_attn.norm.key_norm.scale"] = ours[f"{attn}.norm_k.weight"]
        theirs[f"{there}.txt_attn.norm.query_norm.scale"] = ours[f"{attn}.norm_added_q.weight"]
        theirs[f"{there}.txt_attn.norm.key_norm.scale"] = ours[f"{attn}.norm_added_k.weight"]
        i += 1
    i = 0
    while f"single_transformer_blocks.{i}.proj_out.weight" in ours:
        block, there = f"single_transformer_blocks.{i}", f"single_blocks.{i}"
        attn = f"{block}.attn"
        theirs |= both(f"{there}.linear1", f"{attn}.to_q", f"{attn}.to_k", f"{attn}.to_v", f"{block}.proj_mlp")
        theirs |= both(f"{there}.linear2", f"{block}.proj_out") | both(
            f"{there}.modulation.lin", f"{block}.norm.linear"
        )
        theirs[f"{there}.norm.query_norm.scale"] = ours[f"{attn}.norm_q.weight"]
        theirs[f"{there}.norm.key_norm.scale"] = ours[f"{attn}.norm_k.weight"]
        i += 1
    return {key: value.clone() for key, value in theirs.items()}


def bfl_autoencoder(ours: Mapping[str, Tensor], levels: int) -> State:
    theirs: State = {}

    def put(there: str, here: str, image: bool = False) -> None:
        for leaf in ("weight", "bias"):
            value = ours[f"{here}.{leaf}"]
            theirs[f"{there}.{leaf}"] = value[..., None, None].clone() if image and leaf == "weight" else value.clone()

    def block(there: str, here: str) -> None:
        for name in ("norm1", "conv1", "norm2", "conv2"):
            put(f"{there}.{name}", f"{here}.{name}")
        if f"{here}.conv_shortcut.weight" in ours:
            put(f"{there}.nin_shortcut", f"{here}.conv_shortcut")

    for half, ups in {"encoder": False, "decoder": True}.items():
        put(f"{half}.conv_in", f"{half}.conv_in")
        put(f"{half}.norm_out", f"{half}.conv_norm_out")
        put(f"{half}.conv_out", f"{half}.conv_out")
        block(f"{half}.mid.block_1", f"{half}.mid_block.resnets.0")
        block(f"{half}.mid.block_2", f"{half}.mid_block.resnets.1")
        attention = f"{half}.mid_block.attentions.0"
        put(f"{half}.mid.attn_1.norm", f"{attention}.group_norm")
        for there, here in {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}.items():
            put(f"{half}.mid.attn_1.{there}", f"{attention}.{here}", image=True)
        for i in range(levels):
            here = f"{half}.up_blocks.{i}" if ups else f"{half}.down_blocks.{i}"
            there = f"{half}.up.{levels - 1 - i}" if ups else f"{half}.down.{i}"
            j = 0
            while f"{here}.resnets.{j}.conv1.weight" in ours:
                block(f"{there}.block.{j}", f"{here}.resnets.{j}")
                j += 1
            sample = "up" if ups else "down"
            if f"{here}.{sample}samplers.0.conv.weight" in ours:
                put(f"{there}.{sample}sample.conv", f"{here}.{sample}samplers.0.conv")
    return theirs
