"""The toybox's policy: an autoencoder, then a tiny FLUX with T5 and CLIP text encoders, by flow matching on pairs.

Its training data is imperfect on purpose (wrong captions, wrong colours), so that the base is
imperfect on both axes and reinforcement learning has something to fix.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from cgrpo.files import json_text
from cgrpo.policies.encodings.latents import pack
from cgrpo.policies.flux.inputs import position_ids
from cgrpo.toybox import drawing, world
from cgrpo.toybox.build.loop import optimise

GUIDANCE = 3.5  # FLUX.1-dev has a guidance input; the toybox is only ever trained and used at this value
SUBJECT_WEIGHT = 3.0
BATCH, DIAL = 64, 0.25  # pairs per step; share of prompts that ask for a property
NO_REFERENCE = 0.1  # share of batches without a reference, so that the prompt alone is in distribution
LENGTH = 12  # tokens: the longest prompt has ten words, plus begin and end
SPECIAL = ("<pad>", "<bos>", "<unk>", "<eos>")


# -- the autoencoder: 4x down, 8 channels; 32 x 32 pixels become 4 x 4 packed tokens ------------------


def picture_pool(count: int, rng: torch.Generator) -> torch.Tensor:
    """``count`` pictures of the world, a third of them references, float [count, 3, 32, 32] in [0, 1]."""
    parts = []
    for first in range(0, count, 512):
        subjects = world.sample_subjects(min(512, count - first), rng)
        if (first // 512) % 3 == 0:
            parts.append(drawing.draw_references(subjects, rng)[0])
        else:
            parts.append(drawing.draw(subjects, world.sample_prompts(len(subjects), rng, DIAL), rng)[0])
    return torch.cat(parts)


def build_autoencoder(folder: Path, seed: int, steps: int, say: Callable[[str], None]) -> None:
    """Train on pictures of the training split and save to ``folder/vae``."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed + 1)
    vae = AutoencoderKL(  # diffusers' annotations allow one block only
        down_block_types=("DownEncoderBlock2D",) * 3,  # pyright: ignore
        up_block_types=("UpDecoderBlock2D",) * 3,  # pyright: ignore
        block_out_channels=(24, 48, 48),  # pyright: ignore
        latent_channels=8,
        norm_num_groups=8,
        sample_size=drawing.SIZE,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    pool = picture_pool(min(16384, BATCH * steps), rng) * 2 - 1

    def loss_at(step: int) -> torch.Tensor:
        x = pool[torch.randint(len(pool), (BATCH,), generator=rng)]
        posterior = vae.encode(x, return_dict=False)[0]
        error = vae.decode(posterior.sample(rng), return_dict=False)[0].float() - x  # pyright: ignore
        return error.abs().mean() + 2 * error.square().mean() + 1e-3 * posterior.kl().mean() / 512

    optimise("autoencoder", [vae], loss_at, steps=steps, learning_rate=2e-3, say=say, average=0.995)
    vae.eval()
    with torch.no_grad():
        z = vae.encode(pool[:1024], return_dict=False)[0].mean
        decoded = vae.decode(z, return_dict=False)[0]  # pyright: ignore
        error = (decoded.clamp(-1, 1) - pool[:1024]).square().mean() / 4
    vae.register_to_config(scaling_factor=round(1 / z.std().item(), 4), shift_factor=round(z.mean().item(), 4))
    say(f"autoencoder: PSNR {-10 * error.log10().item():.1f} dB, latent std {z.std():.3f}")
    vae.half().save_pretrained(folder / "vae")


# -- the transformer and its text encoders ----------------------------------------------------------


def vocabulary() -> list[str]:
    """Special tokens, then every word a prompt can hold, sorted."""
    phrases = [*world.SCENES.values(), *(phrase for phrase, _ in world.POSITIONS.values())]
    words = {word for phrase in phrases for word in phrase.split()}
    return [*SPECIAL, *sorted(words | {"a", world.PHRASE} | set(world.SIZES) | set(world.PROPERTIES) - {""})]


def build_tokenizer(folder: Path, *, begin: bool, words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Save a tokenizer of ``words`` (default: ``vocabulary``) to ``folder``.

    ``begin`` puts <bos> in front (CLIP does, T5 does not).
    """
    table = {word: index for index, word in enumerate(words or vocabulary())}
    core = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    core.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="<bos> $A <eos>" if begin else "$A <eos>",
        special_tokens=[("<bos>", table["<bos>"]), ("<eos>", table["<eos>"])],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=LENGTH,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


@dataclass(frozen=True)
class Pairs:
    """Packed latents of references and targets [B, 16, 32] (half precision; of several references one behind the
    other), their captions' tokens [B, 12], and each target token's weight in the loss [B, 16]."""

    reference_BLC: Tensor
    target_BLC: Tensor
    clip_BL: Tensor
    t5_BL: Tensor
    weight_BL: Tensor

    def __len__(self) -> int:
        return len(self.target_BLC)


def make_pairs(folder: Path, count: int, seed: int) -> Pairs:
    """``count`` training pairs of the training split, with the flaws above."""
    rng = torch.Generator().manual_seed(seed)
    encode = encoder(folder / "vae")
    clip, t5 = build_tokenizer(folder / "tokenizer", begin=True), build_tokenizer(folder / "tokenizer_2", begin=False)
    columns: list[list[Tensor]] = [[], [], [], [], []]
    for _ in range(0, count, 256):
        subjects = world.sample_subjects(256, rng)
        prompts = world.sample_prompts(256, rng, DIAL)
        shown, captions = world.flawed(subjects, prompts, rng, DIAL)
        texts = captions.texts()
        columns[0].append(encode(drawing.draw_references(subjects, rng)[0]))
        columns[1].append(encode(drawing.draw(shown, prompts, rng)[0]))
        columns[2].append(token_ids(clip, texts))
        columns[3].append(token_ids(t5, texts))
        places = torch.tensor([vector for _, vector in world.POSITIONS.values()])[prompts.position_B]
        radius, shift = torch.tensor(list(world.SIZES.values()))[prompts.size_B].unbind(1)
        columns[4].append(token_weights(places * shift[:, None], radius))
    return Pairs(*(torch.cat(column) for column in columns))


def encoder(vae_folder: Path) -> Callable[[Tensor], Tensor]:
    """From pictures [B, 3, 32, 32] in [0, 1] to packed latents [B, 16, C] in half precision."""
    vae = AutoencoderKL.from_pretrained(vae_folder, torch_dtype=torch.float32)
    scale, shift = vae.config["scaling_factor"], vae.config["shift_factor"]

    @torch.no_grad()
    def encode(pictures: Tensor) -> Tensor:
        mean = vae.encode(pictures * 2 - 1, return_dict=False)[0].mean
        return pack((mean - shift) * scale).half()

    return encode


def token_ids(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    """The tokens of texts [B, 12]."""
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


def token_weights(centre_B2: Tensor, radius_B: Tensor) -> Tensor:
    """Loss weights [B, 16] with mean 1: tokens where the prompt puts the subject count more.

    The subject is a tenth to a quarter of the picture but all of its identity. Weights depend on the prompt
    alone, so what the velocity converges to is unchanged.
    """
    axis = torch.arange(4) * 8.0 - 12
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    away = torch.maximum((x.reshape(1, -1) - centre_B2[:, :1]).abs(), (y.reshape(1, -1) - centre_B2[:, 1:]).abs())
    weight = 1 + SUBJECT_WEIGHT * (away < radius_B[:, None] + 3).float()
    return weight / weight.mean(1, keepdim=True)


def new_models(channels: int) -> tuple[FluxTransformer2DModel, CLIPTextModel, T5EncoderModel]:
    """The random models; ``channels`` a packed token."""
    words, (pad, begin, _, end) = len(vocabulary()), range(len(SPECIAL))
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=channels,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=48,
        num_attention_heads=4,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        guidance_embeds=True,
        axes_dims_rope=(4, 22, 22),
    )
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=words,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            projection_dim=64,
            pad_token_id=pad,
            bos_token_id=begin,
            eos_token_id=end,
        )
    )
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=words,
            d_model=64,
            d_kv=16,
            d_ff=128,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=pad,
            eos_token_id=end,
            decoder_start_token_id=pad,  # pyright: ignore
        )
    )
    return transformer, clip, t5


def matching_loss(
    models: tuple[FluxTransformer2DModel, CLIPTextModel, T5EncoderModel],
    pairs: Pairs,
    index_B: Tensor,
    reference_BLC: Tensor,
    target_BLC: Tensor,
    rng: torch.Generator,
) -> Tensor:
    """Weighted flow-matching loss of the pairs ``index_B``; ``reference_BLC`` may hold no token."""
    transformer, clip, t5 = models
    count, tokens = target_BLC.shape[:2]
    side = int(tokens**0.5)
    noise = torch.randn(target_BLC.shape, generator=rng)
    sigma = torch.sigmoid(1.2 * torch.randn(count, generator=rng) + 0.2)
    x = target_BLC + sigma[:, None, None] * (noise - target_BLC)
    velocity = transformer(
        hidden_states=torch.cat([x, reference_BLC], 1),
        timestep=sigma,
        guidance=torch.full((count,), GUIDANCE),
        encoder_hidden_states=t5(pairs.t5_BL[index_B]).last_hidden_state,
        pooled_projections=clip(pairs.clip_BL[index_B]).pooler_output,
        img_ids=position_ids((side, side), [(side, side)] * (reference_BLC.shape[1] // tokens)),
        txt_ids=torch.zeros(LENGTH, 3),
        return_dict=False,
    )[0][:, :tokens]
    error_BL = (velocity.float() - (noise - target_BLC)).square().mean(-1)
    return (error_BL * pairs.weight_BL[index_B]).mean()


def build_policy(folder: Path, seed: int, steps: int, say: Callable[[str], None]) -> None:
    """Train and save transformer, text encoders, scheduler and model_index next to ``folder/vae``."""
    pairs = make_pairs(folder, min(49152, steps * BATCH), seed + 2)
    say(f"policy: {len(pairs)} pairs drawn and encoded")
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed + 3)
    models = transformer, clip, t5 = new_models(pairs.target_BLC.shape[-1])

    def loss_at(step: int) -> Tensor:
        index = torch.randint(len(pairs), (BATCH,), generator=rng)
        reference = pairs.reference_BLC[index].float()
        if torch.rand((), generator=rng) < NO_REFERENCE:
            reference = reference[:, :0]
        return matching_loss(models, pairs, index, reference, pairs.target_BLC[index].float(), rng)

    optimise("policy", models, loss_at, steps=steps, learning_rate=1.5e-3, say=say, average=0.999, muon=True)
    transformer.bfloat16().save_pretrained(folder / "transformer")
    clip.bfloat16().save_pretrained(folder / "text_encoder")
    t5.bfloat16().save_pretrained(folder / "text_encoder_2")
    FlowMatchEulerDiscreteScheduler(shift=1.0).save_pretrained(folder / "scheduler")
    parts = {
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "tokenizer_2": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    index = {"_class_name": "FluxPipeline", **parts}
    (folder / "model_index.json").write_text(json_text(index, indent=2) + "\n")
