"""Reward checkpoints with random weights in the layout of the published ones, small enough for any CPU."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertTokenizer,
    BitImageProcessorPil,
    Dinov2Config,
    Dinov2Model,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    PreTrainedModel,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLModel,
    SamConfig,
    SamImageProcessorPil,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SwinConfig,
)

DATA = Path(__file__).parents[1] / "data" / "golden_rewards"
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
QWEN_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    *(f"<|{kind}_{end}|>" for kind in ("object_ref", "box", "quad", "vision") for end in ("start", "end")),
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
BERT_LETTERS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *string.ascii_lowercase]
BERT_LETTERS += [f"##{letter}" for letter in string.ascii_lowercase]
TEMPLATE = "How good is this for: {text_prompt}? <|Reward|>\n"


def golden(name: str) -> dict[str, Tensor]:
    """Golden tensors; weights are kept in fp16 there."""
    return {k: v.float() if v.is_floating_point() else v for k, v in load_file(DATA / f"{name}.safetensors").items()}


def randomise(module: nn.Module, scale: float, seed: int = 0) -> None:
    """Weights from a normal distribution of deviation ``scale``; norms stay at 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.ndim > 1 or "norm" not in name:
                weight.copy_(scale * torch.randn(weight.shape, generator=generator))


def _save(model: PreTrainedModel, folder: Path, scale: float) -> Path:
    randomise(model, scale)
    model.save_pretrained(folder)
    return folder


def build_dinov2(folder: Path) -> Path:
    """DINOv2: 14-pixel patches, pictures resized to 32 and cropped to 28."""
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=28, patch_size=14
    )
    BitImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}, resample=3, **IMAGENET
    ).save_pretrained(folder)
    return _save(Dinov2Model(config), folder, 0.2)


def build_grounding_dino(folder: Path) -> Path:
    """GroundingDINO: pictures at 96 to 128 pixels (at fewer its last level is one cell), letters for words."""
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=64,
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 1, 1],
            window_size=2,
            out_features=["stage2", "stage3", "stage4"],
        ),
        text_config=BertConfig(
            vocab_size=1100, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        ),
        d_model=32,  # at least: its group norms have 32 groups
        num_queries=4,
        encoder_layers=1,
        decoder_layers=2,  # with one the box heads don't fit
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_feature_levels=4,
        max_text_len=64,
    )
    vocabulary = [f"[unused{n}]" for n in range(1100)]
    vocabulary[0], vocabulary[100] = "[PAD]", "[UNK]"
    vocabulary[101], vocabulary[102], vocabulary[1012], vocabulary[1029] = "[CLS]", "[SEP]", ".", "?"  # ids fixed there
    letters = string.ascii_lowercase + string.digits
    vocabulary[103 : 103 + 2 * len(letters)] = [*letters, *(f"##{letter}" for letter in letters)]
    BertTokenizer(vocab={word: n for n, word in enumerate(vocabulary)}).save_pretrained(folder)
    GroundingDinoImageProcessorPil(size={"shortest_edge": 96, "longest_edge": 128}, **IMAGENET).save_pretrained(folder)
    return _save(GroundingDinoForObjectDetection(config), folder, 0.15)


def build_sam(folder: Path) -> Path:
    """SAM: pictures padded to 64 x 64, 16-pixel patches."""
    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=16,
            output_channels=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=64,
            patch_size=16,
            mlp_ratio=2.0,
            window_size=2,
            global_attn_indexes=[1],
            num_pos_feats=8,
        ).to_dict(),
        prompt_encoder_config=SamPromptEncoderConfig(
            hidden_size=16, image_size=64, patch_size=16, mask_input_channels=4
        ).to_dict(),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=16, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16
        ).to_dict(),
    )
    SamImageProcessorPil(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}, mask_size={"longest_edge": 16}, **IMAGENET
    ).save_pretrained(folder)
    return _save(SamModel(config), folder, 0.4)


def build_siglip(folder: Path, *, naflex: bool = False) -> Path:
    """SigLIP on pictures of 32 pixels or, with their own aspect ratio, SigLIP 2 on 16 patches; letters for words."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 300, "max_position_embeddings": 12, "projection_size": 32}
    if naflex:
        vision = {**sizes, "num_patches": 16, "patch_size": 8}
        model = Siglip2Model(Siglip2Config(vision_config=vision, text_config=text))
        Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16).save_pretrained(folder)
    else:
        vision = {**sizes, "image_size": 32, "patch_size": 8}
        model = SiglipModel(SiglipConfig(vision_config=vision, text_config=text))
        SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=2).save_pretrained(folder)
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *string.ascii_lowercase, "▁", "A", "R"]
    Siglip2Tokenizer(vocab={word: n for n, word in enumerate(words)}, padding_side="left").save_pretrained(folder)
    return _save(model, folder, 0.2)


def aesthetic_v2(width: int) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of the layers of LAION's V2 head by their numbers, on embeddings of ``width`` channels."""
    return {"0": (1024, width), "2": (128, 1024), "4": (64, 128), "6": (16, 64), "7": (1, 16)}


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Qwen2-VL's tokenizer with bytes for words."""
    return Qwen2Tokenizer(
        vocab={letter: n for n, letter in enumerate(sorted(ByteLevel.alphabet()))},
        merges=[],
        extra_special_tokens=QWEN_TOKENS[1:],
    )


def build_hpsv3(folder: Path) -> Path:
    """``HPSv3.safetensors``, ``backbone/`` with Qwen2-VL's configuration and tokenizer, ``template.txt``."""
    tokenizer = qwen_tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in QWEN_TOKENS}
    config = {
        "model_type": "qwen2_vl",
        "vocab_size": 300,  # the published one, too, is larger than its tokenizer
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "rope_theta": 1e6,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_config": {"depth": 1, "embed_dim": 16, "num_heads": 1, "mlp_ratio": 2, "hidden_size": 32},
    }
    write_backbone(config, folder / "backbone")
    (folder / "template.txt").write_text(TEMPLATE)
    made = Qwen2VLConfig(**config)
    made.text_config.vocab_size = len(tokenizer) + 1
    body = Qwen2VLModel(made)
    head = nn.Sequential(
        nn.Linear(32, 1024), nn.ReLU(), nn.Dropout(0.05), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2)
    )
    randomise(body, 0.2)
    state = {k.replace("language_model.", "model.", 1): v for k, v in body.state_dict().items()}
    state |= {f"rm_head.{key}": value for key, value in head.state_dict().items()}
    state["lm_head.weight"] = torch.zeros(len(tokenizer) + 1, 32)
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "HPSv3.safetensors")
    return folder


def write_backbone(config: dict, folder: Path) -> None:
    """A Qwen2-VL folder: a flat configuration, as published, and a tokenizer."""
    import json

    folder.mkdir(parents=True, exist_ok=True)
    qwen_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
