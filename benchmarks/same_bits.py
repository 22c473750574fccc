"""Do two checkouts compute the same, to the last bit?

    python benchmarks/same_bits.py BEFORE AFTER [--only WORD ...] [--keep DIR]

Runs about thirty cases of the command line in both checkouts: every toy recipe for two iterations, each method, noise
kinds and windows, two processes, FSDP2, the guard, a resumed run, sampled pictures, an evaluation, a comparison,
adapters, analyses, and FLUX.2-klein and Kontext on tiny checkpoints. It then compares all files that they left: tensors
and pictures byte by byte, JSON value by value. Times, paths and pages are left out. Prints a line per case, then each
difference with its size. Exit code 1 if there is any. --keep DIR keeps the files; cases of BEFORE that are there are
not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # tiny checkpoints

SHORT = (
    "training.iterations=2 training.checkpoint_every=1 evaluation.subjects=2 evaluation.prompts_per_subject=2 "
    "guard.every=1 guard.tasks=4 logging.tracker=none"
)
GROUPS = "training.prompts_per_iteration=2 training.group_size=4 training.micro_batch=7"
QUIET = "evaluation.enabled=false guard.every=0"
TOY = [
    "toybox", "naive", "sars-only", "tdw-only", "inverted", "prompt-only", "identity-only", "rival-apex", "rival-focal",
    "rival-gdpo", "rival-raw-sum", "rival-tempflow", "forward", "forward-naive",
]  # fmt: skip
TINY = (
    "policy.height=32 policy.width=32 policy.reference_size=32 policy.rank=4 policy.dtype=float32 sampling.steps=4 "
    "data.source={world}/train.json rewards.identity.path={world}/dinov2 rewards.identity.detector={world}/detector "
    "rewards.identity.segmenter={world}/sam training.learning_rate=0.01 training.prompts_per_iteration=2 "
    "training.group_size=4 training.updates_per_rollout=2 training.iterations=2 logging.tracker=none"
)
HPSV3 = (
    "rewards.prompt.path={world}/hpsv3/HPSv3.safetensors rewards.prompt.backbone={world}/hpsv3/backbone "
    "rewards.prompt.template={world}/hpsv3/template.txt"
)
FIRST = "training.iterations=1 training.schedule=constant"
LEFT_OUT = {"tracker", "environment.json", "materials.json", "speed.json"}
TIMES = re.compile(r"second|time|created|date|memory|fingerprint|digest|mark|cgrpo")


def train(recipe: str, *settings: str, out: str = "run", words: str = "") -> str:
    given = " ".join(f"--set {setting}" for text in settings for setting in text.split())
    return f"train {recipe} {given} --out {out} {words}".strip()


def cases() -> dict[str, list[str]]:
    """The command lines of each case, "2x" in front of one for two processes."""
    sample = "sample run --reference {world}/0.png --prompt 'a red ball on a beach' --seeds 2 --steps 4 --out pictures"
    evaluate = "evaluate toybox {} --subjects 2 --prompts 2 --seeds 1 --out scores"
    two = train("toybox", SHORT, GROUPS, QUIET)
    kinds = {
        "cps": "sampling.kind=cps", "flow-grpo": "sampling.kind=flow-grpo sampling.noise_level=0.7",
        "sliding window": "sampling.window.type=sliding sampling.window.size=2",
    }  # fmt: skip
    found = {recipe: [train(recipe, SHORT, GROUPS)] for recipe in TOY}
    found |= {name: [train("toybox", SHORT, GROUPS, QUIET, more)] for name, more in kinds.items()}
    found |= {
        "sft": [train("sft", SHORT, "supervised.batch=8")],
        "rpo": [train("rpo", SHORT, "preference.tasks=4 preference.candidates=3 preference.batch=2")],
        "awm": [train("forward", SHORT, GROUPS, QUIET, "objective.loss=awm")],
        "old policy": [train("forward", SHORT, GROUPS, QUIET, "objective.old=0.5 training.average=0.9")],
        "two processes": [f"2x {two}"],
        "fsdp2": [f"2x {train('toybox', SHORT, GROUPS, QUIET, 'training.parallel=fsdp2')}"],
        "resume": [train("toybox", SHORT, GROUPS, FIRST), "train --resume run --set training.iterations=3"],
        "pictures": [two, sample, evaluate.format("run"), evaluate.format(""), "evaluate compare scores --out page"],
        "adapters": [
            two, "adapter inspect run/adapter", "adapter convert run/adapter --to comfyui --out comfyui.safetensors",
            "adapter merge run/adapter --out merged", "adapter blend run/adapter run/adapter=0.7 --out blended",
        ],
        "conflict": ["analyze conflict --set training.group_size=4 --groups 4 --out analysis"],
        "shaping": ["analyze shaping --set training.group_size=4 --groups 4 --out analysis"],
        "klein": [train("klein", "policy.path={world}/klein", TINY, HPSV3)],
        "kontext": [train("kontext", "policy.path={world}/flux", TINY, HPSV3)],
        "uno": [train("uno-dinoseg-hpsv3", "policy.path={world}/flux policy.start=", TINY, HPSV3)],
        "klein forward": [train("klein-forward", "policy.path={world}/klein sampling.rollout_steps=2", TINY, HPSV3)],
    }  # fmt: skip
    return found


def build_world(folder: Path) -> None:
    """Tiny random checkpoints in the published layouts, and a data set of three tasks."""
    from PIL import Image
    from support import tiny_flux, tiny_flux2, tiny_rewards

    tiny_flux.build_folder(folder / "flux")
    tiny_flux2.build_folder(folder / "klein")
    tiny_rewards.build_dinov2(folder / "dinov2")
    tiny_rewards.build_grounding_dino(folder / "detector")
    tiny_rewards.build_sam(folder / "sam")
    tiny_rewards.build_hpsv3(folder / "hpsv3")
    rows = []
    for number, size in enumerate([(40, 40), (40, 20), (24, 48)]):
        Image.effect_noise(size, 80).convert("RGB").save(folder / f"{number}.png")
        rows.append({"prompt": f"a red cube {number}", "references": [f"{number}.png"], "subject": "cube"})
    (folder / "train.json").write_text(json.dumps(rows))


def run(checkout: Path, commands: list[str], folder: Path, world: Path) -> str:
    """Run a case in ``folder``; returns the end of what went wrong, "" if nothing did."""
    settings = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    env = os.environ | settings | {"PYTHONPATH": str(checkout / "src")}
    for command in commands:
        several = command.startswith("2x ")
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"] if several else []
        words = command.removeprefix("2x ").replace("{world}", str(world))
        split = [word.replace("\0", " ") for word in re.sub(r"'([^']*)'", _joined, words).split()]
        done = subprocess.run(
            [sys.executable, *launcher, "-m", "cgrpo", *split], cwd=folder, env=env, capture_output=True, text=True
        )
        if done.returncode:
            return f"{command[:60]}: exit {done.returncode}: {(done.stderr or done.stdout)[-400:]}"
    return ""


def _joined(found: re.Match[str]) -> str:
    return found[1].replace(" ", "\0")


def differences(before: Path, after: Path) -> tuple[int, list[str]]:
    """How many files are the same, and a line for each that is not."""
    names = sorted({p.relative_to(root) for root in (before, after) for p in root.rglob("*") if p.is_file()})
    same, lines = 0, []
    for name in names:
        if LEFT_OUT & set(name.parts) or name.suffix in (".html", ".txt", ".log"):
            continue
        if not (before / name).exists() or not (after / name).exists():
            lines.append(f"{name}: only {'after' if (after / name).exists() else 'before'}")
        elif line := _difference(before / name, after / name):
            lines.append(f"{name}: {line}")
        else:
            same += 1
    return same, lines


def _difference(before: Path, after: Path) -> str:
    if before.read_bytes() == after.read_bytes():
        return ""
    if before.suffix == ".safetensors":
        return _numbers(dict(_tensors(before)), dict(_tensors(after)))
    if before.suffix in (".json", ".jsonl"):
        return _numbers(dict(_values(before)), dict(_values(after)))
    return "other bytes"


def _numbers(before: dict[str, Any], after: dict[str, Any]) -> str:
    lines = [f"only before: {key}" for key in before.keys() - after.keys()]
    lines += [f"only after: {key}" for key in after.keys() - before.keys()]
    for key in before.keys() & after.keys():
        one, other = before[key], after[key]
        if isinstance(one, float | int) and isinstance(other, float | int):
            if one != other and not (one != one and other != other):
                lines.append(f"{key} by {abs(one - other):.1e}")
        elif isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and one.shape == other.shape:
            if one.tobytes() != other.tobytes():
                lines.append(f"{key} by {abs(one.astype('f8') - other.astype('f8')).max():.1e}")
        elif one != other:
            lines.append(f"{key}: {str(one)[:60]} / {str(other)[:60]}")
    lines.sort()
    return "; ".join(lines[:6]) + (f" (+{len(lines) - 6} more)" if lines[6:] else "")


def _tensors(path: Path) -> Iterator[tuple[str, Any]]:
    from safetensors.torch import load_file

    for key, value in load_file(path).items():
        yield key, (value.float() if value.is_floating_point() else value).numpy()


def _values(path: Path) -> Iterator[tuple[str, Any]]:
    """The leaves of a JSON file by dotted key, without times and fingerprints."""
    text = path.read_text()
    text = re.sub(r"/[^ \"]*/src/cgrpo/", "", text)  # files of the package
    stack = [("", json.loads(f"[{','.join(text.splitlines())}]" if path.suffix == ".jsonl" else text))]
    while stack:
        key, value = stack.pop()
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
        if items is None:
            yield key, value
        else:
            stack += [(f"{key}.{name}".strip("."), inner) for name, inner in items if not TIMES.search(str(name))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="cases whose name has one of these words")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the files there")
    options = parser.parse_args()
    keep = (options.keep or Path(tempfile.mkdtemp(prefix="same-bits-"))).resolve()
    world = keep / "world"
    if not (world / "train.json").exists():
        world.mkdir(parents=True, exist_ok=True)
        build_world(world)
    chosen = {n: c for n, c in cases().items() if not options.only or any(word in n for word in options.only)}
    files, different = 0, 0
    for name, commands in chosen.items():
        start, broken = time.monotonic(), {}
        for side, checkout in (("before", options.before), ("after", options.after)):
            kept, work = keep / side / name, keep / "work"
            if side == "before" and kept.exists():
                continue
            for old in (kept, work):
                shutil.rmtree(old, ignore_errors=True)
            work.mkdir()
            broken[side] = run(checkout.resolve(), commands, work, world)
            kept.parent.mkdir(exist_ok=True)
            if not broken[side] or side == "after":
                work.rename(kept)
        failed = {side: words for side, words in broken.items() if words}
        same, lines = (
            (0, [f"{s}: {words}" for s, words in failed.items()])
            if failed
            else differences(keep / "before" / name, keep / "after" / name)
        )
        files, different = files + same, different + len(lines)
        print(f"{name}: {same} files the same, {len(lines)} not ({time.monotonic() - start:.0f} s)", flush=True)
        for line in lines:
            print(f"    {line}", flush=True)
    print(f"{len(chosen)} cases, {files} files the same, {different} differences")
    if not options.keep:
        shutil.rmtree(keep)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
