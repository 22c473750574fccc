"""Checkpoints as they are published: folders, BFL files, flat text encoders; and every fault told at once."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from support.policies import from_folder
from support.tiny_bfl import bfl_autoencoder, bfl_transformer
from support.tiny_flux import WORDS, big_headed_transformer, tiny_autoencoder, word_tokenizer
from transformers import CLIPConfig, CLIPModel, T5Config, T5EncoderModel, T5ForConditionalGeneration

from cgrpo.errors import UserError
from cgrpo.policies.flux.policy import FluxPolicy
from cgrpo.policies.flux.single_file import read_transformer
from cgrpo.policies.settings import PolicySettings
from cgrpo.types import Batch

CPU = torch.device("cpu")
WEIGHTS = "diffusion_pytorch_model.safetensors"
TRANSFORMER, T5 = f"transformer/{WEIGHTS}", "text_encoder_2/model.safetensors"
Spoil = Callable[[Path], object]
NOTHING = object()


def load(settings: PolicySettings, dtype: torch.dtype = torch.float32, texts: bool = True) -> SimpleNamespace:
    named = settings.model_copy(update={"dtype": str(dtype).removeprefix("torch.")})
    return SimpleNamespace(**FluxPolicy.load_parts(named, CPU, CPU, texts=texts))


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
    transformer = big_headed_transformer()
    save_file(bfl_transformer(transformer.state_dict()), folder / "flux.safetensors")
    vae = tiny_autoencoder((32, 32, 64))
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


def edited(file: str, drop: str = "", change: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Spoil:
    """Spoils the first weight whose name has ``drop`` in it: changed, or left out."""

    def spoil(folder: Path) -> None:
        state = load_file(folder / file)
        key = next(key for key in state if drop in key)
        edit(folder / file, (key,), **({key: change(state[key])} if change else {}))

    return spoil


def damaged(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """A tensor with one entry set to ``value``."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor.view(-1)[-1] = value
        return tensor

    return change


def said(file: str, **changes: Any) -> Spoil:
    """Changes entries of a table of JSON; NOTHING leaves one out."""

    def spoil(folder: Path) -> None:
        table = json.loads((folder / file).read_text()) | changes
        (folder / file).write_text(json.dumps({k: value for k, value in table.items() if value is not NOTHING}))

    return spoil


def replaced(file: str, content: bytes) -> Spoil:
    return lambda folder: (folder / file).write_bytes(content)


def removed(part: str) -> Spoil:
    return lambda folder: shutil.rmtree(folder / part)


def pickled(folder: Path) -> None:
    file = folder / TRANSFORMER
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()


def without_vocabulary(folder: Path) -> None:
    (folder / "tokenizer_2" / "tokenizer.json").unlink()


def with_zebra(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        shutil.rmtree(folder / name)
        word_tokenizer([*WORDS, "zebra"], 10).save_pretrained(folder / name)

    return spoil


CONFIG, TOKENIZER = "transformer/config.json", "tokenizer_2/tokenizer_config.json"
LENGTHS = ["512", -1, 0, True, [77], float("nan")]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        *((removed(part), f"{part}: .*missing") for part in ("transformer", "vae", "text_encoder_2", "tokenizer")),
        (lambda folder: (folder / TRANSFORMER).write_bytes((folder / TRANSFORMER).read_bytes()[:999]), "can't be load"),
        (pickled, "transformer: can't be loaded"),
        (edited(TRANSFORMER, "proj_out.weight"), "lacks 1 weights, such as .*proj_out.weight"),
        (edited("text_encoder/model.safetensors", "final_layer_norm.weight"), "text_encoder: lacks 1 weights"),
        (said(CONFIG, _class_name="UNet2DModel"), "holds a UNet2DModel, not a FluxTransformer2DModel"),
        (said("text_encoder/config.json", eos_token_id=2), "pools at eos_token_id 2"),
        (said(CONFIG, in_channels=16), "transformer"),
        *(
            (replaced(f"{part}/config.json", content), rf"{part}/config\.json: can't be read")
            for part in ("vae", "transformer", "text_encoder")
            for content in (b"{", b"[]", b"5", b"\xff\xfe")
        ),
        # they load to the last weight and are wrong all the same
        *(  # the library's default is another family's 0.18215
            (said("vae/config.json", **{key: value}), f"vae/config.json: {key} is .*FLUX.1's is 0.(3611|1159)")
            for key in ("scaling_factor", "shift_factor")
            for value in (NOTHING, "0.3", float("nan"), True)
        ),
        (said("vae/config.json", scaling_factor=0), "scaling_factor is 0"),
        (said(CONFIG, axes_dims_rope=[16, 56, 56]), r"axes_dims_rope \[16, 56, 56\] do not add up to .* 16"),
        (with_zebra("tokenizer"), "the tokenizer of text_encoder has"),
        (with_zebra("tokenizer_2"), "the tokenizer of text_encoder_2 has"),
        (edited(TRANSFORMER, "x_embedder.weight", lambda w: (w * 99).to(torch.int8)), "x_embedder.weight holds I8"),
        (  # saved anew, in one file, beside the pieces of before
            replaced(f"{TRANSFORMER}.index.json", b'{"weight_map": {}}'),
            f"transformer: holds weights twice, {WEIGHTS} and the pieces",
        ),
        *(
            (edited(file, name, damaged(value)), f"{file.partition('/')[0]}: {name}.* holds NaN or infinity")
            for value in (torch.nan, torch.inf, -torch.inf)
            for file, name in ((TRANSFORMER, "proj_out"), (f"vae/{WEIGHTS}", "decoder"), (T5, "shared"))
        ),
        # tokenizers
        (without_vocabulary, "tokenizer_2: holds no tokenizer"),  # else the library makes one that knows no words
        (replaced("tokenizer_2/tokenizer.json", b"{"), "tokenizer_2: can't be loaded"),
        (replaced(TOKENIZER, b"[]"), r"tokenizer_config\.json: can't be read"),
        (said(TOKENIZER, pad_token=NOTHING), "tokenizer_2: its tokenizer has no pad_token"),
        *((said(TOKENIZER, model_max_length=length), "model_max_length = ") for length in LENGTHS),
        # other kinds of FLUX.1
        (said(CONFIG, in_channels=48, out_channels=32), "takes 48 channels and gives 32: a Fill, Canny or Depth model"),
    ],
)
def test_a_spoilt_folder_is_one_line(spoilt: Path, spoil: Spoil, says: str) -> None:
    spoil(spoilt)
    with pytest.raises(UserError, match=says) as caught:
        load(PolicySettings(path=str(spoilt)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spoil", [said("vae/config.json", shift_factor=None), said(TOKENIZER, model_max_length=None)])
def test_what_may_be_left_open(spoilt: Path, spoil: Spoil) -> None:
    spoil(spoilt)
    load(PolicySettings(path=str(spoilt)))


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


def test_a_sentencepiece_tokenizer_alone(spoilt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    without_vocabulary(spoilt)
    (spoilt / "tokenizer_2" / "spiece.model").write_bytes(b"")
    with pytest.raises(UserError, match="tokenizer_2: .*spiece.model alone; `pip install sentencepiece`"):
        load(PolicySettings(path=str(spoilt)))


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


def test_a_damaged_bfl_file_is_refused_by_name(bfl_folder: Path, tmp_path: Path) -> None:
    shutil.copy(bfl_folder / "flux.safetensors", tmp_path)
    edited("flux.safetensors", "txt_in.weight", damaged(torch.nan))(tmp_path)
    with pytest.raises(UserError, match="flux.safetensors: txt_in.weight holds NaN"):
        read_transformer(tmp_path / "flux.safetensors", torch.float32)


@pytest.mark.parametrize(
    ("before", "also", "says"),
    [
        ("model.diffusion_model.", ("text_encoders.clip_l.x", "vae.x"), "all-in-one checkpoint, with text encoders"),
        ("model.diffusion_model.", ("conditioner.embedders.x",), "all-in-one checkpoint of another family"),
        ("lora_unet_", (), "a LoRA, which policy.start takes"),
        ("transformer_blocks.", (), "a transformer under diffusers' names"),
        ("", ("double_stream_modulation_img.lin.weight",), "unknown weights, such as double_stream_modulation_img"),
    ],
)
def test_a_file_of_another_kind_is_said(bfl_folder: Path, tmp_path: Path, before: str, also, says: str) -> None:
    state = {before + key: value for key, value in load_file(bfl_folder / "flux.safetensors").items()}
    file = tmp_path / "flux.safetensors"
    save_file(state | {key: torch.zeros(1) for key in also}, file)
    with pytest.raises(UserError, match=f"flux.safetensors: .*{says}"):
        read_transformer(file, torch.float32)


def test_a_bfl_file_that_takes_a_mask(bfl_folder: Path, tmp_path: Path) -> None:
    file = shutil.copy(bfl_folder / "flux.safetensors", tmp_path)
    edited("flux.safetensors", "img_in.weight", lambda w: torch.cat((w, w, w), dim=1))(tmp_path)
    with pytest.raises(UserError, match="takes 96 channels and gives 32: a Fill, Canny or Depth model"):
        read_transformer(Path(file), torch.float32)


@pytest.mark.parametrize(
    ("pipeline", "scheme", "says"),
    [
        ("FluxPipeline", "kontext", "is no Kontext model.*policy.position_ids = kontext; set it to d"),
        ("FluxKontextPipeline", "d", "is FLUX.1 Kontext, but policy.position_ids = d; set it to kontext"),
        ("FluxPipeline", "d", ""),
        ("FluxKontextPipeline", "kontext", ""),
        ("FluxPipeline", "o", ""),
    ],
)
def test_a_base_under_the_other_ones_scheme_is_said(spoilt: Path, capsys, pipeline: str, scheme, says: str) -> None:
    said("model_index.json", _class_name=pipeline)(spoilt)
    load(PolicySettings(path=str(spoilt), position_ids=scheme), texts=False)
    told = capsys.readouterr().err
    assert re.search(says, told) if says else "position_ids" not in told
