"""The recipes for real models, run on tiny random checkpoints in the real layouts, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
from PIL import Image
from safetensors.torch import save_file
from support import csd, golden_models, tiny_flux, tiny_flux2, tiny_qwen, tiny_qwen21, tiny_rewards
from support.policies import add_adapter, from_folder, read_adapter
from support.warm import Started

from cgrpo.app.main import main
from cgrpo.app.sample import open_policy
from cgrpo.build import make_source
from cgrpo.config import TOYBOX, load_config, recipes
from cgrpo.policies.adapters.files import read_split
from cgrpo.policies.adapters.keys import to_split, to_uno
from cgrpo.policies.adapters.layers import adapter_state, reference_policy
from cgrpo.policies.flux.policy import FluxPolicy
from cgrpo.section import TOYBOX_POLICIES

REAL = [name for name in recipes() if load_config(name).policy.path not in TOYBOX_POLICIES]
FOLDERS = {"FLUX.2-klein": "klein", "Qwen-Image-Edit": "qwen", "Qwen-Image-2.1": "qwen21", "": "flux"}
GROUPS = [name for name in REAL if load_config(name).method in ("grpo", "forward")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of every family and reward, start.safetensors, and train.json with references of three sizes."""
    folder = tmp_path_factory.mktemp("real")
    tiny_flux.build_folder(folder / "flux")
    tiny_flux2.build_folder(folder / "klein")
    tiny_qwen.build_folder(folder / "qwen")
    tiny_qwen21.build_folder(folder / "qwen21")
    tiny_rewards.build_dinov2(folder / "dinov2")
    tiny_rewards.build_grounding_dino(folder / "detector")
    tiny_rewards.build_sam(folder / "sam")
    tiny_rewards.build_hpsv3(folder / "hpsv3")
    tiny_rewards.build_siglip(folder / "siglip")
    save_file(csd.published().state_dict(), folder / "csd.safetensors")
    policy = from_folder(FluxPolicy, folder / "flux", height=32, width=32, reference_size=32)
    add_adapter(policy.transformer, rank=3, seed=5)
    generator = torch.Generator().manual_seed(5)
    start = {
        k: v + 0.2 * torch.randn(v.shape, generator=generator) for k, v in adapter_state(policy.transformer).items()
    }
    save_file(to_uno(to_split(start)), folder / "start.safetensors")
    rows = []
    for number, size in enumerate([(40, 40), (40, 20), (24, 48)]):
        Image.effect_noise(size, 80).convert("RGB").save(folder / f"{number}.png")
        Image.effect_noise((32, 32), 80).convert("RGB").save(folder / f"target{number}.png")
        rows.append(
            {
                "prompt": f"a red cube {number}",
                "references": [f"{number}.png"],
                "subject": "cube",
                "target": f"target{number}.png",
            }
        )
    (folder / "train.json").write_text(json.dumps(rows))
    two = [row | {"references": [row["references"][0], "0.png"], "subject": ["cube", "ball"]} for row in rows]
    (folder / "two.json").write_text(json.dumps(two))
    return folder


REWARDS = {  # the tiny checkpoints by type
    "dino-seg": {"path": "dinov2", "detector": "detector", "segmenter": "sam"},
    "hpsv3": {"path": "hpsv3/HPSv3.safetensors", "backbone": "hpsv3/backbone", "template": "hpsv3/template.txt"},
    "clip": {"path": TOYBOX},
    "siglip2": {"path": "siglip"},
    "csd": {"path": "csd.safetensors"},
}


def settings(world: Path, recipe: str, *more: str) -> list[str]:
    """Command-line arguments that put the tiny checkpoints in the place of the real ones."""
    cfg = load_config(recipe)
    rewards = {name: REWARDS[reward.type] for name, reward in cfg.rewards.items()}
    given = [
        f"policy.path={world / next(n for word, n in FOLDERS.items() if word in cfg.policy.path)}",
        *([f"policy.start={world / 'start.safetensors'}"] if cfg.policy.start else []),
        "policy.height=32",
        "policy.width=32",
        "policy.reference_size=32",
        "policy.rank=4",
        f"data.source={world / ('two.json' if '-pair' in recipe else 'train.json')}",
        "sampling.steps=4",
        *(["sampling.rollout_steps=2"] if cfg.method == "forward" else []),
        *(
            f"rewards.{name}.{key}={value if value == TOYBOX else world / value}"
            for name, row in rewards.items()
            for key, value in row.items()
        ),
        "training.iterations=2",
        f"{cfg.share()[1]}=2",
        *(["training.group_size=6"] if recipe in GROUPS else []),
        *(["preference.candidates=2", "preference.prompt=0"] if load_config(recipe).method == "preference" else []),
        "logging.tracker=none",
    ]
    return [part for setting in (*given, *more) for part in ("--set", setting)]


EXACT = ("policy.dtype=float32", "training.learning_rate=0.01")


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the paper's recipe in float32, as ``EXACT`` says."""
    run, recipe = tmp_path_factory.mktemp("trained") / "run", "uno-dinoseg-hpsv3"
    assert main(["train", recipe, *settings(world, recipe, *EXACT), "--out", str(run)]) == 0
    return run


@pytest.mark.parametrize("recipe", REAL)
def test_every_real_recipe_runs_for_two_steps(world: Path, tmp_path: Path, recipe: str) -> None:
    run = tmp_path / "run"
    assert main(["train", recipe, *settings(world, recipe), "--out", str(run)]) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert all(row["gradient_norm"] > 0 for row in rows)
    for row in rows if recipe in GROUPS else ():
        assert row.get("ratio_drift", 0) < 1e-3  # on the forward process nothing is replayed
        assert all(row[f"reward/{name}/std"] > 0 for name in load_config(recipe).rewards)
        if getattr(load_config(recipe).rewards["identity"], "masks", "none") == "none":
            continue
        # The release masks the reference alone; of several subjects, each is a region or missing.
        assert ("reward/identity/unsegmented" in row) == (recipe != "uno-8x-release" and "-pair" not in recipe)
        assert 0 <= row["reward/identity/reference_unsegmented"] <= 1
    state, header = read_split(run / "adapter")
    assert header["start_mode"] == ("merge" if load_config(recipe).policy.start else "")
    assert any(value.abs().max() > 0 for key, value in state.items() if "lora_B" in key)


def test_the_recipes_judges_watch_held_out_tasks(world: Path, tmp_path: Path) -> None:
    """DINO v1 and CLIP of pictures and of texts, over references of three sizes."""
    judges = {"dino": golden_models.build_dino_v1(tmp_path / "dino"), "clip_image": TOYBOX, "clip_text": TOYBOX}
    more = [f"guard.scorers.{name}.path={path}" for name, path in judges.items()]
    more += [f"guard.source={world / 'train.json'}", "guard.every=2", "guard.batch=2", "guard.tasks=3"]
    given = settings(world, "uno-dinoseg-hpsv3", *more)
    assert main(["train", "uno-dinoseg-hpsv3", *given, "--out", str(tmp_path / "run")]) == 0
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "guard.jsonl").read_text().splitlines()]
    axes = {name: metric["axis"] for name, metric in row["metrics"].items() if metric["role"] == "judge"}
    assert axes == {"dino": "identity", "clip_image": "identity", "clip_text": "prompt"}
    for metric in row["metrics"].values():
        assert metric["failed"] == 0 and metric["low"] < metric["high"] and metric["spread"] > 0


def test_unos_reading_of_references(world: Path, tmp_path: Path) -> None:
    """Several references of one task, transparency dropped after resizing: rewards and sheets take them too."""
    Image.effect_noise((40, 40), 80).convert("RGBA").save(tmp_path / "clear.png")
    Image.effect_noise((40, 40), 80).convert("P").save(tmp_path / "palette.png")
    rows = [{"prompt": "a red cube", "references": ["clear.png", "palette.png"], "subject": "cube"}] * 2
    (tmp_path / "two.json").write_text(json.dumps(rows))
    more = ("policy.reference_alpha=drop", f"data.source={tmp_path / 'two.json'}", "policy.several_size=24")
    given = settings(world, "uno-dinoseg-hpsv3", *more)
    assert main(["train", "uno-dinoseg-hpsv3", *given, "--out", str(tmp_path / "run")]) == 0
    cfg, policy = open_policy(tmp_path / "run", load_config())
    source = make_source(cfg)
    cond = policy.encode(source.batch([0]))
    assert cond.reference_NLC.shape[1] == 2 * 3 * 3  # 24 pixels, 8 a token


def test_continued_start_is_the_reference_policy(world: Path, tmp_path: Path) -> None:
    """The start is trained on; held still beside it, it is what KL and "base" speak of."""
    run = tmp_path / "run"
    more = ("policy.start_mode=continue", "objective.kl=0.1", "training.learning_rate=0.01", "policy.dtype=float32")
    assert main(["train", "uno-dinoseg-hpsv3", *settings(world, "uno-dinoseg-hpsv3", *more), "--out", str(run)]) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    # Before its first update the policy is its reference, though both are far from the bare base.
    assert rows[1]["kl"] > 0
    cfg, policy = open_policy(run, load_config())
    start, _ = read_adapter(world / "start.safetensors")
    trained = adapter_state(policy.transformer)
    assert {v.shape[0] for k, v in start.items() if "lora_A" in k} == {3} and trained.keys() == start.keys()
    assert any((trained[key] - start[key]).abs().max() > 1e-4 for key in start)
    x_NLC, sigma_N = torch.randn(1, *policy.latent_shape), torch.tensor([0.5])
    cond = policy.condition(torch.randn(1, 12, 24), torch.randn(1, 20))
    with torch.no_grad(), reference_policy(policy.transformer):
        reference = policy.velocity(x_NLC, sigma_N, cond)
    _, fresh = open_policy(world / "start.safetensors", cfg, ["policy.start="])
    with torch.no_grad():
        assert torch.equal(reference, fresh.velocity(x_NLC, sigma_N, cond))
    assert len(policy.trainable_parameters()) == len(start)


def test_sampling_from_a_run_and_from_its_adapter(world: Path, trained: Path, tmp_path: Path) -> None:
    run, given = trained, settings(world, "uno-dinoseg-hpsv3", *EXACT)
    ask = [
        "--reference",
        str(world / "0.png"),
        str(world / "1.png"),
        "--prompt",
        "a red cube",
        "--seeds",
        "2",
        "--seed",
        "3407",
    ]
    uno = ["--shift", "uno", "--guidance", "4", "--steps", "3", "--size", "48x32"]
    assert main(["sample", str(run), *ask, *uno, "--out", str(tmp_path / "one")]) == 0
    assert (
        main(
            [
                "sample",
                str(run / "adapter"),
                "--recipe",
                "uno-dinoseg-hpsv3",
                *given,
                *ask,
                *uno,
                "--out",
                str(tmp_path / "two"),
            ]
        )
        == 0
    )
    for name in ("prompt0-seed3407.png", "prompt0-seed3408.png"):
        one, two = (Image.open(tmp_path / folder / name) for folder in ("one", "two"))
        assert one.size == (48, 32) and one.tobytes() == two.tobytes()
    # The adapter belongs on the merged base alone.
    plain = [*given, "--set", "policy.start="]
    assert (
        main(
            [
                "sample",
                str(run / "adapter"),
                "--recipe",
                "uno-dinoseg-hpsv3",
                *plain,
                *ask,
                "--out",
                str(tmp_path / "no"),
            ]
        )
        == 2
    )


@pytest.mark.parametrize("recipe", ["uno-sft"])
def test_supervised_fine_tuning_takes_references_of_all_sizes(world: Path, tmp_path: Path, recipe: str) -> None:
    more = ("supervised.batch=3", "policy.checkpointing=selective")
    assert main(["train", recipe, *settings(world, recipe, *more), "--out", str(tmp_path / "run")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["gradient_norm"] > 0 for row in rows)


def test_encoded_data_trains_without_text_encoders(world: Path, trained: Path, tmp_path: Path, capsys, monkeypatch):
    given = settings(world, "uno-dinoseg-hpsv3", *EXACT)
    recipe, cache = "uno-dinoseg-hpsv3", str(tmp_path / "cache")
    assert main(["data", "encode", recipe, *given, "--out", cache]) == 0
    assert "prompts: 3 encoded, 0 already there\nreferences: 3 encoded, 0" in capsys.readouterr().out
    assert main(["data", "encode", recipe, *given, "--out", cache]) == 0
    assert "prompts: 0 encoded, 3 already there" in capsys.readouterr().out

    cached = [*given, "--set", f"data.cache={cache}"]
    with monkeypatch.context() as patch:
        patch.setattr("transformers.T5EncoderModel.from_pretrained", None)  # must not be called
        assert main(["train", recipe, *cached, "--out", str(tmp_path / "cached")]) == 0
    one, two = (read_adapter(run / "adapter")[0] for run in (trained, tmp_path / "cached"))
    assert max((one[key] - two[key]).abs().max() for key in one) <= 1e-6

    ask = ["--prompt", "a blue ball", "--seeds", "1", "--out", str(tmp_path / "pictures")]
    assert main(["sample", str(tmp_path / "cached"), *ask]) == 0  # a prompt that was never encoded

    for change, told in (("policy.reference_size=24", "reference size"), ("policy.dtype=bfloat16", "dtype")):
        assert main(["train", recipe, *cached, "--set", change, "--out", str(tmp_path / "no")]) == 2
        assert told in capsys.readouterr().err


def test_adapter_commands(world: Path, trained: Path, tmp_path: Path, capsys) -> None:
    """convert, merge and inspect on what a run on a merged base leaves; the joined file needs no merged base."""
    run, recipe = trained, "uno-dinoseg-hpsv3"
    given = settings(world, recipe, *EXACT)
    adapter, start = str(run / "adapter"), str(world / "start.safetensors")
    capsys.readouterr()
    assert main(["adapter", "inspect", adapter]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["rank"] == 4 and about["start_mode"] == "merge"

    assert main(["adapter", "convert", adapter, "--to", "diffusers", "--out", str(tmp_path / "no")]) == 2
    assert "--join" in capsys.readouterr().err
    for kind in ("diffusers", "uno"):
        out = str(tmp_path / f"{kind}.safetensors")
        assert main(["adapter", "convert", adapter, "--to", kind, "--join", start, "--out", out]) == 0
        assert main(["adapter", "inspect", out]) == 0
    merged = tmp_path / "merged"
    assert main(["adapter", "merge", adapter, "--recipe", recipe, *given, "--out", str(merged)]) == 0
    assert main(["adapter", "merge", adapter, "--recipe", recipe, *given, "--out", str(merged)]) == 2

    ask = ["--reference", str(world / "0.png"), "--prompt", "a red cube", "--seeds", "1"]
    plain = [*given, "--set", "policy.start="]
    ways = {
        "run": [str(run)],
        "joined": [str(tmp_path / "diffusers.safetensors"), "--recipe", recipe, *plain],
        "uno": [str(tmp_path / "uno.safetensors"), "--recipe", recipe, *plain],
        "merged": ["--recipe", recipe, *plain, "--set", f"policy.path={merged}"],
        "base": ["--recipe", recipe, *plain],
    }
    pictures = {}
    for name, where in ways.items():
        assert main(["sample", *where, *ask, "--out", str(tmp_path / name)]) == 0
        pictures[name] = np.asarray(Image.open(tmp_path / name / "prompt0-seed0.png")).astype(int)
    for name in ("joined", "uno", "merged"):  # float noise may tip a level
        assert abs(pictures[name] - pictures["run"]).max() <= 1
    assert abs(pictures["base"] - pictures["run"]).max() > 1


def test_a_trained_adapter_gives_the_stock_pipeline_the_same_picture(world: Path, tmp_path: Path) -> None:
    """`cgrpo train`, then `cgrpo sample` on one side and `load_lora_weights` on the other: same seed and prompt."""
    run, recipe = tmp_path / "run", "uno-dinoseg-hpsv3"
    plain = ("policy.dtype=float32", "policy.start=", "training.learning_rate=0.05")
    given = settings(world, recipe, *plain)
    assert main(["train", recipe, *given, "--out", str(run)]) == 0
    ask = [
        "--prompt",
        "a red cube",
        "--seeds",
        "1",
        "--seed",
        "7",
        "--steps",
        "5",
        "--shift",
        "flux",
        "--guidance",
        "2.5",
    ]
    assert main(["sample", str(run), *ask, "--out", str(tmp_path / "ours")]) == 0
    ours = np.asarray(Image.open(tmp_path / "ours" / "prompt0-seed7.png")).astype(int)

    pipeline = FluxPipeline.from_pretrained(world / "flux", local_files_only=True)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    pipeline.set_progress_bar_config(disable=True)

    def stock() -> np.ndarray:
        (picture,) = pipeline(
            prompt="a red cube", height=32, width=32, num_inference_steps=5, guidance_scale=2.5,
            generator=torch.Generator().manual_seed(7), max_sequence_length=12,
        ).images  # fmt: skip
        return np.asarray(picture).astype(int)

    base = stock()
    pipeline.load_lora_weights(str(run / "adapter"))
    assert abs(stock() - ours).max() <= 1  # float noise may tip a level
    assert abs(base - ours).max() > 1


def test_two_processes_give_the_run_of_one_in_the_real_layout(world: Path, tmp_path: Path) -> None:
    """With the paper's rewards (HPSv3 in bfloat16) and references of several sizes; one thread a process, since the
    number of threads, too, shows in bfloat16. The policy is in float64: in float32 a library may sum another batch in
    another order, and a picture's level that tips moves a score by bfloat16's last digit."""
    recipe = "uno-dinoseg-hpsv3"
    given = settings(world, recipe, "policy.dtype=float64", "training.learning_rate=0.001")
    state = {}
    for name, processes in (("one", 1), ("ddp", 2), ("fsdp2", 2)):
        parallel = ["--set", f"training.parallel={'fsdp2' if name == 'fsdp2' else 'ddp'}"]
        command = ["train", recipe, *given, *parallel, "--out", str(tmp_path / name)]
        done = Started(main, command, processes, threads=1).wait()
        assert done.returncode == 0, done.stderr
        state[name], _ = read_adapter(tmp_path / name / "adapter")
    assert max(value.abs().max() for key, value in state["one"].items() if "lora_B" in key) > 1e-3
    for name in ("ddp", "fsdp2"):
        assert max((state["one"][key] - state[name][key]).abs().max() for key in state["one"]) <= 1e-5
