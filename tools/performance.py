"""docs/notes/performance.md from the GPUs' figures (src/cgrpo/plan/figures) and the plan. Called by generate.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cgrpo.config import load_config, override
from cgrpo.plan import measured, plan
from cgrpo.plan.gpus import GPUS

HERE = Path(__file__).parent
Row = dict[str, Any]


def page() -> str:
    """The page's text."""
    parts = [part(gpu) for gpu in measured.measured_gpus() for part in (_machine, _steps, _iteration, _rest)]
    template = (HERE / "performance.template.md").read_text(encoding="utf-8")
    return template.replace("{figures}", "\n".join(parts) or "Nothing was measured yet.\n").replace("{scale}", _scale())


def _scale() -> str:
    rows = []
    for gpu, parallel in (("h100-80gb", "ddp"), ("l40s-48gb", "fsdp2")):
        for gpus in (8, 64, 512):
            settings = ["data.cache=encoded", f"training.parallel={parallel}"]
            settings.append(f"training.prompts_per_iteration={gpus}")
            told = plan(load_config(measured.RECIPE, settings), gpu=gpu, gpus=gpus)
            seconds = (told.seconds, told.scale.gradients, told.scale.gathers, told.scale.waiting)
            rate = f"{told.samples_per_gpu_hour:.0f}"
            rows.append([f"{gpus} x {gpu}, {parallel}", *(f"{value:.1f}" for value in seconds), rate])
    head = ["GPUs", "seconds per iteration", "gradients", "gathers", "waiting", "samples per GPU-hour"]
    return table(head, rows).rstrip("\n")


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def _machine(gpu: str) -> str:
    (machine,) = measured.rows(gpu, "chip", "machine")
    (product,) = measured.rows(gpu, "chip", "bf16 product")
    (copy,) = measured.rows(gpu, "chip", "copy")
    packages = ", ".join(f"{name} {machine[name]}" for name in ("torch", "diffusers", "transformers", "peft"))
    return (
        f"## {machine['device']}\n\nOne GPU of {machine['memory_gib']:.1f} GiB, {machine['date']}; Python "
        f"{machine['python']}, {packages}, CUDA {machine['cuda']}.\nA bf16 product of two {product['size']:,}-square "
        f"matrices runs at {product['tflops']:.0f} TFLOP/s (data sheet: {GPUS[gpu].tflops:g}), a copy moves "
        f"{copy['tb_per_second']:.2f} TB/s.\n"
    )


def _peak(gpu: str) -> float:
    return measured.rows(gpu, "chip", "bf16 product")[0]["tflops"] * 1e12


def _step(gpu: str, row: Row, size: int) -> list[str]:
    if "out_of_memory" in row:
        return ["out of memory", "", "", ""]
    rate = measured.operations(row) / row["seconds"]
    shown = [f"{row['seconds']:.3f}", f"{row['seconds'] / size:.3f}", f"{rate / _peak(gpu):.0%}"]
    return [*shown, f"{row['peak_gib']:.1f}"]


def _steps(gpu: str) -> str:
    kinds = {"flux": "", "int8": "int8 base", "compiled": "compiled", "attention": "attention by "}
    found = [row for row in measured.figures(gpu) if row["stage"] in kinds]
    head = ["seconds", "a sample", "share of peak", "peak GiB", ""]
    rollout = [
        [str(row["batch"]), *_step(gpu, row, row["batch"]), kinds[row["stage"]] + row.get("attention", "")]
        for row in found
        if row.get("figure") == "rollout step"
    ]
    replay = [
        [
            f"{row['micro_batch']}, {row['checkpointing']}",
            *_step(gpu, row, row["micro_batch"]),
            kinds[row["stage"]] + row.get("attention", ""),
        ]
        for row in found
        if row.get("figure") == "replay step"
    ]
    done = {row["stage"] for row in found if "figure" in row}
    missing = "".join(
        f"{name}: not measured.\n"
        for name, stage in {"torch.compile": "compiled", "Attention by other ways": "attention"}.items()
        if stage not in done
    )
    return "\n".join(
        [
            "A step of the rollout (a forward without gradients), by samples in the batch:\n",
            table(["batch", *head], rollout),
            "A step of the replay (forward and backward of the micro-batch), by checkpointing. The peak holds base, "
            "adapter\n"
            "and its gradients; AdamW's moments add 7.1 GiB:\n",
            table(["micro-batch", *head], replay),
            missing,
        ]
    )


def _iteration(gpu: str) -> str:
    (short,) = measured.rows(gpu, "flux", "iteration")
    whole = measured.rows(gpu, "whole", "iteration")
    steps = {row["batch"]: row["seconds"] for row in measured.rows(gpu, "flux", "rollout step")}
    replays = measured.rows(gpu, "flux", "replay step")
    (optimizer,) = measured.rows(gpu, "flux", "optimizer step")
    pairs = short["group"] * int(0.6 * (short["steps"] - 1))
    used = next(
        row
        for row in replays
        if (row["checkpointing"], row["micro_batch"]) == (short["checkpointing"], short["micro_batch"])
    )
    bare = short["steps"] * steps[12] + pairs * used["seconds"] / used["micro_batch"] + 3 * optimizer["seconds"]
    lines = [
        f"One iteration of the trainer itself at T = {short['steps']} ({pairs} trained pairs, 3 optimizer steps; "
        f"decoding\n"
        f"and rewards left out): {short['seconds_total']:.1f} s, of them {short['seconds_sample']:.1f} sampling; the "
        f"bare "
        f"model's own steps add up to {bare:.1f} s,\nso the trainer takes {short['seconds_total'] / bare:.2f} times "
        f"the "
        f"bare model's time. Ratio drift before the first update: {short['drift']:.1g}.\n",
        "The paper's iteration (G = 12, T = 25, 60 % trained: 300 forwards, 168 forward-backwards a GPU), by these\n"
        "parts, without what a group shares; "
        '"by plan" with the paper\'s rewards, with prompts encoded beforehand:\n',
    ]
    rows = []
    for row in replays:
        update = 168 * row["seconds"] / row["micro_batch"] + 3 * optimizer["seconds"]
        settings = [
            "data.cache=encoded",
            f"policy.checkpointing={row['checkpointing']}",
            f"training.micro_batch={row['micro_batch']}",
        ]
        told = plan(override(load_config(measured.RECIPE), settings), gpu=gpu, gpus=8)
        room = "" if told.fits else "does not fit with the rewards, by plan"
        mode = f"{row['checkpointing']}, {row['micro_batch']}"
        rows.append([mode, f"{25 * steps[12]:.1f}", f"{update:.1f}", f"{25 * steps[12] + update:.1f}", room])
    lines.append(table(["checkpointing, micro-batch", "sampling s", "update s", "together s", ""], rows))
    if whole:
        lines.append(f"Measured whole: {whole[0]['seconds_total']:.1f} s.\n")
    else:
        lines.append("Not measured whole at T = 25.\n")
    scored = {
        row["figure"]: row["seconds"] for row in measured.figures(gpu) if row["stage"] == "rewards" and "figure" in row
    }
    if scored:
        lines.append("The rewards of 12 pictures of 512 x 512, at published sizes with random weights:\n")
        lines.append(table(["", "seconds"], [[name, f"{seconds:.2f}"] for name, seconds in scored.items()]))
    told = plan(load_config(measured.RECIPE), gpu="a100-80gb", gpus=8)
    lines.append(
        f"The paper says 311.8 s an iteration on A100s (291.3 for naive GRPO); `cgrpo plan`, at its assumed 40 % of "
        f"an\n"
        f"A100's data sheet, says {told.seconds:.0f} s, rewards and decoding included.\n"
    )
    return "\n".join(lines)


def _rest(gpu: str) -> str:
    lines = []
    for row in measured.rows(gpu, "toybox", "toybox"):
        change = {name: numbers for name, numbers in row["change"].items() if name.endswith("readback")}
        gains = ", ".join(f"{name} {d:+.3f} [{low:+.3f}, {high:+.3f}]" for name, (d, low, high) in change.items())
        lines.append(
            f"**The toy world's `cgrpo train`** ({row['iterations']} iterations): {row['seconds']:.0f} s for the "
            f"whole "
            f"command,\n{row['seconds_total']:.2f} s an iteration; held-out judges {gains}.\n"
        )
    exact = {row["figure"]: row for row in measured.figures(gpu) if row["stage"] == "exact" and "figure" in row}
    if exact:
        lines.append(
            "**Exactness**, 3 iterations of the toy world, largest difference between adapters (largest entry "
            f"{exact['repeated run']['largest_entry']:.2f});\nrewards and the guard's scorers draw from the GPU's "
            f"random "
            "state:\n"
        )
        rows = [
            [name, f"{row['largest_difference']:.2g}", "equal" if row["random_rewards_alike"] else "differ"]
            for name, row in exact.items()
        ]
        lines.append(table(["against the first run", "adapter", "random rewards"], rows))
    groups = [row for row in measured.figures(gpu) if row["stage"] == "processes" and "figure" in row]
    for row in groups:
        if "backend" in row:
            lines.append(
                f"A base sharded by FSDP2 over one process ({row['backend']}) gives the whole one's gradients to "
                f"{row['largest_difference']:.1g} of {row['largest_gradient']:.2f}."
            )
        else:
            lines.append(f"`torchrun --nproc_per_node 1` starts and trains two iterations ({row['seconds']:.0f} s).")
    return "\n".join([*lines, ""])
