"""FLUX.2-klein: guidance by a negative prompt, what it refuses, and how its checkpoint is read."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from PIL import Image
from safetensors.torch import load_file, save_file
from support.policies import from_folder, shake
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.policies.build import family_of
from cgrpo.policies.flux.policy import FluxPolicy
from cgrpo.policies.flux2.policy import Flux2Policy
from cgrpo.policies.memory import set_checkpointing
from cgrpo.policies.settings import Checkpointing, PolicySettings
from cgrpo.types import Batch

SIZES = {"height": 32, "width": 48, "reference_size": 32, "reference_rule": "flux2", "guidance": 4.0}
TASKS = Batch(
    ("0", "1"), ("a red cube", "a ball on the beach"), ((Image.new("RGB", (32, 32), "red"),),) * 2, ("cube",) * 2
)


@pytest.fixture(scope="module")
def read(tiny_flux2_folder: Path) -> Flux2Policy:
    return from_folder(Flux2Policy, tiny_flux2_folder, **SIZES)


def make(read: Flux2Policy, dtype: torch.dtype = torch.float32, adapter: bool = True, **settings) -> Flux2Policy:
    """With an adapter that does something; float64 encoders stay as they were read."""
    transformer = copy.deepcopy(read.transformer).to(dtype)
    policy = Flux2Policy(transformer, read.codec, read.prompts, PolicySettings(**SIZES | settings))
    if adapter:
        policy.add_adapter(rank=2, seed=0)
        shake(policy, 1)
    return policy


def points(policy: Flux2Policy) -> tuple[Tensor, Tensor]:
    return torch.cat([policy.noise(seed) for seed in (0, 1)]).to(policy.dtype), torch.tensor([0.9, 0.4])


def gradients(policy: Flux2Policy, v_NLC: Tensor) -> list[Tensor]:
    weight = torch.randn(v_NLC.shape, generator=torch.Generator().manual_seed(4)).to(v_NLC)
    return list(torch.autograd.grad((v_NLC * weight).sum(), list(policy.trainable_parameters().values())))


def near(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("gradient", ["both", "conditional"])
def test_guidance_and_its_gradient(read: Flux2Policy, gradient) -> None:
    """v = negative + scale * (cond - negative); by name, the negative half is a constant."""
    policy = make(read, torch.float64, guidance=4.0, guidance_gradient=gradient)
    (x_NLC, sigma_N), cond = points(policy), policy.encode(TASKS)
    toward, away = policy.velocity(x_NLC, sigma_N, cond.conditional()), policy.velocity(x_NLC, sigma_N, cond.negative())
    expected = away + 4 * (toward - away) if gradient == "both" else away.detach() + 4 * (toward - away.detach())
    found = policy.velocity(x_NLC, sigma_N, cond)
    near(found, expected)
    for ours, theirs in zip(gradients(policy, found), gradients(policy, expected), strict=True):
        near(ours, theirs)
    assert (toward - away).abs().max() > 1e-3


def test_each_sample_has_its_scale(read: Flux2Policy) -> None:
    policy = make(read, torch.float64)
    (x_NLC, sigma_N), cond = points(policy), policy.encode(TASKS)
    mixed = policy.condition(cond.text_NLC, (), torch.tensor([1.0, 3.0]), cond.negative_LC)
    found = policy.velocity(x_NLC, sigma_N, mixed)
    for row, scale in enumerate((1.0, 3.0)):
        alone = policy.condition(cond.text_NLC[row : row + 1], (), scale, cond.negative_LC)
        near(policy.velocity(x_NLC[row : row + 1], sigma_N[row : row + 1], alone), found[row : row + 1])


@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        ({"guidance": 1.0}, [2]),
        ({"guidance": 4.0}, [4]),
        ({"guidance": 4.0, "guidance_gradient": "conditional"}, [2, 2]),
    ],
)
def test_what_goes_through_the_model(read: Flux2Policy, settings, calls: list[int]) -> None:
    """Without guidance nothing is made for it; with, the same batches whether gradients are asked for or not."""
    policy, seen = make(read, **settings), []
    policy.transformer.register_forward_pre_hook(lambda m, a, k: seen.append(len(k["hidden_states"])), with_kwargs=True)
    cond = policy.encode_parts(TASKS, [[0, 1]])[0]
    assert (cond.negative_LC is None) == (settings["guidance"] == 1)
    x_NLC, sigma_N = points(policy)
    with_gradient = policy.velocity(x_NLC, sigma_N, cond)
    with torch.no_grad():
        assert torch.equal(policy.velocity(x_NLC, sigma_N, cond), with_gradient)
    assert seen == calls * 2


def test_training_and_evaluation_have_scales_of_their_own(read: Flux2Policy) -> None:
    policy = make(read, guidance=1.0, evaluation_guidance=4.0)
    training, evaluation = policy.encode_parts(TASKS, [[0, 1]])[0], policy.encode(TASKS)
    assert training.scale_N is None and evaluation.scale_N.tolist() == [4.0, 4.0]  # pyright: ignore
    assert policy.pictures_depend_on()["guidance"] == 4.0 == make(read, guidance=4.0).pictures_depend_on()["guidance"]


@pytest.mark.parametrize("mode", ["selective", "full"])
@pytest.mark.parametrize("gradient", ["both", "conditional"])
def test_checkpointing_gives_the_same_gradients_for_less(read: Flux2Policy, mode: Checkpointing, gradient) -> None:
    from torch.autograd.graph import saved_tensors_hooks

    policy = make(read, guidance=4.0, guidance_gradient=gradient)
    cond, found, kept = policy.encode(TASKS), [], []
    for chosen in ("off", mode):
        set_checkpointing(policy.transformer, chosen)
        sizes: dict[int, int] = {}
        with saved_tensors_hooks(lambda t, s=sizes: s.update({t.data_ptr(): t.numel()}) or t, lambda t: t):
            v_NLC = policy.velocity(*points(policy), cond)
        kept.append(sum(sizes.values()))
        found.append(gradients(policy, v_NLC))
    assert all((one - two).abs().max() <= 1e-5 * one.abs().max() for one, two in zip(*found, strict=True))
    assert kept[1] < kept[0]


def test_bfloat16_computes_under_autocast_with_a_float32_adapter(read: Flux2Policy) -> None:
    exact, policy = make(read), make(read, torch.bfloat16)
    assert {p.dtype for p in policy.trainable_parameters().values()} == {torch.float32}
    (x_NLC, sigma_N), cond = points(exact), exact.encode(TASKS)
    found, expected = policy.velocity(x_NLC, sigma_N, cond), exact.velocity(x_NLC, sigma_N, cond)
    assert found.dtype == torch.float32 and (found - expected).abs().max() < 0.1 * expected.abs().max()
    assert all(g.dtype == torch.float32 and g.any() for g in gradients(policy, found))
    # 986 and 984 are one number in bfloat16; they are two times all the same.
    late, early = (policy.velocity(x_NLC, torch.tensor([t, t]), cond) for t in (0.986, 0.984))
    assert (late - early).abs().max() > 0


def told(*arguments, match: str, **settings) -> None:
    with pytest.raises(UserError, match=match) as caught:
        from_folder(Flux2Policy, *arguments, **SIZES | settings)
    assert "\n" not in str(caught.value)


def test_what_it_refuses(tiny_flux2_folder: Path, read: Flux2Policy, tmp_path: Path) -> None:
    told(tiny_flux2_folder, guidance=0.5, match=r"policy\.guidance = 0\.5: must be 1")
    told(tiny_flux2_folder, height=40, match="multiples of 16")
    with pytest.raises(UserError, match=r"policy\.clip = clip: .* leave it out"):
        family_of(PolicySettings(path=str(tiny_flux2_folder), clip="clip"))
    with pytest.raises(UserError, match=r"'flux': this policy knows numbers and flux2"):
        read.sigmas(4, "flux")
    picture = Image.new("RGB", (32, 32))
    many = Batch(("a",), ("a",), ((picture,) * 11,), ("",))
    with pytest.raises(UserError, match="11 references: this policy takes at most 10"):
        read.encode(many)
    uneven = Batch(("a", "b"), ("a", "a"), ((picture,), (picture, picture)), ("", ""))
    with pytest.raises(UserError, match=r"tasks with \[1, 2\] references in one batch"):
        read.encode(uneven)
    with pytest.raises(UserError, match="within 1024 pixels"):
        read.prepare_task([Image.new("RGB", (2000, 20))])


def test_a_distilled_checkpoint_says_so_and_takes_no_guidance(tiny_flux2_folder: Path, tmp_path: Path, capsys) -> None:
    folder = shutil.copytree(tiny_flux2_folder, tmp_path / "klein")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"is_distilled": True}))
    policy = from_folder(Flux2Policy, folder, **SIZES | {"guidance": 1.0})
    assert "is step-distilled: guidance has no effect" in capsys.readouterr().err
    assert policy.encode(TASKS).negative_LC is None
    told(folder, guidance=4.0, match=r"policy\.guidance = 4: this checkpoint is distilled .* set policy\.guidance=1")
    told(folder, guidance=1.0, evaluation_guidance=2.0, match=r"policy\.evaluation_guidance = 2")


def test_all_faults_of_a_folder_in_one_line(tiny_flux2_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_flux2_folder, tmp_path / "klein")
    shutil.rmtree(folder / "tokenizer")
    for part in ("transformer", "vae"):
        file = folder / part / "diffusion_pytorch_model.safetensors"
        state = load_file(file)
        state.pop(min(state))
        save_file(state | {"surplus": torch.zeros(1)}, file, {"format": "pt"})
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_hidden_layers": 12}))
    with pytest.raises(UserError) as caught:
        Flux2Policy.load_parts(PolicySettings(path=str(folder)), torch.device("cpu"), torch.device("cpu"))
    line = str(caught.value)
    assert "\n" not in line and line.count("lacks 1 weights") == line.count("unknown weights, such as surplus") == 2
    assert "12 layers and 27 are read" in line and "tokenizer: this part of the checkpoint is missing" in line
    assert family_of(PolicySettings(path=str(folder))) is Flux2Policy
    assert family_of(PolicySettings(path=str(folder / "vae"))) is FluxPolicy


def test_parts_of_different_checkpoints(tiny_flux2_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_flux2_folder, tmp_path / "klein")
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": ["MistralForCausalLM"]}))
    told(folder, match="holds a MistralForCausalLM, not a Qwen3Model")


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (None, "it has no chat template"),
        ("{% for message in messages %}user {{ message.con", "unexpected end of template"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("user: {{ messages[0].role }}", "leaves the prompt out"),
    ],
)
def test_chat_templates_that_are_broken(tiny_flux2_folder: Path, tmp_path: Path, template: str | None, says) -> None:
    folder = shutil.copytree(tiny_flux2_folder, tmp_path / "klein")
    (folder / "tokenizer" / "chat_template.jinja").unlink()
    if template:
        (folder / "tokenizer" / "chat_template.jinja").write_text(template)
    told(folder, match=f"tokenizer: .*{says}")


def test_chat_templates_by_name(tiny_flux2_folder: Path, tmp_path: Path) -> None:
    """None of them is the default."""
    folder = shutil.copytree(tiny_flux2_folder, tmp_path / "klein")
    (folder / "tokenizer" / "chat_template.jinja").unlink()
    config = folder / "tokenizer" / "tokenizer_config.json"
    named = [{"name": "tool_use", "template": "{{ messages[0].content }}"}]
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": named}))
    told(folder, match="tokenizer: can't be loaded .*multiple chat templates with no default")


def test_a_single_file(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "flux.2-klein.safetensors")
    told(tmp_path / "flux.2-klein.safetensors", match=r"FLUX\.2's single files are not read")


def test_a_transformer_without_guidance_refuses_a_scale_of_its_own(tiny_folder: Path) -> None:
    config = FluxTransformer2DModel.load_config(tiny_folder / "transformer")
    transformer = FluxTransformer2DModel.from_config({**config, "guidance_embeds": False})
    with pytest.raises(UserError, match=r"policy\.evaluation_guidance = 4: this transformer takes none"):
        FluxPolicy(transformer, None, None, PolicySettings(**SIZES, evaluation_guidance=4.0))


def test_adapters_of_the_other_family(tiny_flux2_folder: Path, tiny_folder: Path, read: Flux2Policy, tmp_path) -> None:
    flux = from_folder(FluxPolicy, tiny_folder, **SIZES)
    flux.add_adapter(rank=2, seed=0)
    theirs, ours = flux.save(tmp_path / "flux"), make(read).save(tmp_path / "flux2")
    for mode in ("merge", "continue"):
        with pytest.raises(UserError, match=r"an adapter of FLUX\.1's layers, but this base is FLUX\.2"):
            make(read, adapter=False).begin_with(theirs, mode)
    with pytest.raises(UserError, match=r"an adapter of FLUX\.1's layers, but this base is FLUX\.2"):
        make(read, adapter=False).load_adapter(theirs)
    with pytest.raises(UserError, match=r"an adapter of FLUX\.2's layers, but this base is FLUX\.1"):
        from_folder(FluxPolicy, tiny_folder, **SIZES).load_adapter(ours)


def test_merged_into_the_base(read: Flux2Policy, tmp_path: Path) -> None:
    policy = make(read)
    (x_NLC, sigma_N), cond = points(policy), policy.encode(TASKS)
    merged = make(read, adapter=False)
    merged.begin_with(policy.save(tmp_path), "merge")
    with torch.no_grad():
        found, expected = merged.velocity(x_NLC, sigma_N, cond), policy.velocity(x_NLC, sigma_N, cond)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_int8_blocks(read: Flux2Policy) -> None:
    pytest.importorskip("torchao", reason="an extra")

    plain, policy = make(read, adapter=False), make(read, adapter=False)
    policy.quantise()
    policy.add_adapter(2, 0)
    (x_NLC, sigma_N), cond = points(policy), policy.encode(TASKS)
    found = policy.velocity(x_NLC, sigma_N, cond)
    assert 0 < (found - plain.velocity(x_NLC, sigma_N, cond)).abs().max() < 0.1 * found.abs().max()
    found.square().sum().backward()
    assert all(p.grad is not None for p in policy.trainable_parameters().values())
