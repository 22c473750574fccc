"""A plan as text."""

from __future__ import annotations

from cgrpo.plan.estimate import Plan
from cgrpo.plan.memory import GIB, Part, total

_INDENT = "  "


def render(plan: Plan) -> str:
    """The plan as a table that a person reads from top to bottom."""
    blocks = [_verdict(plan), _heading(plan), _parameters(plan), _work(plan), _memory(plan)]
    latency = "so little work is bound by latency, which operations don't tell: time one iteration of cgrpo train"
    notes = (latency, *plan.notes) if plan.latency_bound else plan.notes
    blocks.append(["Notes", *(f"{_INDENT}- {note}" for note in notes)])
    return "\n\n".join("\n".join(lines) for lines in blocks)


def _heading(plan: Plan) -> list[str]:
    tokens, gpu = plan.tokens, plan.gpu
    return [
        f"{plan.method}, {plan.iterations:,} iterations, on {plan.gpus} x {gpu.name} ({gpu.tflops:g} TFLOP/s, "
        f"{gpu.memory:g} GiB each)",
        f"{tokens.all:,} tokens a sample: {tokens.target:,} picture, {tokens.references:,} references, "
        f"{tokens.text:,} text",
    ]


def _parameters(plan: Plan) -> list[str]:
    rows = [(name, _count(number)) for name, number in plan.parameters.items()]
    return ["Parameters", *_rows([*rows, ("trained (adapter)", _count(plan.trained))])]


def _work(plan: Plan) -> list[str]:
    work = plan.work
    rows = [("forwards to sample", f"{work.sampling_forwards:,}")] if work.sampling_forwards else []
    rows += [
        ("forward-backwards", f"{work.passes:,.0f}"),
        ("optimizer steps", f"{work.updates:,}"),
        *((name, _operations(number)) for name, number in work.operations.items()),
        ("total", _operations(work.total)),
    ]
    if not plan.latency_bound:
        source = "measured" if plan.measured else "assumed"
        own = plan.seconds - plan.scale.seconds
        rows.append((f"time at {plan.utilisation:.0%} utilisation ({source})", _duration(own)))
        parts = {"gradients' exchange": plan.scale.gradients, "blocks' gathers, not hidden": plan.scale.gathers}
        parts |= {"waiting for the slowest GPU": plan.scale.waiting}
        rows += [(f"+ {name}", _duration(seconds)) for name, seconds in parts.items() if seconds]
        rows.append(("samples per GPU-hour", f"{plan.samples_per_gpu_hour:,.0f}"))
    return ["One iteration, per GPU", *_rows(rows)]


def _memory(plan: Plan) -> list[str]:
    memory = plan.memory
    rows = [("always there", _size(memory.resident)), *_parts(memory.always)]
    for name, parts in memory.phases.items():
        if total(parts):
            rows.append((f"+ {name}{', the largest' if name == memory.busiest else ''}", _size(total(parts))))
            rows += _parts(parts)
    rows += [("+ reserve", _size(memory.reserve)), ("= peak, in the largest phase", _size(memory.peak))]
    modes = ", ".join(f"{mode} {_size(size)}" for mode, size in memory.backward.items())
    return ["Memory, per GPU", *_rows(rows), f"{_INDENT}update by checkpointing: {modes}"]


def _verdict(plan: Plan) -> list[str]:
    """Whether it fits, and how long it takes: "Fits: 73.6 of 80 GiB. 98.8 h." """
    share = f"{plan.memory.peak / GIB:.1f} of {plan.gpu.memory:g} GiB"
    time = "Hours: see the notes" if plan.latency_bound else _duration(plan.hours * 3600)
    if plan.fits:
        unknown = f", beside {len(plan.memory.unknown)} of unknown size" if plan.memory.unknown else ""
        return [f"Fits: {share}{unknown}. {time}."]
    cure = "It would with " + " ".join(f"--set {setting}" for setting in plan.advice or ()) + "."
    if plan.advice is None:
        cure = (
            "No setting that keeps the result makes it fit: try policy.dtype=bfloat16, policy.quantise=int8, a lower "
            "policy.rank, smaller pictures, rewards elsewhere, or GPUs with more memory."
        )
    return [f"Does not fit: {share}. {time}.", cure]


def _rows(rows: list[tuple[str, str]]) -> list[str]:
    width, right = max(len(name) for name, _ in rows), max(len(value) for _, value in rows)
    return [f"{_INDENT}{name:<{width}}  {value:>{right}}" for name, value in rows]


def _parts(parts: tuple[Part, ...]) -> list[tuple[str, str]]:
    return [(f"{_INDENT}{part.name}", _size(part.size)) for part in parts if part.size != 0]


def _size(size: int | None) -> str:
    if size is None:
        return "unknown"
    return f"{size / GIB:.2f} GiB" if size >= GIB / 100 else f"{size / 2**20:.2f} MiB"


def _count(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"


def _operations(number: float) -> str:
    for unit, scale in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9)):
        if number >= scale:
            return f"{number / scale:.2f} {unit}"
    return f"{number / 1e9:.2f} GFLOP"


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
