"""Checkpoints as they are published: folders, BFL files, flat text encoders; and every fault told at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from support.policies import from_folder
from support.tiny_bfl import bfl_autoencoder, bfl_transformer
from support.tiny_flux import WORDS, word_tokenizer
from transformers import CLIPConfig, CLIPModel, T5Config, T5EncoderModel, T5ForConditionalGeneration

from cgrpo.errors import UserError
from cgrpo.policies.flux.checkpoint import load_parts
from cgrpo.policies.flux.policy import FluxPolicy
from cgrpo.policies.flux.single_file import read_transformer
from cgrpo.policies.settings import PolicySettings
from cgrpo.types import Batch

CPU = torch.device("cpu")
WEIGHTS = "diffusion_pytorch_model.safetensors"
NOTHING = object()


def load(settings: PolicySettings, dtype: torch.dtype = torch.float32, texts: bool = True) -> SimpleNamespace:
    return SimpleNamespace(**load_parts(settings, dtype, CPU, CPU, texts=texts))


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.fixture
def spoilt(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(tiny_folder, tmp_path / "flux")


@pytest.fixture(scope="module")
def bfl_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """flux.safetensors and ae.safetensors beside text encoders; heads of 128, as axes are guessed from them."""
    folder = tmp_path_factory.mktemp("bfl")
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=32, num_layers=1, num_single_layers=1, attention_head_dim=128, num_attention_heads=1,
        joint_attention_dim=24, pooled_projection_dim=20, guidance_embeds=True,
    )  # fmt: skip
    save_file(bfl_transformer(transformer.state_dict()), folder / "flux.safetensors")
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 64),  # pyright: ignore
        latent_channels=8, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,  # pyright: ignore
        up_block_types=("UpDecoderBlock2D",) * 3,  # pyright: ignore
        scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip
    save_file(bfl_autoencoder(vae.state_dict(), 3), folder / "ae.safetensors")
    for part in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        shutil.copytree(tiny_folder / part, folder / part)
    transformer.save_pretrained(folder / "stock" / "transformer")
    vae.save_pretrained(folder / "stock" / "vae")
    return folder


@pytest.fixture(scope="module")
def flat_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As openai/clip-vit-large-patch14: the whole CLIPModel, old buffers, the tokenizer, in one folder."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    size = {"intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": len(WORDS) + 3, "hidden_size": 20, "max_position_embeddings": 10, "eos_token_id": 1}
    vision = {"hidden_size": 16, "image_size": 8, "patch_size": 4}
    model = CLIPModel(CLIPConfig(text_config=text | size, vision_config=vision | size, projection_dim=8))
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    buffers = {f"{half}_model.embeddings.position_ids": torch.arange(10)[None] for half in ("text", "vision")}
    save_file(weights | buffers, folder / "model.safetensors", metadata={"format": "pt"})
    word_tokenizer(WORDS, 10).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def flat_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole T5 in shards, with its tokenizer in one folder."""
    folder = tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    config = T5Config(vocab_size=len(WORDS) + 3, d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(folder, max_shard_size="10KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    word_tokenizer(WORDS, 12).save_pretrained(folder)
    return folder


def test_bfl_files(bfl_folder: Path) -> None:
    parts = load(PolicySettings(path=str(bfl_folder / "flux.safetensors")))
    stock = FluxTransformer2DModel.from_pretrained(bfl_folder / "stock" / "transformer")
    assert same(parts.transformer, stock)  # pyright: ignore
    assert same(parts.autoencoder, AutoencoderKL.from_pretrained(bfl_folder / "stock" / "vae"))  # pyright: ignore
    assert tuple(parts.transformer.config["axes_dims_rope"]) == (16, 56, 56)
    assert parts.autoencoder.dtype == torch.float32


def test_a_policy_from_bfl_files_draws(bfl_folder: Path) -> None:
    policy = from_folder(FluxPolicy, bfl_folder / "flux.safetensors", height=16, width=16, reference_size=16)
    cond = policy.encode(Batch(("a",), ("a red cube",), ((),), ("cube",)))
    x_NLC = torch.randn(1, *policy.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        v_NLC = policy.velocity(x_NLC, torch.tensor([0.5]), cond)
    assert v_NLC.isfinite().all() and policy.decode(x_NLC).shape == (1, 16, 16, 3)
    assert policy.origin.base.endswith("flux.safetensors") and len(policy.origin.base_hash) == 64


def test_flat_text_encoders(tiny_folder: Path, flat_clip: Path, flat_t5: Path) -> None:
    parts = load(PolicySettings(path=str(tiny_folder), clip=str(flat_clip), t5=str(flat_t5)))
    assert parts.clip and parts.t5 and parts.clip_tokenizer and parts.t5_tokenizer
    whole = CLIPModel.from_pretrained(flat_clip)
    ids = torch.tensor([[3, 4, 1]])
    with torch.no_grad():
        expected = whole.text_model(ids).pooler_output
        assert torch.equal(parts.clip(ids).pooler_output, expected)
        theirs = T5ForConditionalGeneration.from_pretrained(flat_t5).encoder(ids).last_hidden_state
        assert torch.equal(parts.t5(ids).last_hidden_state, theirs)
    assert parts.clip_tokenizer.model_max_length == 10 and parts.t5_tokenizer.model_max_length == 12
    own = load(PolicySettings(path=str(tiny_folder)))
    assert own.clip and not torch.equal(own.clip(ids).pooler_output, expected)


def test_autoencoder_from_elsewhere(tiny_folder: Path, bfl_folder: Path) -> None:
    other = AutoencoderKL.from_pretrained(bfl_folder / "stock" / "vae")
    for place in ("ae.safetensors", "stock", "stock/vae"):
        parts = load(PolicySettings(path=str(tiny_folder), autoencoder=str(bfl_folder / place)), texts=False)
        assert same(parts.autoencoder, other)  # pyright: ignore


def test_without_text_encoders(tiny_folder: Path, tmp_path: Path) -> None:
    for part in ("transformer", "vae"):
        shutil.copytree(tiny_folder / part, tmp_path / part)
    parts = load(PolicySettings(path=str(tmp_path)), texts=False)
    assert vars(parts).keys() == {"transformer", "autoencoder"}


def test_precision(tiny_folder: Path) -> None:
    parts = load(PolicySettings(path=str(tiny_folder)), torch.bfloat16)
    assert parts.clip and parts.t5
    assert parts.transformer.dtype == parts.clip.dtype == parts.t5.dtype == torch.bfloat16
    assert parts.autoencoder.dtype == torch.float32


def test_sharded_transformer(tiny_folder: Path, spoilt: Path) -> None:
    shutil.rmtree(spoilt / "transformer")
    stock = FluxTransformer2DModel.from_pretrained(tiny_folder / "transformer")
    stock.save_pretrained(spoilt / "transformer", max_shard_size="100KB")  # pyright: ignore
    assert len(list((spoilt / "transformer").glob("*.safetensors"))) > 1
    assert same(load(PolicySettings(path=str(spoilt))).transformer, stock)  # pyright: ignore


def edit(file: Path, drop: tuple[str, ...] = (), **changes: torch.Tensor) -> None:
    weights = {key: value for key, value in load_file(file).items() if key not in drop}
    save_file(weights | changes, file, metadata={"format": "pt"})


def test_every_fault_of_every_part_is_told_at_once(spoilt: Path) -> None:
    edit(
        spoilt / "transformer" / WEIGHTS, ("proj_out.bias",),
        odd=torch.zeros(1), **{"proj_out.weight": torch.zeros(3, 3)},
    )  # fmt: skip
    edit(spoilt / "vae" / WEIGHTS, extra=torch.zeros(1))
    clip = spoilt / "text_encoder" / "model.safetensors"
    norm = next(key for key in load_file(clip) if key.endswith("final_layer_norm.bias"))
    edit(clip, spare=torch.zeros(1), **{norm: torch.zeros(7)})
    edit(spoilt / "text_encoder_2" / "model.safetensors", ("encoder.final_layer_norm.weight",))
    shutil.rmtree(spoilt / "tokenizer")
    with pytest.raises(UserError) as caught:
        load(PolicySettings(path=str(spoilt)))
    told = str(caught.value)
    for fault in (
        "transformer: lacks 1 weights, such as proj_out.bias; has 1 unknown weights, such as odd; "
        "has 1 weights of another shape, such as proj_out.weight ([3, 3] instead of [32, 32])",
        "vae: has 1 unknown weights, such as extra",
        "text_encoder: has 1 unknown weights, such as spare; has 1 weights of another shape, such as ",
        "([7] instead of [20])",
        "text_encoder_2: lacks 1 weights, such as encoder.final_layer_norm.weight",
        "tokenizer: this part of the checkpoint is missing",
    ):
        assert fault in told
    assert "\n" not in told


def test_a_tokenizer_must_be_there(tiny_folder: Path, tmp_path: Path) -> None:
    """Else the library makes one that knows no words."""
    shutil.copytree(tiny_folder / "text_encoder_2", tmp_path / "t5")
    with pytest.raises(UserError, match="t5: holds no tokenizer"):
        load(PolicySettings(path=str(tiny_folder), t5=str(tmp_path / "t5")))


def test_a_sentencepiece_tokenizer_alone(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    shutil.copytree(tiny_folder / "text_encoder_2", tmp_path / "t5")
    (tmp_path / "t5" / "spiece.model").write_bytes(b"")
    with pytest.raises(UserError, match="t5: .*spiece.model alone; `pip install sentencepiece`"):
        load(PolicySettings(path=str(tiny_folder), t5=str(tmp_path / "t5")))


@pytest.mark.parametrize(
    "changes,told",
    [
        ({"autoencoder": "none/at/all"}, "none/at/all: no such folder"),
        ({"clip": "/none"}, "/none: no such folder"),
        ({"path": "/none/flux1-dev.safetensors"}, "flux1-dev.safetensors: no such file"),
    ],
)
def test_places_that_are_not_there(tiny_folder: Path, changes: dict[str, str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        load(PolicySettings(**{"path": str(tiny_folder)} | changes))


def test_a_bfl_file_alone(bfl_folder: Path, tmp_path: Path) -> None:
    shutil.copy(bfl_folder / "flux.safetensors", tmp_path / "flux.safetensors")
    with pytest.raises(UserError, match="ae.safetensors: missing.*text_encoder: .*missing"):
        load(PolicySettings(path=str(tmp_path / "flux.safetensors")))


def test_parts_of_different_models(tiny_folder: Path, tmp_path: Path) -> None:
    T5EncoderModel(T5Config(vocab_size=9, d_model=16, d_kv=8, d_ff=8, num_layers=1, num_heads=2)).save_pretrained(
        tmp_path
    )
    word_tokenizer(WORDS, 12).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="joint_attention_dim and text_encoder_2 d_model differ \\(24 and 16\\)"):
        load(PolicySettings(path=str(tiny_folder), t5=str(tmp_path)))


# Checkpoints that load to the last weight and are wrong all the same


def change(file: Path, key: str, value: Any) -> None:
    table = json.loads(file.read_text())
    table.pop(key)
    file.write_text(json.dumps(table if value is NOTHING else table | {key: value}))


@pytest.mark.parametrize("key", ["scaling_factor", "shift_factor"])
@pytest.mark.parametrize("value", [NOTHING, "0.3", float("nan"), True])
def test_latents_without_a_scale(spoilt: Path, key: str, value: Any) -> None:
    """The library's default is another family's 0.18215."""
    change(spoilt / "vae/config.json", key, value)
    with pytest.raises(UserError, match=f"vae/config.json: {key} is .*FLUX.1's is 0.(3611|1159)"):
        load(PolicySettings(path=str(spoilt)))


def test_what_a_scale_may_be(spoilt: Path) -> None:
    change(spoilt / "vae/config.json", "shift_factor", None)  # none: as autoencoders without one are saved
    load(PolicySettings(path=str(spoilt)))
    change(spoilt / "vae/config.json", "scaling_factor", 0)
    with pytest.raises(UserError, match="scaling_factor is 0"):
        load(PolicySettings(path=str(spoilt)))


def test_axes_that_are_no_heads(spoilt: Path) -> None:
    change(spoilt / "transformer/config.json", "axes_dims_rope", [16, 56, 56])  # or left out: the library's own
    with pytest.raises(UserError, match=r"axes_dims_rope \[16, 56, 56\] do not add up to attention_head_dim 16"):
        load(PolicySettings(path=str(spoilt)))


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
def test_a_tokenizer_of_more_words_than_the_encoder_knows(spoilt: Path, name: str) -> None:
    shutil.rmtree(spoilt / name)
    word_tokenizer([*WORDS, "zebra"], 10).save_pretrained(spoilt / name)
    with pytest.raises(UserError, match=f"the tokenizer of {name.replace('tokenizer', 'text_encoder')} has"):
        load(PolicySettings(path=str(spoilt)))


def test_whole_numbers_without_a_scale(spoilt: Path) -> None:
    file = spoilt / "transformer" / WEIGHTS
    state = load_file(file)
    save_file(state | {"x_embedder.weight": (state["x_embedder.weight"] * 100).to(torch.int8)}, file)
    with pytest.raises(UserError, match="x_embedder.weight holds I8 numbers, whose scale is unknown"):
        load(PolicySettings(path=str(spoilt)))


def test_weights_of_two_savings(spoilt: Path) -> None:
    """Saved anew, in one file, beside the pieces of before."""
    (spoilt / "transformer" / f"{WEIGHTS}.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(UserError, match=f"transformer: holds weights twice, {WEIGHTS} and the pieces"):
        load(PolicySettings(path=str(spoilt)))


def damage(file: Path, value: float) -> str:
    """One entry of the last matrix set to ``value``; its name."""
    state = load_file(file)
    name = [key for key, tensor in state.items() if tensor.ndim == 2][-1]
    state[name][-1, -1] = value
    save_file(state, file, metadata={"format": "pt"})
    return name


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("file", [f"transformer/{WEIGHTS}", f"vae/{WEIGHTS}", "text_encoder_2/model.safetensors"])
def test_a_damaged_part_is_refused_by_name(spoilt: Path, file: str, value: float) -> None:
    name = damage(spoilt / file, value)
    with pytest.raises(UserError, match=f"{(spoilt / file).parent}: {name} holds NaN or infinity"):
        load(PolicySettings(path=str(spoilt)))


def test_a_damaged_bfl_file_is_refused_by_name(tiny_folder: Path, tmp_path: Path) -> None:
    stock = FluxTransformer2DModel.from_pretrained(tiny_folder / "transformer", local_files_only=True)
    file = tmp_path / "flux.safetensors"
    save_file(bfl_transformer(stock.state_dict()), file)
    name = damage(file, torch.nan)
    with pytest.raises(UserError, match=f"flux.safetensors: {name} holds NaN"):
        read_transformer(file, torch.float32, (4, 6, 6))
