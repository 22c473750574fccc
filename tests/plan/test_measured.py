"""Figures that GPUs left, and what the plan makes of them."""

from __future__ import annotations

import pytest

from cgrpo.config import load_config, override
from cgrpo.plan import measured, plan
from cgrpo.plan.memory import GIB, total

GPUS = measured.measured_gpus()
PAPER = override(load_config("uno-dinoseg-hpsv3"), ["training.prompts_per_iteration=1"])


def test_a_card_was_measured() -> None:
    assert "h100-80gb" in GPUS


@pytest.mark.parametrize("gpu", GPUS)
def test_no_step_beats_the_card(gpu: str) -> None:
    """A share above the large product's own would mean wrong operations or a wrong clock."""
    ceiling = measured.rows(gpu, "chip", "bf16 product")[0]["tflops"] / measured.GPUS[gpu].tflops
    steps = measured.rows(gpu, "flux", "rollout step") + measured.rows(gpu, "flux", "replay step")
    assert len(steps) > 5
    assert all(0.05 < measured.share(gpu, row) < ceiling for row in steps)


@pytest.mark.parametrize("gpu", GPUS)
def test_the_plans_memory_is_the_measured_peak(gpu: str) -> None:
    """Base, adapter, gradients and one micro-batch: within 10 %, as on the CPU. No optimizer or rewards there."""
    for row in measured.rows(gpu, "flux", "replay step"):
        settings = [f"policy.checkpointing={row['checkpointing']}", f"training.micro_batch={row['micro_batch']}"]
        memory = plan(override(PAPER, settings), gpu=gpu).memory
        model = sum(part.size or 0 for part in memory.always if part.name in ("transformer", "adapter"))
        assert (model + total(memory.phases["update"])) / GIB == pytest.approx(row["peak_gib"], rel=0.1), row


def test_hours_come_from_the_card_where_it_was_measured() -> None:
    told = plan(PAPER, gpu="h100-80gb")
    assert told.measured and not plan(PAPER, gpu="a100-80gb").measured
    assert plan(PAPER, gpu="a100-80gb").utilisation == 0.4
    assert plan(PAPER, gpu="h100-80gb", utilisation=0.5).utilisation == 0.5
    rollout = next(row for row in measured.rows("h100-80gb", "flux", "rollout step") if row["batch"] == 12)
    replay = measured.rows("h100-80gb", "flux", "replay step")
    used = next(row for row in replay if (row["micro_batch"], row["checkpointing"]) == (4, "full"))
    by_hand = 25 * rollout["seconds"] + 168 * used["seconds"] / 4
    other = sum(n for part, n in told.work.operations.items() if part.split(",")[0] not in ("sampling", "training"))
    assert told.seconds == pytest.approx(by_hand + other / (989e12 * 0.4), rel=1e-6)
