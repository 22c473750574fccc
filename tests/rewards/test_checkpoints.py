"""A checkpoint that is broken or does not fit is one line that names it; old pickled folders become whole ones."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import every_reward
from support.golden_models import pictures
from support.tasks import tasks

from cgrpo.errors import UserError
from cgrpo.hub import asset
from cgrpo.rewards import RewardSettings, load_reward, make_reward, scored
from cgrpo.rewards.base import to_tensor
from cgrpo.rewards.convert import convert_folder
from cgrpo.rewards.dino import DinoEncoder, DinoSeg

LOADERS = ["clip", "csd", "image-reward", "hpsv3"]  # a transformers folder, and three of our own
READERS = ["clip", "siglip2 prompt", "image-reward", "hpsv3"]  # with a tokenizer


@pytest.fixture(scope="module")
def every(tmp_path_factory, golden_dino_v1) -> dict[str, RewardSettings]:
    """Settings of every type, clip's naming its folder."""
    settings = every_reward.build(tmp_path_factory.mktemp("every"), golden_dino_v1)
    settings["clip"] = settings["clip"].model_copy(update={"path": str(asset("clip"))})
    return settings


def scores(settings: RewardSettings) -> torch.Tensor:
    (reference,) = pictures("ref_0")
    images = to_tensor([picture.resize((32, 32)) for picture in pictures("gen_0", "gen_1")])
    return scored("x", make_reward("x", settings), images, tasks([(reference,)] * 2, ["a red toy", "a toy"]))


# Every type of reward: a checkpoint with a fault is refused in one line that names it, or scores the same.


def copied(settings: RewardSettings, folder: Path) -> RewardSettings:
    """The same reward, its checkpoints copied below ``folder``."""
    places = {}
    for key in settings.checkpoints():
        place = Path(getattr(settings, key))
        if place.exists() and str(place) != ".":
            copy = shutil.copytree if place.is_dir() else shutil.copyfile
            places[key] = str(copy(place, folder / f"{key}-{place.name}"))
    return settings.model_copy(update=places)


def refused(settings: RewardSettings, capfd) -> str:
    """The one line, without transformers' report of many lines before it."""
    with pytest.raises(UserError) as caught:
        make_reward("x", settings)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 900
    assert not {"REPORT", "MISSING", "MISMATCH"} & set(capfd.readouterr().err.split())
    return str(caught.value)


def _nan(file: Path) -> str:
    state = {key: value.clone() for key, value in load_file(file).items()}
    name = sorted(key for key, value in state.items() if value.is_floating_point() and "lm_head" not in key)[-1]
    state[name].view(-1)[-1] = torch.nan
    save_file(state, file, metadata={"format": "pt"})
    return name.rpartition(".")[0].rpartition(".")[2]  # its module, whatever the names before it became


def _shape(file: Path) -> str:
    state = load_file(file)
    name = sorted(key for key in state if "lm_head" not in key)[-1]
    save_file(state | {name: torch.zeros(*state[name].shape, 2)}, file, metadata={"format": "pt"})
    return "of another shape"


def _writes(content: bytes):
    return lambda file: file.write_bytes(content) and ""


def _cut(file: Path) -> str:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return ""


FAULTS = {
    "NaN": _nan,
    "shape": _shape,
    "cut": _cut,
    "empty": lambda file: file.write_bytes(b"") or "",
    "a page": _writes(b"<html>not found</html>"),
    "a pointer": _writes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5\n"),
    "gone": lambda file: file.unlink() or "",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", LOADERS)
def test_weights_with_a_fault(name, fault, every, tmp_path, capfd):
    settings = copied(every[name], tmp_path)
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert files
    for file in files:
        content = file.read_bytes()
        named = FAULTS[fault](file)
        line = refused(settings, capfd)
        assert named in line and str(tmp_path) in line
        file.write_bytes(content)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "float8_e4m3fn"])
@pytest.mark.parametrize("name", LOADERS)
def test_weights_of_another_precision(name, dtype, every, tmp_path):
    """They are read in float32 (HPSv3's body apart), whatever they are stored in."""
    settings = copied(every[name], tmp_path)
    for file in tmp_path.rglob("*.safetensors"):
        state = {key: w.to(getattr(torch, dtype)) if w.is_floating_point() else w for key, w in load_file(file).items()}
        save_file(state, file, metadata={"format": "pt"})
    assert scores(settings).isfinite().all()


def _table(**changes):
    """Changes of a JSON table; None takes a key away."""

    def change(file: Path) -> None:
        table = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({key: value for key, value in table.items() if value is not None}))

    return change


SETTINGS = ["config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"]
WRONG = {"cut": "{", "a list": "[]", "empty": ""}
ODD = {
    "no padding token": _table(pad_token=None),
    "a length in words": _table(model_max_length="512"),
    "a negative length": _table(model_max_length=-1),
    "a cut template": _table(chat_template="{% for"),
    "named templates": _table(chat_template=[{"name": "rag", "template": "x"}]),
}
CASES = [(file, fault, _writes(text.encode())) for file in SETTINGS for fault, text in WRONG.items()]
CASES += [(file, "gone", Path.unlink) for file in SETTINGS]
CASES += [("tokenizer_config.json", fault, change) for fault, change in ODD.items()]


@pytest.mark.parametrize("name", READERS)
def test_settings_with_a_fault(name, every, tmp_path):
    """Refused in one line, or the same scores as before."""
    settings = copied(every[name], tmp_path)
    expected = scores(settings)
    for wanted, fault, change in CASES:
        for file in sorted(tmp_path.rglob(wanted)):
            content = file.read_bytes()
            change(file)
            try:
                assert torch.equal(scores(settings), expected), (file, fault)
            except UserError as error:
                assert "\n" not in str(error), (file, fault)
            file.write_bytes(content)


@pytest.fixture
def folder(tiny_dinov2, tmp_path):
    return shutil.copytree(tiny_dinov2, tmp_path / "dino")


def misfit(folder) -> str:
    with pytest.raises(UserError) as caught:
        DinoSeg(DinoEncoder(folder), None, masks="none")
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


def test_all_weights_that_do_not_fit_are_named(folder):
    state = {key: value.clone() for key, value in load_file(folder / "model.safetensors").items()}
    for n, key in enumerate(sorted(state)[:5]):
        state[f"surplus.{n}"] = state.pop(key)
    state["layernorm.weight"] = torch.ones(7)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    message = misfit(folder)
    assert "does not fit Dinov2Model" in message
    assert "lacks 5 weights" in message and "5 unknown weights, such as surplus.0, surplus.1, surplus.2;" in message
    assert "1 weights of another shape, such as layernorm.weight ([7] instead of [32])" in message


def test_broken_files_are_named(folder):
    (folder / "model.safetensors").write_bytes(b"no weights")
    misfit(folder)
    (folder / "model.safetensors").unlink()
    misfit(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": "wide"}))
    misfit(folder)
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "vit"}))
    assert "says model_type 'vit'; known are dinov2, dinov2_with_registers, dinov3_vit" in misfit(folder)
    (folder / "config.json").write_text("{")
    assert "config.json: can't be read" in misfit(folder)


def test_pickled_weights_are_not_read(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    misfit(folder)


def test_old_folders_score_the_same(golden_clip, golden_dino_v1, tmp_path):
    """With the position ids that older CLIP files carry."""
    clip = load_file(golden_clip / "model.safetensors")
    clip |= {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    torch.save(clip, tmp_path / "clip.bin")
    torch.save(load_file(golden_dino_v1 / "model.safetensors"), tmp_path / "dino.bin")
    some = pictures("gen_0", "gen_1")
    folder = convert_folder(tmp_path / "clip.bin", tmp_path / "clip", golden_clip)
    assert torch.equal(
        load_reward("clip-i", folder).encoder.pictures(some), load_reward("clip-i", golden_clip).encoder.pictures(some)
    )
    folder = convert_folder(tmp_path / "dino.bin", tmp_path / "dino", golden_dino_v1)
    assert torch.equal(
        load_reward("dino", folder).encoder.pictures(some), load_reward("dino", golden_dino_v1).encoder.pictures(some)
    )
    with pytest.raises(UserError, match="there already"):
        convert_folder(tmp_path / "dino.bin", folder, golden_dino_v1)


def test_weights_of_another_model_are_refused_by_the_reward(golden_clip, golden_dino_v1, tmp_path):
    torch.save(load_file(golden_dino_v1 / "model.safetensors"), tmp_path / "dino.bin")
    folder = convert_folder(tmp_path / "dino.bin", tmp_path / "out", golden_clip)
    with pytest.raises(UserError, match="does not fit CLIPModel"):
        load_reward("clip-i", folder)
    torch.save({"weights": torch.zeros(1), "step": 7}, tmp_path / "more.bin")
    with pytest.raises(UserError, match="holds more than weights"):
        convert_folder(tmp_path / "more.bin", tmp_path / "other", golden_clip)
    assert not (tmp_path / "other").exists()
