import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from PIL import Image
from support.undrawn import undrawn

from cgrpo.config import Config, load_config
from cgrpo.hub import asset
from cgrpo.training.scoring import Scoring

TESTS = str(Path(__file__).parents[1])  # where a subprocess finds support.exact_rewards

# Small and quick: 2 prompts x 4 samples (or 2 pairs), 4 steps, exact rewards, no evaluation.
COMMON = (
    "training.iterations=3",
    "training.micro_batch=5",
    "training.checkpoint_every=1",
    "training.schedule=constant",  # a falling rate would depend on the length
    "training.average=0",
    "sampling.steps=4",
    "policy.rank=4",
    "rewards.identity.type=support.exact_rewards:brightness",
    "rewards.prompt.type=support.exact_rewards:redness",
    "evaluation.enabled=false",
    "logging.tracker=none",
)
GROUPS = ("training.prompts_per_iteration=2", "training.group_size=4")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> str:
    """The setting of a policy that is the toybox's but for a transformer of two narrow random blocks: what is tested
    here holds for any weights."""
    folder, whole = tmp_path_factory.mktemp("tiny") / "policy", Path(asset("policy"))
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("transformer"))
    config = FluxTransformer2DModel.load_config(whole / "transformer")
    narrow = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "attention_head_dim": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = FluxTransformer2DModel.from_config({**config, **narrow, "axes_dims_rope": (4, 6, 6)})
    made.proj_out.weight.data *= 2  # velocities of a trained model's size
    made.save_pretrained(folder / "transformer")
    return f"policy.path={folder}"


@pytest.fixture(autouse=True)
def quick_reports(request, monkeypatch):
    if request.node.get_closest_marker("drawn") is None:
        undrawn(monkeypatch)


@pytest.fixture
def watch_scores(monkeypatch):
    """``watch_scores(change)`` -> a list that gets the scores of every rollout, each after ``change`` in place."""
    seen: list[torch.Tensor] = []
    score = Scoring.__call__

    def watch(change=lambda scores_PGR: None) -> list[torch.Tensor]:
        def scores(*arguments):
            seen.append(score(*arguments))
            change(seen[-1])
            return seen[-1]

        monkeypatch.setattr(Scoring, "__call__", scores)
        return seen

    return watch


@pytest.fixture
def manifest(tmp_path) -> str:
    """Five tasks with references of two sizes; one task has two of them, two have the same one."""
    for number, size in enumerate([(32, 32), (32, 16), (32, 32)]):
        Image.effect_noise(size, 60 + 20 * number).convert("RGB").save(tmp_path / f"{number}.png")
    references = [["0.png"], ["1.png"], ["2.png"], ["0.png", "2.png"], ["1.png"]]
    table = [{"prompt": "a toy at night", "subject": "toy", "references": names} for names in references]
    (tmp_path / "tasks.json").write_text(json.dumps(table))
    return str(tmp_path / "tasks.json")


@pytest.fixture
def small(tiny):
    """``small(*settings)`` -> the small configuration with settings on top."""

    def make(*settings: str) -> Config:
        return load_config("toybox", (tiny, *COMMON, *GROUPS, *settings))

    return make


@pytest.fixture
def small_forward(tiny):
    """The same on the forward process: 3 steps a rollout."""

    def make(*settings: str) -> Config:
        forward = ("method=forward", "sampling.rollout_steps=3")
        return load_config("toybox", (tiny, *COMMON, *GROUPS, *forward, *settings))

    return make


@pytest.fixture
def small_pairs(tiny):
    """The same for methods without groups; supervised fine-tuning unless ``settings`` name another."""
    return lambda *settings: load_config("sft", (tiny, *COMMON, *settings))


@pytest.fixture
def small_sft(small_pairs):
    """The same for supervised fine-tuning."""
    return lambda *settings: small_pairs("supervised.batch=2", *settings)


@pytest.fixture
def small_arguments(monkeypatch, tiny):
    """The same as command-line arguments, here and in subprocesses."""
    monkeypatch.setenv("PYTHONPATH", TESTS, prepend=":")
    return [part for setting in (tiny, *COMMON, *GROUPS) for part in ("--set", setting)]
