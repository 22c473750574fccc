"""Whole plans: counts by hand, what each setting changes, mistakes, and the text."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
from support.pages import blocks, commands

from cgrpo.algorithm import window_start
from cgrpo.app.main import main
from cgrpo.config import Config, load_config, override, parse_config
from cgrpo.errors import UserError
from cgrpo.plan import GPUS, Plan, measured, plan, render
from cgrpo.plan.gpus import known_gpu
from cgrpo.plan.memory import GIB, total
from cgrpo.plan.policy import count_policy
from cgrpo.plan.rewards import reward_models
from cgrpo.plan.work import Work, estimate_work, lead_steps
from cgrpo.training.grpo.settings import GrpoConfig

DOCS = Path(__file__).parents[2] / "docs"
PAPER = {
    "policy": {
        "path": "black-forest-labs/FLUX.1-dev",
        "height": 512,
        "width": 512,
        "reference_size": 512,
        "dtype": "bfloat16",
        "rank": 512,
        "checkpointing": "full",
    },
    "sampling": {"steps": 25, "batch": 12},
    "rewards": {
        "identity": {
            "type": "dino-seg",
            "path": "facebook/dinov2-large",
            "segmenter": "facebook/sam-vit-base",
            "detector": "IDEA-Research/grounding-dino-tiny",
            "chunk": 12,
        },
        "prompt": {"type": "hpsv3", "path": "MizzenAI/HPSv3", "backbone": "Qwen/Qwen2-VL-7B-Instruct"},
    },
    "training": {"prompts_per_iteration": 8, "updates_per_rollout": 3, "micro_batch": 4, "iterations": 1250},
}


def paper(*settings: str) -> Config:
    return override(parse_config(PAPER, "paper"), settings)


def work(cfg: Config, gpus: int = 8) -> Work:
    """A plan's work, without measuring memory."""
    policy = count_policy(cfg.policy, 1, cfg.training.micro_batch)
    return estimate_work(cfg, policy, reward_models(cfg.rewards), gpus)


def size(found: Plan, name: str) -> int:
    """Bytes of the first part whose name begins so: first what is always there, then the phases."""
    everywhere = [*found.memory.always, *(part for parts in found.memory.phases.values() for part in parts)]
    return next(part.size for part in everywhere if part.name.startswith(name)) or 0


def test_the_papers_run() -> None:
    """8 prompts over 8 GPUs, 12 samples each: 1 + 12 * 24 forwards, 12 * int(0.6 * 24) pairs. (512 / 16)^2 = 1,024.

    The first step is one forward for all 12. In each of 3 updates, 4 samples train it with probability 14 / 24 each.
    """
    found = plan(paper(), gpus=8)
    assert (found.tokens.target, found.tokens.references, found.tokens.text) == (1024, 1024, 512)
    assert (found.work.sampling_forwards, found.work.pairs, found.work.updates) == (289, 168, 3)
    assert found.work.passes == pytest.approx(168 - 3 * (4 * 14 / 24 - (1 - (10 / 24) ** 4)))
    assert found.trained == 956_301_312
    models = found.work.total - sum(found.work.operations[part] for part in ("text encoders", "autoencoder", "rewards"))
    assert models / 1e15 == pytest.approx(34.26, abs=0.05)
    assert found.work.operations["rewards"] < 0.01 * found.work.total
    assert found.seconds == found.work.total / (312e12 * 0.4) + found.scale.seconds
    assert found.hours == pytest.approx(found.seconds * 1250 / 3600)
    assert found.fits and found.advice == ()


def test_the_papers_memory() -> None:
    """bfloat16 weights of 11,901,408,320 parameters; an adapter of 956,301,312 float32 numbers, its gradients, and
    two moments; T5 and CLIP in bfloat16 (4,762,310,656 + 123,060,480), the autoencoder in float32 (83,819,683)."""
    found = plan(paper(), gpus=8)
    assert size(found, "transformer") == 2 * 11_901_408_320
    assert size(found, "adapter") == 4 * 956_301_312
    assert size(found, "optimizer") == 8 * 956_301_312
    assert size(found, "gradients") == 4 * 956_301_312
    assert size(found, "text encoders") == 2 * (4_762_310_656 + 123_060_480)
    assert size(found, "autoencoder") == 4 * 83_819_683
    assert size(found, "reward prompt") == 2 * 7_746_378_240 + 4 * (3585 * 1024 + 1025 * 16 + 17 * 2)
    # 57 blocks' inputs of 2,560 x 3,072 numbers for 4 pairs; the rest is small.
    assert size(found, "activations") == pytest.approx(4 * 57 * 2560 * 3072 * 2, rel=0.05)
    assert found.memory.peak == found.memory.resident + total(found.memory.phases[found.memory.busiest]) + (
        found.memory.reserve
    )
    assert found.memory.backward["off"] > found.memory.backward["selective"] > found.memory.backward["full"]


def test_what_several_gpus_add() -> None:
    """3 steps sum 4-byte gradients by a ring, at 80 % of 300 GB/s, 200 between nodes. On PCIe, gathers outlast the
    work that should hide them; prefetched over NVLink they don't."""
    one, eight, many = (plan(paper(f"training.prompts_per_iteration={max(8, n)}"), gpus=n) for n in (1, 8, 64))
    assert one.scale.seconds == 0
    for found, bandwidth in ((eight, 300e9), (many, 200e9)):
        ring = 2 * (found.gpus - 1) / found.gpus * 4 * 956_301_312 / (0.8 * bandwidth)
        assert found.scale.gradients == pytest.approx(3 * ring)
        assert "samples per GPU-hour" in render(found) and "waiting" in render(found)
    assert 0.02 < eight.scale.waiting / eight.seconds < many.scale.waiting / many.seconds < 0.1
    assert one.samples_per_gpu_hour > eight.samples_per_gpu_hour > many.samples_per_gpu_hour
    assert eight.samples_per_gpu_hour == pytest.approx(12 * 3600 / eight.seconds)
    sharded = ("training.parallel=fsdp2", "training.prompts_per_iteration=64")
    linked, cards = (plan(paper(*sharded), gpu=gpu, gpus=64).scale for gpu in ("h100-80gb", "l40s-48gb"))
    assert linked.gathers == 0 < cards.gathers
    assert plan(paper(*sharded, "training.micro_batch=1"), gpu="l40s-48gb", gpus=64).scale.gathers > 2 * cards.gathers


def test_offload_brings_models_in_one_at_a_time() -> None:
    here, away = plan(paper(), gpus=8), plan(paper("policy.offload=true"), gpus=8)
    text, vae = 2 * (4_762_310_656 + 123_060_480), 4 * 83_819_683
    assert here.memory.resident - away.memory.resident == text + vae
    assert total(away.memory.phases["encode"]) == text
    assert total(away.memory.phases["decode"]) - total(here.memory.phases["decode"]) == vae


def test_a_cache_leaves_the_text_encoders_out() -> None:
    found = plan(paper("data.cache=somewhere"), gpus=8)
    assert size(found, "text encoders") == 0
    assert found.work.operations["text encoders"] == 0


def test_fsdp_shards_the_blocks_alone() -> None:
    """Blocks of 141.6 M (single) and 339.8 M (double) parameters; two of the largest are whole at a time."""
    whole, shards = (plan(paper(f"training.parallel={kind}"), gpus=8) for kind in ("ddp", "fsdp2"))
    double = 2 * (6 + 3 + 1 + 8) * 3072**2 + 2 * (6 + 3 + 1 + 4 + 1) * 3072 + 4 * 128
    single = (3 + 3 + 4 + 5) * 3072**2 + (3 + 3 + 4 + 1) * 3072 + 2 * 128
    blocks = 19 * double + 38 * single
    saved = size(whole, "transformer") - size(shards, "transformer")
    assert saved == pytest.approx(2 * (blocks * 7 / 8 - 2 * double), abs=1)
    assert size(shards, "optimizer") == size(whole, "optimizer")


def test_int8_halves_the_blocks_matrices() -> None:
    found = plan(paper("policy.quantise=int8"), gpus=8)
    matrices = (19 * 36 + 38 * 15) * 3072**2
    assert size(found, "transformer") == 2 * 11_901_408_320 - matrices


def test_the_guards_scorers_and_offloaded_rewards_are_counted_where_they_are() -> None:
    clip = ("data.source=train.json", "guard.every=10", "guard.scorers.judge.type=clip-i")
    assert all("guard" not in part.name for part in plan(paper(*clip), gpus=8).memory.always)  # it has no tasks
    watched = plan(paper(*clip, "guard.source=heldout.json"), gpus=8)
    assert size(watched, "guard judge") == 4 * 87_849_217  # without the half that reads
    away = plan(paper("rewards.prompt.offload=true"), gpus=8)
    assert not any(part.name.startswith("reward prompt") for part in away.memory.always)
    assert away.memory.phases["reward"][0].size == size(plan(paper(), gpus=8), "reward prompt")


@pytest.mark.parametrize("recipe", ["uno-24gb", "uno-24gb-short"])
def test_the_24_gb_recipes_fit_with_their_guard(recipe: str) -> None:
    cfg = load_config(recipe, ["data.cache=encoded", "guard.source=heldout.json"])
    found = plan(cfg, gpu="rtx-4090-24gb")
    assert found.fits and not found.memory.unknown
    assert any("read, and quantised, on the CPU" in note for note in found.notes)


def test_kl_costs_a_forward_of_the_base_a_pair() -> None:
    without, with_kl = work(paper()), work(paper("objective.kl=0.01"))
    extra = with_kl.total - without.total
    assert extra == pytest.approx(with_kl.operations["reference policy (kl)"])
    assert extra / with_kl.passes / 1e12 == pytest.approx(33.0 + 4.6, abs=0.15)


def test_references_and_windows() -> None:
    assert count_policy(paper("policy.reference_size=320").policy, 2).tokens.references == 2 * 20 * 20
    assert work(paper("sampling.window.type=all")).pairs == 12 * 24
    four = ("sampling.window.type=sliding", "sampling.window.size=4")
    sliding, wide = work(paper(*four)), work(paper(*four, "sampling.window.stride=9"))
    assert sliding.pairs == 12 * 4
    assert sliding.passes == 12 * 4 - 3 * (4 - 1)  # each update of 4 samples trains the shared step once
    # T = 25: the window begins at 0 .. 20, at 10 on average; until there and at its first step a group of 12 is one.
    assert sliding.sampling_forwards == 12 * 14 + 11
    assert wide.sampling_forwards == round(12 * (24 - 47 / 4) + 1 + 47 / 4)  # at 0, 9, 18 and 20


@pytest.mark.parametrize(("steps", "size", "stride"), [(25, 4, 1), (25, 4, 9), (10, 3, 1), (10, 9, 2), (8, 2, 3)])
def test_the_plans_windows_are_the_algorithms(steps: int, size: int, stride: int) -> None:
    settings = (f"sampling.steps={steps}", f"sampling.window.size={size}", f"sampling.window.stride={stride}")
    cfg = load_config("toybox", ("sampling.window.type=sliding", *settings))
    starts = [window_start(iteration, steps, size, stride) for iteration in range(steps)]
    turn = starts[: starts.index(max(starts)) + 1]
    assert isinstance(cfg, GrpoConfig) and lead_steps(cfg) == sum(turn) / len(turn)


def test_supervised_runs_have_no_rollout() -> None:
    few = work(paper("method=sft", "supervised.batch=16"))
    assert (few.sampling_forwards, few.pairs, few.updates, few.micro_batch) == (0, 2, 1, 2)
    found = plan(paper("method=sft", "supervised.batch=32"), gpus=8)
    assert set(found.memory.phases) == {"encode", "update", "step"}
    assert "rewards" not in found.work.operations


def test_preference_pairs_are_two_or_three_pictures_and_made_once() -> None:
    """Winner, loser and reference; the frozen policy sees the first two. Making them is spread over the run."""
    pairs, making = ("method=preference", "preference.batch=16"), "making pairs, over the run"
    three, twice = work(paper(*pairs)), work(paper(*pairs, "preference.tasks=384", "training.iterations=625"))
    assert (three.pairs, three.updates, three.micro_batch) == (6, 1, 3)
    assert three.operations["reference policy"] == 2 * 2 * count_policy(paper().policy, 1).base
    assert twice.operations[making] == pytest.approx(4 * three.operations[making])
    two, given = (
        plan(paper(*pairs, "preference.similarity=0", *more), gpus=8)
        for more in ((), ("preference.pairs=votes.jsonl",))
    )
    assert two.work.pairs == 4 and {"sample", "decode", "reward"} <= set(two.memory.phases)
    assert making not in given.work.operations and set(given.memory.phases) == {"encode", "update", "step"}


def test_the_forward_process_trains_levels_and_asks_the_old_policy() -> None:
    """12 samples a process, 8 steps a rollout, 2 levels; the old policy sees the pairs of all updates but the first."""
    forward = paper("method=forward", "sampling.rollout_steps=8", "objective.levels=2")
    found, grpo = plan(forward, gpus=8), plan(paper(), gpus=8)
    assert (found.work.sampling_forwards, found.work.pairs, found.work.updates) == (12 * 8, 12 * 2, 3)
    one = grpo.work.operations["sampling"] / 289
    assert found.work.operations["sampling"] == pytest.approx(96 * one)
    assert found.work.operations["old policy"] == pytest.approx(16 * one)
    assert "old policy" not in grpo.work.operations
    slow = plan(override(forward, ["objective.old=0.5", "objective.kl=0.1"]), gpus=8)
    assert slow.work.operations["old policy"] == pytest.approx(24 * one)
    assert slow.work.operations["reference policy (kl)"] > 0
    assert slow.memory.resident - found.memory.resident == 4 * 956_301_312  # the old policy's adapter


def test_an_average_is_an_adapter_more() -> None:
    found = plan(paper("training.average=0.9"), gpus=8)
    assert found.memory.resident - plan(paper(), gpus=8).memory.resident == 4 * 956_301_312


def test_one_change_is_advised_where_one_is_enough() -> None:
    found = plan(paper("policy.checkpointing=off"), gpus=8)
    assert not found.fits and found.advice == ("policy.checkpointing=full",)
    assert "Does not fit" in render(found) and "--set policy.checkpointing=full" in render(found)
    assert plan(paper(), gpus=8).fits


def test_several_changes_are_advised_where_it_takes_them() -> None:
    settings = ("policy.checkpointing=off",)
    found = plan(paper(*settings), gpu="l40s-48gb", gpus=8)
    assert found.advice == ("policy.checkpointing=full", "policy.offload=true", "training.parallel=fsdp2")
    assert plan(paper(*settings, *found.advice), gpu="l40s-48gb", gpus=8).fits
    assert not plan(paper(*settings, *found.advice[:2]), gpu="l40s-48gb", gpus=8).fits


def test_nothing_fits_where_nothing_can() -> None:
    found = plan(paper(), gpu="rtx-4090-24gb", gpus=1)
    assert not found.fits and found.advice is None
    assert "Does not fit" in render(found)


def test_what_is_unknown_is_said() -> None:
    table = PAPER | {"rewards": PAPER["rewards"] | {"prompt": {"type": "my.module:score"}}}
    found = plan(parse_config(table, "own"), gpus=8)
    assert found.parameters["reward prompt: my.module:score"] is None
    assert found.memory.unknown == ("reward prompt: my.module:score",)
    assert any("my.module:score" in note and "unknown" in note for note in found.notes)
    assert any("FLUX.1-dev are assumed" in note for note in found.notes)
    assumed = count_policy(paper("policy.t5=own/t5").policy, 1).assumed
    assert "FLUX.1-dev are assumed" in assumed[0] and "policy.t5 'own/t5'" in assumed[1]
    assert "beside 1 of unknown size" in render(found)
    for tasks, told in ((), False), (("guard.source=heldout.json",), True):
        notes = plan(load_config("uno-dinoseg-hpsv3", tasks), gpus=8).notes
        assert any("every 50 iterations 64 x 25 forwards over all GPUs" in note for note in notes) == told


def test_the_packages_own_world_is_read_from_its_files() -> None:
    """32 x 32 pixels, 8 a token; 12 text tokens; 6 prompts * (1 + 12 * 9) forwards, int(0.6 * 9) = 5 trained."""
    found = plan(load_config(), references=2)
    assert (found.tokens.target, found.tokens.references, found.tokens.text) == (16, 2 * 16, 12)
    assert (found.work.sampling_forwards, found.work.pairs) == (654, 360)
    assert not any("assumed" in note for note in found.notes)
    assert None not in found.parameters.values()


def test_the_text() -> None:
    text = render(plan(paper(), gpus=8))
    for piece in ("8 x a100-80gb", "11,901,408,320", "956,301,312", "activations, checkpointing full", " h.", "Fits"):
        assert piece in text
    assert max(map(len, text.splitlines())) < 200
    assert re.fullmatch(r"Fits: 72\.\d of 80 GiB\. \d+\.\d h\.", text.splitlines()[0])


def test_so_little_work_is_bound_by_latency() -> None:
    text = render(plan(load_config(), references=2))
    assert "bound by latency" in text and " ms" not in text


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("RTX 4090", "rtx-4090-24gb"),
        ("rtx4090", "rtx-4090-24gb"),
        ("4090", "rtx-4090-24gb"),
        ("NVIDIA GeForce RTX 3090", "rtx-3090-24gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("A100 80 GB", "a100-80gb"),
        ("H200", "h200-141gb"),
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("l40s", "l40s-48gb"),
    ],
)
def test_gpus_go_by_the_names_that_people_give_them(name: str, key: str) -> None:
    assert known_gpu(name) == GPUS[key]


@pytest.mark.parametrize("name", ["", "l40", "90", "abacus", "H100 NVL"])
def test_other_gpus_are_not_taken_for_one(name: str) -> None:
    assert known_gpu(name) is None


def test_a_name_of_several_gpus() -> None:
    with pytest.raises(UserError, match="a100-40gb or a100-80gb"):
        known_gpu("NVIDIA A100")


def test_as_json() -> None:
    found = plan(paper(), gpus=8)
    table = json.loads(json.dumps(found.as_dict()))
    assert table["seconds_per_iteration"] == found.seconds
    assert table["memory"]["peak"] == found.memory.peak
    assert table["memory"]["phase_totals"]["step"] == total(found.memory.phases["step"])


@pytest.mark.parametrize(
    ("settings", "arguments", "says"),
    [
        ((), {"gpu": "abacus"}, "no GPU 'abacus': give one of a100-40gb"),
        ((), {"gpu": "cpu", "tflops": 1.0}, "no GPU 'cpu'"),
        ((), {"tflops": -1.0}, "above 0"),
        ((), {"utilisation": 1.5}, "utilisation 1.5"),
        ((), {"gpus": 0}, "at least 1 GPU"),
        ((), {"gpus": 3}, "training.prompts_per_iteration (8)"),
        ((), {"gpus": 64}, "--set training.prompts_per_iteration=64"),
        (("method=sft", "supervised.batch=9"), {"gpus": 2}, "supervised.batch (9)"),
        (("policy.height=500",), {}, "multiples of 16"),
    ],
)
def test_mistakes(settings: tuple[str, ...], arguments: dict, says: str) -> None:
    with pytest.raises(UserError) as caught:
        plan(paper(*settings), **arguments)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_gpu_of_your_own() -> None:
    found = plan(paper(), gpu="cpu", gpus=8, tflops=2.0, memory=512)
    assert (found.gpu.name, found.gpu.tflops, found.gpu.memory) == ("cpu", 2.0, 512)
    assert plan(paper(), gpu="a100-80gb", gpus=8, tflops=250).gpu.memory == GPUS["a100-80gb"].memory


def test_broken_folders(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    with pytest.raises(UserError, match=r"transformer/config\.json"):
        plan(paper(f"policy.path={tmp_path}"))
    with pytest.raises(UserError, match=r"config\.json"):
        plan(paper(f"rewards.identity.path={tmp_path}"))


def klein(*settings: str) -> Config:
    return load_config("klein", settings)


def test_klein_by_hand() -> None:
    """8 prompts x (1 + 12 x 9) forwards, each two; int(0.6 * 9) = 5 pairs a sample; (512 / 16)^2 = 1,024."""
    found = plan(klein())
    assert (found.tokens.target, found.tokens.references, found.tokens.text) == (1024, 1024, 512)
    assert (found.work.sampling_forwards, found.work.pairs, found.work.updates) == (2 * 8 * 109, 480, 3)
    assert list(found.parameters)[:3] == ["transformer", "qwen text encoder", "autoencoder"]
    # Rank 64: q, k, v, the output in both streams of 5 blocks; the two layers of 20, 3 + 2 * 3 and 1 + 3 widths.
    assert found.trained == 64 * 3072 * (5 * 2 * 4 * 2 + 20 * ((1 + 9) + (4 + 1)))
    assert "FLUX.2-klein-base-4B are assumed" in found.notes[0]


def test_what_guidance_by_a_negative_prompt_costs() -> None:
    without, both, one = (
        plan(klein(f"policy.guidance={scale}", f"policy.guidance_gradient={gradient}"))
        for scale, gradient in ((1, "both"), (4, "both"), (4, "conditional"))
    )

    def parts(found: Plan, name: str) -> float:
        return found.work.operations[name]

    for name in ("sampling", "training, forward", "reference policy (kl)"):
        assert parts(both, name) == parts(one, name) == 2 * parts(without, name)
    for name in ("training, backward", "training, computed again"):
        assert parts(both, name) == 2 * parts(without, name) and parts(one, name) == parts(without, name)
    assert parts(both, "text encoders") == 9 / 8 * parts(without, "text encoders")  # the negative prompt, too
    notes = [
        next(note for note in plan(klein("guard.source=x", *settings)).notes if "guard's time" in note)
        for settings in (["policy.guidance=1"], ["policy.guidance=1", "policy.evaluation_guidance=4"], [])
    ]
    assert ["64 x 10 f" in notes[0], "64 x 20 f" in notes[1], "64 x 20 f" in notes[2]] == [True] * 3
    kept = [found.memory.backward["full"] for found in (without, both, one)]
    assert kept[1] > 1.5 * kept[0] and kept[2] == kept[0]
    drawn = [total(found.memory.phases["sample"]) for found in (without, both, one)]
    assert drawn[1] > 1.5 * drawn[0] and drawn[2] == drawn[0]


@pytest.mark.parametrize("gpu", ["rtx-4090-24gb", "rtx-3090-24gb"])
def test_kleins_24_gb_recipe_fits_with_room_for_the_guards_scorers(gpu: str) -> None:
    found = plan(load_config("klein-24gb"), gpu=gpu)
    assert found.fits and found.memory.peak < 22 * 2**30


# Figures that GPUs left, and what the plan makes of them


MEASURED = measured.measured_gpus()
ONE_PROMPT = load_config("uno-dinoseg-hpsv3", ["training.prompts_per_iteration=1"])


def test_a_gpu_was_measured() -> None:
    assert "h100-80gb" in MEASURED


@pytest.mark.parametrize("gpu", MEASURED)
def test_no_step_beats_the_gpu(gpu: str) -> None:
    """A share above the large product's own would mean wrong operations or a wrong clock."""
    ceiling = measured.rows(gpu, "chip", "bf16 product")[0]["tflops"] / GPUS[gpu].tflops
    steps = measured.rows(gpu, "flux", "rollout step") + measured.rows(gpu, "flux", "replay step")
    assert len(steps) > 5
    assert all(0.05 < measured.share(gpu, row) < ceiling for row in steps)


@pytest.mark.parametrize("gpu", MEASURED)
def test_the_plans_memory_is_the_measured_peak(gpu: str) -> None:
    """Base, adapter, gradients and one micro-batch: within 10 %, as on the CPU. No optimizer or rewards there."""
    for row in measured.rows(gpu, "flux", "replay step"):
        settings = [f"policy.checkpointing={row['checkpointing']}", f"training.micro_batch={row['micro_batch']}"]
        memory = plan(override(ONE_PROMPT, settings), gpu=gpu).memory
        model = sum(part.size or 0 for part in memory.always if part.name in ("transformer", "adapter"))
        assert (model + total(memory.phases["update"])) / GIB == pytest.approx(row["peak_gib"], rel=0.1), row


def test_hours_come_from_the_gpu_where_it_was_measured() -> None:
    told = plan(ONE_PROMPT, gpu="h100-80gb")
    assert told.measured and not plan(ONE_PROMPT, gpu="a100-80gb").measured
    assert plan(ONE_PROMPT, gpu="a100-80gb").utilisation == 0.4
    assert plan(ONE_PROMPT, gpu="h100-80gb", utilisation=0.5).utilisation == 0.5
    rollout = next(row for row in measured.rows("h100-80gb", "flux", "rollout step") if row["batch"] == 12)
    replay = measured.rows("h100-80gb", "flux", "replay step")
    used = next(row for row in replay if (row["micro_batch"], row["checkpointing"]) == (4, "full"))
    by_hand = 289 * rollout["seconds"] / 12 + told.work.passes * used["seconds"] / 4
    other = sum(n for part, n in told.work.operations.items() if part.split(",")[0] not in ("sampling", "training"))
    assert told.seconds == pytest.approx(by_hand + other / (989e12 * 0.4), rel=1e-6)


# What the documentation says


def test_commands_that_cost_nothing_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans: arithmetic."""
    monkeypatch.chdir(tmp_path)
    pages = [DOCS / "guides" / name for name in ("own-photos.md", "reproduce.md")]
    told = {tuple(words) for page in pages for words in commands(page.read_text(encoding="utf-8"))}
    cheap = sorted(words for words in told if words[0] == "plan")
    assert len(cheap) == 2
    for words in cheap:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            assert main(list(words)) == 0, words
        assert said.getvalue()


ONE_GPU = ["data.cache=encoded", "guard.source=heldout.json"]
AT_ONCE = ["policy.offload=true", "policy.checkpointing=off", "training.micro_batch=1"]  # as in runs/train.sh
RUNS = {
    "`runs/train.sh klein-24gb 1` (2 prompts an iteration, CLIP for HPSv3)": ("klein-24gb", []),
    "the same, no guidance while training": ("klein-24gb", ["policy.guidance=1", "policy.evaluation_guidance=4"]),
    "`runs/train.sh uno-24gb 1` (UNO in 8 bits, 2 prompts, CLIP for HPSv3)": ("uno-24gb", []),
    "`runs/train.sh uno-24gb-short 1`": ("uno-24gb-short", []),
    "`runs/train.sh klein 1` (8 prompts)": ("klein", AT_ONCE),
    "`runs/train.sh klein 8` (8 prompts)": ("klein", []),
    "recipe `klein-forward` (32 prompts)": ("klein-forward", []),
    "`runs/train.sh uno-dinoseg-hpsv3 1` (UNO, 8 prompts)": ("uno-dinoseg-hpsv3", AT_ONCE),
    "`runs/train.sh uno-dinoseg-hpsv3 8` (UNO, 8 prompts)": ("uno-dinoseg-hpsv3", []),
}
SHOWN_GPUS = [("rtx-3090-24gb", 1), ("rtx-4090-24gb", 1), ("h100-80gb", 1), ("a100-80gb", 8), ("h100-80gb", 8)]


def test_hours_and_memory_are_the_plans() -> None:
    """docs/guides/hardware.md's table by its columns, and the hours of one card in docs/guides/own-photos.md."""
    hardware, photos = ((DOCS / "guides" / name).read_text() for name in ("hardware.md", "own-photos.md"))
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in hardware.splitlines() if "GiB |" in line]
    assert [row[0] for row in table] == list(RUNS)
    for name, iterations, peak, *hours in table:
        recipe, settings = RUNS[name]
        cfg = load_config(recipe, [*ONE_GPU, *settings])
        found = [plan(cfg, gpu=gpu, gpus=count) for told, (gpu, count) in zip(hours, SHOWN_GPUS, strict=True) if told]
        assert found and all(each.fits for each in found), name
        assert iterations == f"{cfg.training.iterations:,}", name
        assert [f"{each.hours:.0f} h" for each in found] == [told for told in hours if told], name
        assert peak == f"{max(each.memory.peak for each in found) / 2**30:.1f} GiB", name
        rows = [line for line in photos.splitlines() if f"`{recipe}`" in line and "hours |" in line]
        if rows and not settings:
            for each in found[:2]:  # a 3090, a 4090
                assert any(re.search(rf"\b{each.hours:.0f}\b", row) and peak in row for row in rows), (name, each.hours)


def test_checkpoints_are_as_large_as_told() -> None:
    """Adapter and both moments of AdamW, four bytes each."""
    told = " ".join((DOCS / "guides" / "hardware.md").read_text().split())
    sizes = {"uno-dinoseg-hpsv3": "at rank 512", "klein-24gb": "for `klein-24gb`", "uno-24gb": "for `uno-24gb`"}
    for recipe, words in sizes.items():
        assert f"{3 * 4 * plan(load_config(recipe), gpu='a100-80gb').trained / 2**30:.1f} GiB {words}" in told, recipe


def test_the_plan_shown_is_what_the_command_prints() -> None:
    (shown,) = [text for _, text in blocks((DOCS / "guides" / "hardware.md").read_text()) if text.startswith("Fits:")]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["plan", "uno-dinoseg-hpsv3", "--gpus", "8", "--set", "data.cache=encoded"]) == 0
    assert said.getvalue().startswith(shown)
