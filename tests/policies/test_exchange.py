"""Adapters to and from other programs: exact both ways, and valid where they say they are."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.policies import (
    add_adapter,
    from_folder,
    golden_policy,
    load_adapter,
    merge_start,
    same,
    shake,
    stock_velocity,
    stock_with,
    velocity,
    with_adapter,
)
from support.tiny_bfl import bfl_autoencoder, bfl_transformer
from support.tiny_flux import ACROSS_MACHINES, big_headed_transformer, golden, golden_transformer, tiny_autoencoder

from cgrpo.errors import UserError
from cgrpo.policies.adapters.exchange import convert_adapter, inspect_adapter
from cgrpo.policies.adapters.files import Origin, read_split
from cgrpo.policies.adapters.keys import pairs
from cgrpo.policies.adapters.layers import save_adapter
from cgrpo.policies.base import Making
from cgrpo.policies.fingerprint import transformer_fingerprint
from cgrpo.policies.flux.policy import FluxPolicy
from cgrpo.policies.merge import merge_adapter
from cgrpo.policies.settings import PolicySettings

BASE = Origin("tiny", "a" * 64)


@pytest.fixture
def uno(tmp_path: Path) -> Path:
    file = tmp_path / "uno" / "dit_lora.safetensors"
    file.parent.mkdir()
    save_file(golden("golden_uno/tiny_lora_uno.safetensors"), file)
    return file


@pytest.fixture
def on_merged(uno: Path, tmp_path: Path) -> tuple[Path, FluxPolicy]:
    """An adapter of rank 3 trained on FLUX with UNO (rank 4) merged in, and its policy."""
    policy = golden_policy()
    base_hash = transformer_fingerprint(policy.transformer)
    origin = Origin("tiny", base_hash, merge_start(policy.transformer, uno), "merge")
    add_adapter(policy.transformer, 3, seed=1)
    shake(policy)
    return save_adapter(policy.transformer, tmp_path / "trained", origin=origin), policy


def header(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return opened.metadata()


# ---------------------------------------------------------------- convert


def test_from_uno_and_back(uno: Path, tmp_path: Path) -> None:
    stock = convert_adapter(uno, "diffusers", tmp_path / "stock")
    assert stock == tmp_path / "stock" / "pytorch_lora_weights.safetensors"
    assert "transformer.transformer_blocks.0.attn.to_q.lora_A.weight" in load_file(stock)
    back = convert_adapter(stock, "uno", tmp_path / "back")
    assert back == tmp_path / "back" / "dit_lora.safetensors"
    assert same(load_file(back), load_file(uno))
    assert {value.dtype for value in load_file(back).values()} == {torch.bfloat16}


def test_to_uno_and_back(tmp_path: Path) -> None:
    ours = save_adapter(with_adapter().transformer, tmp_path / "ours", origin=BASE)
    uno = convert_adapter(tmp_path / "ours", "uno", tmp_path / "uno.safetensors")
    assert load_file(uno).keys() == golden("golden_uno/tiny_lora_uno.safetensors").keys()
    back = convert_adapter(uno, "diffusers", tmp_path / "back")
    assert same(load_file(back), load_file(ours))
    kept = {"base": "tiny", "base_hash": "a" * 64, "rank": "4", "alpha": "4", "start_mode": "", "start_hash": ""}
    assert header(back) == kept | {"format": "pt", "converted_from": "uno.safetensors"}


def test_converted_uno_in_a_stock_pipeline(uno: Path, tmp_path: Path) -> None:
    """The reference code's output, through FluxPipeline.load_lora_weights."""
    convert_adapter(uno, "diffusers", tmp_path / "stock")
    stock = stock_with(tmp_path / "stock")
    expected = golden("golden_uno/tiny_forward.safetensors")["out.1ref.d"]
    assert torch.allclose(stock_velocity(golden_policy(), stock), expected, atol=ACROSS_MACHINES)


@pytest.mark.parametrize("to", ["diffusers", "uno"])
def test_joined_with_its_start(on_merged: tuple[Path, FluxPolicy], uno: Path, tmp_path: Path, to) -> None:
    """base + joined = (base with start merged in) + adapter; ranks 4 + 3."""
    file, policy = on_merged
    joined = convert_adapter(file, to, tmp_path / "joined", join=uno)
    told = header(joined)
    assert told["rank"] == "7" and told["start_mode"] == told["start_hash"] == ""
    assert told["joined_start"] == policy_start(file) and told["base_hash"] == header(file)["base_hash"]
    plain = golden_policy()
    load_adapter(plain.transformer, joined, Origin("tiny", transformer_fingerprint(plain.transformer)))
    assert torch.allclose(velocity(plain), velocity(policy), atol=1e-4)
    assert not torch.allclose(velocity(golden_policy()), velocity(policy), atol=0.1)
    if to == "diffusers":
        assert torch.allclose(stock_velocity(policy, stock_with(joined)), velocity(policy), atol=1e-4)


def policy_start(file: Path) -> str:
    return header(file)["start_hash"]


def test_joined_with_a_start_on_other_layers(tmp_path: Path) -> None:
    """Only partly the same layers, and another rank for each: zeros fill up, so that stock loaders scale by 1."""
    generator = torch.Generator().manual_seed(3)
    start = {}
    for module, size in {"attn.to_out.0": 2, "ff.net.2": 5}.items():
        name, into = f"transformer.transformer_blocks.0.{module}", 256 if "ff" in module else 64
        start[f"{name}.lora_A.weight"] = torch.randn(size, into, generator=generator)
        start[f"{name}.lora_B.weight"] = torch.randn(64, size, generator=generator)
    save_file(start, tmp_path / "start.safetensors")
    policy = golden_policy()
    base_hash = transformer_fingerprint(policy.transformer)
    origin = Origin("tiny", base_hash, merge_start(policy.transformer, tmp_path / "start.safetensors"), "merge")
    add_adapter(policy.transformer, 3, seed=1)
    shake(policy)
    file = save_adapter(policy.transformer, tmp_path / "trained", origin=origin)
    joined = convert_adapter(file, "diffusers", tmp_path / "joined", join=tmp_path / "start.safetensors")
    assert {value.shape[0] for key, value in load_file(joined).items() if "lora_A" in key} == {5}
    stock = stock_with(tmp_path / "joined")
    assert torch.allclose(stock_velocity(policy, stock), velocity(policy), atol=1e-4)
    with pytest.raises(UserError, match="ff.net.2 has no place in UNO's layout"):
        convert_adapter(file, "uno", tmp_path / "u", join=tmp_path / "start.safetensors")


def test_a_merged_base_is_not_forgotten(on_merged: tuple[Path, FluxPolicy], uno: Path, tmp_path: Path) -> None:
    file, policy = on_merged
    with pytest.raises(UserError, match=f"start {policy_start(file)[:12]} merged in, so worth nothing"):
        convert_adapter(file, "uno", tmp_path / "out")
    delta = convert_adapter(file, "uno", tmp_path / "delta", only_delta=True)
    assert header(delta)["start_mode"] == "merge" and header(delta)["start_hash"] == policy_start(file)
    plain = golden_policy()
    with pytest.raises(UserError, match="merged in"):
        load_adapter(plain.transformer, delta, Origin("tiny", header(file)["base_hash"]))
    merge_start(plain.transformer, uno)
    load_adapter(plain.transformer, delta)
    assert torch.equal(velocity(plain), velocity(policy))
    other = save_adapter(with_adapter().transformer, tmp_path / "other", origin=BASE)
    with pytest.raises(UserError, match="not the start that .* was trained on"):
        convert_adapter(file, "uno", tmp_path / "out", join=other)
    with pytest.raises(UserError, match="nothing to join .it is whole"):
        convert_adapter(other, "uno", tmp_path / "out", join=uno)
    with pytest.raises(UserError, match="nothing to join .the delta only"):
        convert_adapter(file, "uno", tmp_path / "out", join=uno, only_delta=True)
    assert not (tmp_path / "out").exists()


def test_the_input_is_not_overwritten(uno: Path, tmp_path: Path) -> None:
    ours = save_adapter(with_adapter().transformer, tmp_path / "ours", origin=BASE)
    before = ours.read_bytes()
    for target in (ours, ours.parent):
        with pytest.raises(UserError, match="is the input itself"):
            convert_adapter(ours.parent, "diffusers", target)
    assert ours.read_bytes() == before and len(list(ours.parent.iterdir())) == 1
    convert_adapter(uno, "diffusers", ours)  # another's is
    assert ours.read_bytes() != before


def test_files_that_can_not_be_converted(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    save_file({}, tmp_path / "empty.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"PK\x03\x04 a pickle")
    told = {
        "x.safetensors": "1 keys are of no known LoRA layout", "empty.safetensors": "no LoRA matrices",
        "bad.safetensors": "only safetensors", "none.safetensors": "no such adapter",
    }  # fmt: skip
    for name, message in told.items():
        for use in (inspect_adapter, lambda file: convert_adapter(file, "uno", tmp_path / "out")):
            with pytest.raises(UserError, match=f"{name}: .*{message}") as caught:
                use(tmp_path / name)
            assert "\n" not in str(caught.value)
    stock = load_file(save_adapter(with_adapter().transformer, tmp_path / "ours", origin=BASE))
    stock["transformer.transformer_blocks.0.attn.to_k.lora_A.weight"] += 1
    save_file(stock, tmp_path / "split.safetensors")
    with pytest.raises(UserError, match="split.safetensors: .*a split adapter"):
        convert_adapter(tmp_path / "split.safetensors", "uno", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        convert_adapter(tmp_path / "ours", "uno", tmp_path / "file" / "a.safetensors")


# ---------------------------------------------------------------- merge


@pytest.fixture
def base_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """The reference's transformer in a diffusers folder, bf16; other parts of sizes that fit."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_folder, folder, ignore=shutil.ignore_patterns("transformer", "vae"))
    golden_transformer().bfloat16().save_pretrained(folder / "transformer")
    autoencoder().save_pretrained(folder / "vae")
    return folder


def autoencoder() -> torch.nn.Module:
    torch.manual_seed(0)
    return tiny_autoencoder((32, 32), latent_channels=16)


def test_merged_checkpoint(base_folder: Path, tmp_path: Path) -> None:
    policy = with_adapter()
    origin = Origin("tiny", transformer_fingerprint(golden_transformer()))
    file = save_adapter(policy.transformer, tmp_path / "ours", origin=origin)
    out = merge_adapter(file, PolicySettings(path=str(base_folder)), tmp_path / "merged")
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in base_folder.iterdir())
    pipeline = FluxPipeline.from_pretrained(out, local_files_only=True)
    assert pipeline.transformer.config["num_layers"] == 2
    stored = load_file(out / "transformer" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    scale = velocity(policy).abs().mean()
    assert (stock_velocity(policy, pipeline.transformer) - velocity(policy)).abs().mean() < 0.02 * scale
    assert (velocity(golden_policy()) - velocity(policy)).abs().mean() > 0.2 * scale
    assert (out / "vae" / "config.json").read_bytes() == (base_folder / "vae" / "config.json").read_bytes()
    assert not list(tmp_path.glob(".*partial"))


def files_of(folder: Path) -> dict[str, torch.Tensor]:
    return {key: value for file in folder.glob("*.safetensors") for key, value in load_file(file).items()}


@pytest.mark.parametrize("stored", ["float16", "mixed", "eight bits", "pieces", "a variant beside"])
def test_every_weight_keeps_its_precision(base_folder: Path, uno: Path, tmp_path: Path, stored: str) -> None:
    """Eight bits can't hold the sum: they become bfloat16 where the adapter adds to them."""
    folder, model = base_folder / "transformer", golden_transformer()
    file = folder / "diffusion_pytorch_model.safetensors"
    if stored == "pieces":
        file.unlink()
        model.save_pretrained(folder, max_shard_size="100KB")
    else:
        kinds = {
            "float16": lambda value: torch.float16, "mixed": lambda v: torch.bfloat16 if v.ndim == 2 else torch.float32,
            "eight bits": lambda v: torch.float8_e4m3fn if v.ndim == 2 else torch.bfloat16,
            "a variant beside": lambda value: torch.float32,
        }  # fmt: skip
        state = {key: value.to(kinds[stored](value)) for key, value in model.state_dict().items()}
        save_file(state, file, {"format": "pt"})
    before = files_of(folder)
    if stored == "a variant beside":
        half = {key: value.half() for key, value in before.items()}
        save_file(half, folder / "diffusion_pytorch_model.fp16.safetensors", {"format": "pt"})
    out = merge_adapter(uno, PolicySettings(path=str(base_folder)), tmp_path / "merged")
    after, touched = files_of(out / "transformer"), pairs(read_split(uno)[0])
    assert after.keys() == before.keys()
    for key, value in before.items():
        adds = key.removesuffix(".weight") in touched
        assert after[key].dtype == (torch.bfloat16 if adds and value.itemsize == 1 else value.dtype), key
        assert torch.equal(after[key].float(), value.float()) != adds
    stock = FluxTransformer2DModel.from_pretrained(out / "transformer", torch_dtype=torch.float32)
    assert stock.config["num_layers"] == 2


def test_a_merged_folder_is_whole(base_folder: Path, uno: Path, tmp_path: Path) -> None:
    """What model_index.json names, also what no policy reads; nothing else that lies there."""
    index = json.loads((base_folder / "model_index.json").read_text())
    index |= {"feature_extractor": ["transformers", "CLIPImageProcessor"], "image_encoder": [None, None]}
    (base_folder / "model_index.json").write_text(json.dumps(index))
    for name in ("feature_extractor", "notes"):
        (base_folder / name).mkdir()
        (base_folder / name / "preprocessor_config.json").write_text("{}")
    (base_folder / "flux1-dev.safetensors").write_bytes(b"the same once more")
    out = merge_adapter(uno, PolicySettings(path=str(base_folder)), tmp_path / "merged")
    expected = {path.name for path in base_folder.iterdir()} - {"notes", "flux1-dev.safetensors"}
    assert {path.name for path in out.iterdir()} == expected and (out / "feature_extractor").is_dir()


def test_a_base_in_another_precision_by_the_users_word(base_folder: Path, tmp_path: Path, capsys) -> None:
    """The adapter of the float32 base on its float16 and 8-bit copies: other fingerprints."""
    origin = Origin("tiny", transformer_fingerprint(golden_transformer()))
    file = save_adapter(with_adapter().transformer, tmp_path / "ours", origin=origin)
    golden_transformer().half().save_pretrained(base_folder / "transformer")
    for dtype in (torch.float16, torch.float8_e4m3fn):
        state = {key: value.to(dtype) for key, value in golden_transformer().state_dict().items()}
        weights = base_folder / "transformer" / "diffusion_pytorch_model.safetensors"
        save_file(state, weights, {"format": "pt"})
        base = PolicySettings(path=str(base_folder), height=32, width=32)
        taken = base.model_copy(update={"base_differs": True})
        with pytest.raises(UserError, match=r"but this base is .*policy\.base_differs=true"):
            merge_adapter(file, base, tmp_path / "no")
        assert merge_adapter(file, taken, tmp_path / str(dtype)).is_dir()
        assert "taken all the same, as policy.base_differs says" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"policy\.base_differs=true"):
        FluxPolicy.make(base, Making(adapter=file))
    assert FluxPolicy.make(taken, Making(adapter=file)).trainable_parameters()


def test_merged_checkpoint_with_a_start(
    base_folder: Path, on_merged: tuple[Path, FluxPolicy], uno: Path, tmp_path: Path
) -> None:
    golden_transformer().save_pretrained(base_folder / "transformer")  # fp32: compared closely
    file, policy = on_merged
    with pytest.raises(UserError, match="trained on a base with a start merged in"):
        merge_adapter(file, PolicySettings(path=str(base_folder)), tmp_path / "merged")
    out = merge_adapter(file, PolicySettings(path=str(base_folder), start=str(uno)), tmp_path / "merged")
    stock = FluxTransformer2DModel.from_pretrained(out / "transformer")
    assert torch.allclose(stock_velocity(policy, stock), velocity(policy), atol=1e-4)  # pyright: ignore


def test_merged_checkpoint_from_bfl_files(tiny_folder: Path, tmp_path: Path) -> None:
    """Written whole: every part, and FLUX.1-dev's schedule, which the files don't hold."""
    folder = tmp_path / "bfl"
    shutil.copytree(tiny_folder, folder, ignore=shutil.ignore_patterns("transformer", "vae", "scheduler"))
    torch.manual_seed(0)
    transformer = big_headed_transformer(in_channels=64)
    save_file(bfl_transformer(transformer.state_dict()), folder / "flux.safetensors")
    save_file(bfl_autoencoder(autoencoder().state_dict(), 2), folder / "ae.safetensors")
    base = PolicySettings(path=str(folder / "flux.safetensors"))
    policy = from_folder(FluxPolicy, base.path, height=16, width=16, reference_size=16)
    add_adapter(policy.transformer, 2, 0)
    shake(policy)
    file = save_adapter(policy.transformer, tmp_path / "ours", origin=policy.origin)
    out = merge_adapter(file, base, tmp_path / "merged")
    pipeline = FluxPipeline.from_pretrained(out, local_files_only=True)
    assert pipeline.scheduler.config["use_dynamic_shifting"] and pipeline.scheduler.config["shift"] == 3.0
    again = from_folder(FluxPolicy, out, height=16, width=16, reference_size=16)
    x_NLC = torch.randn(1, *policy.latent_shape, generator=torch.Generator().manual_seed(0))
    cond = policy.condition(torch.ones(1, 12, 24), torch.ones(1, 20))
    with torch.no_grad():
        one, other = (p.velocity(x_NLC, torch.tensor([0.5]), cond) for p in (policy, again))
    assert torch.allclose(one, other, atol=1e-4)
    assert again.prompts is not None and policy.prompts is not None
    for ours, theirs in zip(again.prompts.encode(["a red cube"]), policy.prompts.encode(["a red cube"]), strict=True):
        assert torch.equal(ours, theirs)


def test_merges_that_are_refused(base_folder: Path, uno: Path, tmp_path: Path) -> None:
    base = PolicySettings(path=str(base_folder))
    with pytest.raises(UserError, match="base: is there already"):
        merge_adapter(uno, base, base_folder)
    with pytest.raises(UserError, match="trained on a base with no start merged in"):
        merge_adapter(uno, PolicySettings(path=base.path, start=str(uno)), tmp_path / "out")
    foreign = save_adapter(with_adapter().transformer, tmp_path / "foreign", origin=BASE)
    with pytest.raises(UserError, match="trained on tiny .aaaaaaaaaaaa. .*, but this base is "):
        merge_adapter(foreign, base, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        merge_adapter(uno, base, tmp_path / "file" / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*partial"))


# ---------------------------------------------------------------- inspect


def test_inspect_uno(uno: Path) -> None:
    about = inspect_adapter(uno)
    state = golden("golden_uno/tiny_lora_uno.safetensors")
    assert (about["format"], about["rank"], about["scale"], about["tensors"]) == ("uno", 4, 1, 24)
    assert about["parameters"] == sum(value.numel() for value in state.values()) and about["dtype"] == "bfloat16"
    assert not about["untrained"] and about["base_hash"] == ""
    down, up = (f"single_blocks.{{}}.processor.proj_lora.{name}.weight" for name in ("down", "up"))
    deltas = [state[up.format(i)].float() @ state[down.format(i)].float() for i in range(2)]
    norm = torch.stack(deltas).norm().item()
    assert about["delta_norms"]["single_transformer_blocks.proj_out"] == pytest.approx(norm, rel=1e-5)
    assert len(about["delta_norms"]) == 8 + 4


def test_inspect_ours(tmp_path: Path) -> None:
    origin = replace(BASE, start_hash="b" * 64, start_mode="continue")
    file = save_adapter(with_adapter(lively=False).transformer, tmp_path / "new", origin=origin)
    about = inspect_adapter(file)
    assert about["untrained"] and set(about["delta_norms"].values()) == {0.0}
    assert (about["format"], about["base"], about["base_hash"]) == ("diffusers", "tiny", "a" * 64)
    assert (about["start_hash"], about["start_mode"], about["dtype"]) == ("b" * 64, "continue", "float32")
    trained = save_adapter(with_adapter().transformer, tmp_path / "trained", origin=origin)
    assert not inspect_adapter(trained)["untrained"] and inspect_adapter(trained)["fingerprint"] != about["fingerprint"]
    uno = convert_adapter(trained, "uno", tmp_path / "uno")
    assert inspect_adapter(uno)["fingerprint"] == inspect_adapter(trained)["fingerprint"]
