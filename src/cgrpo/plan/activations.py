"""What the forward of the transformer leaves in memory for the backward, tensor by tensor.

Counted from the saved tensors of diffusers' blocks with a LoRA over a frozen base. A frozen linear layer saves
nothing but its weight; a residual sum and the gates' products save no tokens. ``D`` is the width, ``H`` heads:

per token, double block    LoRA inputs D and D (before and after attention) with their rank-r middles; q, k before
                           their norms (with v one fused tensor 3 D in float32; float32 copies 2 D under autocast) and
                           their 2 H scales; rotated q, k and v 3 D; attention's output D and log-sum H; inputs of the
                           two layer norms D and D with 2 statistics each; the activation's input 4 D
per token, single block    LoRA inputs D and 5 D; q, k, v before the norms 3 D (v is kept through it; under autocast
                           also float32 copies of q and k, 2 D); rotated q and k 2 D; output D and log-sum H;
                           layer norm's input D; the activation's input 4 D
per sample                 modulation

Under autocast all is in bfloat16 but for q and k before their norms, their scales and the log-sum (float32), and,
on CUDA only, the layer norms' inputs and statistics: there layer_norm runs in float32 and keeps its own copy.
The LoRA's float32 matrices are cast once a forward; "off" keeps the copies for the backward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cgrpo.plan.flux2 import Flux2
from cgrpo.plan.transformer import Block, Tokens, Transformer

Checkpointing = Literal["off", "selective", "full"]


@dataclass(frozen=True)
class Precision:
    """Bytes of a number in each role."""

    main: int  # products, residual stream
    norm: int  # input and statistics of layer norms
    stats: int  # log-sums and rotary tables
    autocast: bool

    @classmethod
    def of(cls, dtype: str, device: str = "cuda") -> Precision:
        """For a base in ``dtype`` (float32, float64, or bfloat16 under autocast) on "cuda" or "cpu"."""
        if dtype == "bfloat16":
            return cls(main=2, norm=4 if device == "cuda" else 2, stats=4, autocast=True)
        size = 8 if dtype == "float64" else 4
        return cls(main=size, norm=size, stats=size, autocast=False)


@dataclass(frozen=True)
class Activations:
    """Bytes kept between forward and backward, and what one block needs on top of them.

    What is at work is no count but an observation on live tensors, a share of what one block saves: measured peaks
    of forward and backward are within 10 % of kept + copies + again + backward_work in any mode.
    """

    kept: int
    copies: int  # of the LoRA in the products' precision
    copies_kept: bool  # until the backward is through; else they go when the forward ends
    again: int  # what one block saves when it is computed again
    backward_work: int  # gradients of a block's inner results
    forward_work: int  # of a forward without a backward


def activations(
    flux: Transformer, tokens: Tokens, rank: int, samples: int, mode: Checkpointing, precision: Precision
) -> Activations:
    """For one forward-backward of ``samples`` samples."""
    saved = _outside(flux, tokens, samples, precision) + samples * _shared(flux, mode) * precision.main
    if mode == "off":
        saved += sum(
            block_saved(flux, tokens, rank, samples, precision, double=number < flux.doubles, first=number == 0)
            for number in range(len(flux.blocks))
        )
    else:
        saved += samples * len(flux.blocks) * tokens.all * flux.width * precision.main
    if mode == "selective":
        saved += sum(samples * _products(block, flux, tokens, precision) for block in flux.blocks)
    largest, again = 0, 0
    for double in {number < flux.doubles for number in range(len(flux.blocks))}:
        block = block_saved(flux, tokens, rank, samples, precision, double=double, first=False)
        kept = samples * _products(flux.double if double else flux.single, flux, tokens, precision)
        largest, again = max(largest, block), max(again, {"off": 0, "full": block, "selective": block - kept}[mode])
    copies = precision.main * _cast_parameters(flux, rank) if precision.autocast else 0
    # Autocast's conversions hold some results twice.
    work = (largest, largest * 5 // 4) if precision.autocast else (largest // 2, largest)
    if isinstance(flux, Flux2):  # whose single blocks go through their widest results at the end of a forward
        work = largest // 2, largest * 7 // 5
    return Activations(saved, copies, mode == "off", again, *work)


def block_saved(
    flux: Transformer, tokens: Tokens, rank: int, samples: int, precision: Precision, *, double: bool, first: bool
) -> int:
    """Bytes that one block saves without checkpointing. ``first``: nothing trained lies before it."""
    if isinstance(flux, Flux2):
        return samples * _flux2_block(flux, tokens, rank, samples, precision, double=double, first=first)
    d, heads, main = flux.width, flux.heads, precision.main
    norms = (2 if double else 1) - (1 if first else 0)
    # In a first single block the MLP branch is reached by no gradient either.
    activation = 0 if first and not double else 4 * d
    if double:
        # With one sample, cutting attention's output into text and image makes no copy; autocast makes one.
        inputs = d + (d if samples > 1 or precision.autocast else 0)
        projected = 3 * d if precision.autocast else 6 * d
    else:
        inputs, projected = 6 * d, 5 * d
    per_token = (inputs + 2 * rank + projected + d + activation) * main
    per_token += heads * precision.stats + norms * (d + 2) * precision.norm
    per_token += (2 * d if precision.autocast else 0) * precision.stats + 2 * heads * precision.stats
    modulation = (12 + 2 * norms if double else 3 + norms) * d * main
    return samples * (tokens.all * per_token + modulation)


def _flux2_block(
    flux: Flux2, tokens: Tokens, rank: int, samples: int, precision: Precision, *, double: bool, first: bool
) -> int:
    """``block_saved`` of FLUX.2's blocks, for one of ``samples``.

    Where they differ: q, k and v of a double block are three layers, of which v's result is not kept; a single block
    has one projection of 3 D + 2 M numbers, all kept, and gives D + M of them to its last layer. The activation keeps
    gate and values, 2 M, and what the gate lets through, M. Of the modulation 1 + scale alone is a block's own. Under
    autocast each of q, k and v converts its input for itself.
    """
    d, m, main = flux.width, flux.hidden, precision.main
    norms = (2 if double else 1) - (1 if first else 0)
    if double:
        inputs, middles = 4 * d if precision.autocast else d + (d if samples > 1 else 0), 4 * rank
        projected = 2 * m + (3 * d if precision.autocast else 5 * d)
    else:
        inputs, middles = 2 * d + m, 2 * rank
        projected = 2 * m + 5 * d
    per_token = (inputs + middles + projected + d + m) * main + norms * (d + 2) * precision.norm
    per_token += (3 * flux.heads + (2 * d if precision.autocast else 0)) * precision.stats
    return tokens.all * per_token + (2 if double else 1) * norms * d * main


def _outside(flux: Transformer, tokens: Tokens, samples: int, precision: Precision) -> int:
    """Rotary tables, shared by all samples and blocks, and the last norm."""
    rotary = 2 * tokens.all * flux.head_width * max(4, precision.stats)
    # The last norm reads a cut of the last block's tokens: the whole is kept, unless a float32 copy is.
    copied = precision.norm != precision.main
    last = (tokens.image if copied else tokens.all) * flux.width * precision.norm
    return rotary + samples * (last + 2 * tokens.image * precision.norm + flux.width * precision.main)


def _shared(flux: Transformer, mode: Checkpointing) -> int:
    """Numbers a sample that all blocks have between them: FLUX.2's modulation, or the time embedding as an input."""
    if isinstance(flux, Flux2):
        return (12 * bool(flux.doubles) + 3 * bool(flux.singles)) * flux.width
    return 0 if mode == "off" else flux.width


def _products(block: Block, flux: Transformer, tokens: Tokens, precision: Precision) -> int:
    """Bytes of the results of one sample's matrix products (the base's, not the LoRA's) and attention in a block."""
    outputs = sum(tokens.rows(layer.stream) * layer.outputs for layer in block.linears)
    attention = tokens.all * (flux.width * precision.main + flux.heads * precision.stats)
    return outputs * precision.main + attention


def _cast_parameters(flux: Transformer, rank: int) -> int:
    """LoRA numbers whose copies the backward reads: all but the first block's As that read the embeddings."""
    first = flux.blocks[0].linears
    unread = sum(rank * layer.inputs for layer in first if layer.lora and layer.entry)
    return flux.lora_parameters(rank) - unread
