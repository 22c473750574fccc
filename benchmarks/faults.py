"""What a run survives: kills at random moments, full disks, a clock that jumps, NaN, a reward server that dies.

    python benchmarks/faults.py [--kills 20 | --quick] [--only WORD] [--seed 0] [--out DIR]

A line a fault, and a count at the end; exit code 1 if one was not survived. To survive is: what a command left is
whole, it ends in one line and exit code 2 or goes on as documented, and done again it gives what it would have given
undisturbed, byte for byte (times apart). Processes are forked from a warm one, so that a kill costs no imports.
--quick is what CI runs, without kills. Needs Linux; full and read-only disks need the right to mount, and are said to
be left out without it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # several processes share the cores; read when torch is loaded
from support.warm import Started  # noqa: E402 (the tests' processes, killed as these are)

TIMES = ("seconds", "memory")
TINY = [
    "training.iterations=5", "training.checkpoint_every=1", "training.micro_batch=8", "sampling.steps=4",
    "policy.rank=4", "logging.tracker=none", "evaluation.subjects=2", "evaluation.prompts_per_subject=2",
    "rewards.identity.type=faults:brightness", "rewards.prompt.type=faults:redness",
    "guard.every=2", "guard.tasks=4",
]  # fmt: skip
QUICK = ["evaluation.enabled=false", "guard.every=0", "logging.samples_every=100"]
GROUPS = ["training.prompts_per_iteration=2", "training.group_size=4"]
METHODS = {
    "GRPO": ("toybox", GROUPS),
    "forward": ("forward", [*GROUPS, "training.micro_batch=16"]),
    "SFT": ("sft", ["supervised.batch=8"]),
    "RPO": ("rpo", ["preference.tasks=4", "preference.candidates=3", "preference.batch=2"]),
}


def brightness(pictures: Any, batch: Any) -> list[float]:
    return [sum(picture.convert("L").getdata()) / 255 / 1024 for picture in pictures]


def redness(pictures: Any, batch: Any) -> list[float]:
    return [sum(r - b for r, _, b in picture.convert("RGB").getdata()) / 255 / 1024 for picture in pictures]


def moody(pictures: Any, batch: Any) -> list[float]:
    """A reward that can't score every third picture."""
    return [math.nan if n % 3 == 0 else score for n, score in enumerate(brightness(pictures, batch))]


def hopeless(pictures: Any, batch: Any) -> list[float]:
    return [math.nan] * len(pictures)


# -- in the forked process -----------------------------------------------------------------------------


def child(arguments: list[str]) -> int:
    """A fault by name ("" for none), then the command line."""
    from cgrpo.app.main import main

    fault, *words = arguments
    if fault:
        FAULTS[fault]()
    return main(words)


def _velocity_breaks() -> None:
    import torch

    from cgrpo.policies.flux.policy import FluxPolicy

    whole, calls = FluxPolicy.velocity, iter(range(10**9))

    def velocity(self: Any, *given: Any, **named: Any) -> Any:
        made = whole(self, *given, **named)
        sampling = not torch.is_grad_enabled()
        return made * math.nan if sampling and next(calls) == 10 else made

    FluxPolicy.velocity = velocity  # pyright: ignore[reportAttributeAccessIssue]


def _gradient_breaks() -> None:
    from cgrpo.training.grpo import loop as grpo

    whole, calls = grpo.clipped_surrogate, iter(range(10**9))

    def surrogate(*given: Any) -> Any:
        return whole(*given) * (math.nan if next(calls) == 7 else 1.0)

    grpo.clipped_surrogate = surrogate  # pyright: ignore[reportPrivateImportUsage]


def _clock_jumps_back() -> None:
    now, calls = time.time, iter(range(10**9))
    time.time = lambda: now() - 3600.0 * (next(calls) % 7)


FAULTS = {"velocity": _velocity_breaks, "gradient": _gradient_breaks, "clock": _clock_jumps_back}


# -- commands, and what they leave ---------------------------------------------------------------------


def given(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def train(recipe: str, settings: Sequence[str]) -> Callable[[Path], list[str]]:
    """The command to begin a run, or to go on with what is there."""

    def words(out: Path) -> list[str]:
        rows = out / "metrics.jsonl"
        if rows.exists() and rows.stat().st_size:
            return ["train", "--resume", str(out)]
        return ["train", recipe, *given([*TINY, *settings]), "--out", str(out)]

    return words


def left(out: Path) -> dict[str, str]:
    """Every file of a run or a folder by what it holds, times and places apart."""
    found = {}
    for file in sorted(path for path in out.rglob("*") if path.is_file()):
        name = file.relative_to(out).as_posix()
        if file.suffix == ".partial":  # of a move that a kill kept from happening: no reader takes it
            continue
        if "checkpoints/" in name or file.suffix in (".html", ".log") or "events.out" in name:
            continue
        if name in ("environment.json", "materials.json", "speed.json", "summary.json"):
            continue
        content = file.read_bytes()
        if file.name in ("metrics.jsonl", "guard.jsonl"):
            rows = [json.loads(line) for line in content.decode().splitlines()]
            kept = [
                {key: value for key, value in row.items() if not any(word in key for word in TIMES)} for row in rows
            ]
            content = json.dumps(kept).encode()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def differs(one: dict[str, str], other: dict[str, str]) -> str:
    names = [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
    return f"differs from undisturbed: {', '.join(names[:5])}" if names else ""


def refused(done: subprocess.CompletedProcess[str], *words: str) -> str:
    """ "" where a command ended with code 2 and one line that holds ``words``."""
    lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.startswith("cgrpo: ")]
    if done.returncode != 2 or "Traceback" in done.stderr or not lines:
        return f"exit code {done.returncode}: {done.stderr.strip()[-300:]}"
    missing = [word for word in words if word not in lines[-1]]
    return f"{lines[-1]} (without {missing})" if missing else ""


# -- the faults ----------------------------------------------------------------------------------------


def kills(words: Callable[[Path], list[str]], folder: Path, count: int, rng: random.Random, processes: int = 1) -> str:
    """SIGKILL at ``count`` random moments, each time begun again, until done; again from anew while kills are left."""
    began = time.monotonic()
    done = Started(child, ["", *words(folder / "whole")], processes).wait()
    if done.returncode:
        return f"undisturbed it fails: {done.stderr.strip()[-300:]}"
    length, whole, out = time.monotonic() - began, left(folder / "whole"), folder / "killed"
    while count > 0:
        shutil.rmtree(out, ignore_errors=True)
        finished = False
        while not finished:
            started = Started(child, ["", *words(out)], processes)
            until = time.monotonic() + rng.uniform(0, length if count > 0 else 1e9)
            while started.poll() is None and time.monotonic() < until:
                time.sleep(0.005)
            finished = started.poll() is not None
            if finished:
                done = started.wait()
                if done.returncode:
                    return f"begun again it fails: {done.stderr.strip()[-300:]}"
            else:
                started.kill()
                count -= 1
        if found := differs(whole, left(out)):
            return found
    return ""


WHOLE: dict[tuple[str, ...], Path] = {}


def undisturbed(words: Callable[[Path], list[str]], folder: Path) -> Path:
    """A run without a fault, made once for all faults that it is compared with. Raises RuntimeError if it fails."""
    key = tuple(words(Path()))
    if key not in WHOLE:
        done = Started(child, ["", *words(folder / "whole")]).wait()
        if done.returncode:
            raise RuntimeError(f"undisturbed it fails: {done.stderr.strip()[-300:]}")
        WHOLE[key] = folder / "whole"
    return WHOLE[key]


def stopped(fault: str, settings: Sequence[str], says: str) -> Callable[[Path], str]:
    """The run ends in one line, its rows are whole, and without the fault it goes on to what it would have been."""

    def check(folder: Path) -> str:
        words = train("toybox", [*GROUPS, *settings])
        whole = undisturbed(words, folder)
        if said := refused(Started(child, [fault, *words(folder / "run")]).wait(), says):
            return said
        again = Started(child, ["", *words(folder / "run")]).wait()
        return again.stderr[-300:] if again.returncode else differs(left(whole), left(folder / "run"))

    return check


def some_unscored(folder: Path) -> str:
    words = train("toybox", [*GROUPS, "rewards.identity.type=faults:moody"])
    done = Started(child, ["", *words(folder / "run")]).wait()
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    counted = [row.get("reward/identity/failed") for row in rows]
    return "" if done.returncode == 0 and all(counted) else f"exit code {done.returncode}, counted {counted}"


def all_unscored(folder: Path) -> str:
    words = train("toybox", [*GROUPS, "rewards.identity.type=faults:hopeless"])
    return refused(Started(child, ["", *words(folder / "run")]).wait(), "identity")


def clock(folder: Path) -> str:
    words = train("toybox", GROUPS)
    whole, done = undisturbed(words, folder), Started(child, ["clock", *words(folder / "run")]).wait()
    return done.stderr[-300:] if done.returncode else differs(left(whole), left(folder / "run"))


@contextlib.contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A small disk in memory. Raises PermissionError without the right to mount."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        raise PermissionError(mounted.stderr.decode().strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disk(folder: Path) -> str:
    """It ends in one line; what was written is whole; where there is room, it goes on."""
    words = train("toybox", GROUPS)
    with disk(folder / "small", "1500k") as small:
        whole = undisturbed(words, folder)
        if said := refused(Started(child, ["", *words(small / "run")]).wait(), "No space left"):
            return said
        shutil.copytree(small / "run", folder / "run")
    again = Started(child, ["", *words(folder / "run")]).wait()
    return again.stderr[-300:] if again.returncode else differs(left(whole), left(folder / "run"))


def read_only(folder: Path) -> str:
    with disk(folder / "small", "1500k") as small:
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        return refused(Started(child, ["", *train("toybox", GROUPS)(small / "run")]).wait(), "Read-only")


def reward_server(folder: Path) -> str:
    """Killed for good: one line after the patience. There again: the run goes on to what it would have been."""
    port = _free_port()
    serve = ["", "rewards", "serve", "--reward", "prompt", "--port", str(port), *given(TINY)]
    remote = ["type=remote", f"url=http://127.0.0.1:{port}", "reward=prompt", "patience=20", "axis=prompt"]
    words = train("toybox", [*GROUPS, *(f"rewards.prompt.{setting}" for setting in remote)])
    server = Started(child, serve)
    try:
        done = Started(child, ["", *words(folder / "whole")]).wait()
        if done.returncode:
            return done.stderr[-300:]
        running = Started(child, ["", *words(folder / "run")])
        rows = folder / "run" / "metrics.jsonl"
        while running.poll() is None and not (rows.exists() and rows.read_text().count("\n") >= 2):
            time.sleep(0.01)
        server.kill()
        if said := refused(running.wait(), "prompt"):
            return said
        server = Started(child, serve)
        again = Started(child, ["", *words(folder / "run")]).wait()
        return again.stderr[-300:] if again.returncode else differs(left(folder / "whole"), left(folder / "run"))
    finally:
        server.kill()


def nodes(folder: Path) -> str:
    """Two nodes by torchrun over loopback, one of them killed: begun again on both, the run of two processes."""
    words = train(*METHODS["GRPO"])
    done = Started(child, ["", *words(folder / "whole")], 2).wait()
    if done.returncode:
        return done.stderr[-300:]

    def launch() -> list[subprocess.Popen[bytes]]:
        port, env = _free_port(), os.environ | {"OMP_NUM_THREADS": "1"}
        env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "benchmarks"), env.get("PYTHONPATH", "")])
        node = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
        node += ["--master_addr", "127.0.0.1", "--master_port", str(port), "--max_restarts", "0"]
        command = ["-m", "cgrpo", *words(folder / "run")]
        with (folder / "nodes.log").open("ab") as log:
            return [
                subprocess.Popen(
                    [*node, "--node_rank", str(rank), *command], env=env, stdout=log, stderr=log, start_new_session=True
                )
                for rank in range(2)
            ]

    rows, running = folder / "run" / "metrics.jsonl", launch()
    while running[0].poll() is None and not (rows.exists() and rows.read_text().count("\n") >= 2):
        time.sleep(0.02)
    _kill_tree(running[1].pid)
    try:
        running[0].wait(timeout=300)
    except subprocess.TimeoutExpired:
        return "the other node waits for ever"
    finally:
        for node in running:
            _kill_tree(node.pid)
            node.wait()
    if any(node.wait() for node in launch()):
        return f"begun again it fails: {(folder / 'nodes.log').read_text()[-300:]}"
    return differs(left(folder / "whole"), left(folder / "run"))


def _kill_tree(process: int) -> None:
    """SIGKILL to a process and all that it started, which torchrun puts into sessions of their own."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    doomed = [process]
    for one in doomed:
        doomed += [child for child, parent in parents.items() if parent == one]
    for one in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


SHORT = ("NaN", "a clock", "a full disk", "a read-only disk")  # what --quick tries, by how the names begin


def cases(count: int, rng: random.Random) -> dict[str, Callable[[Path], str]]:
    """Every fault by name."""

    def killed(words: Callable[[Path], list[str]], processes: int = 1) -> Callable[[Path], str]:
        return lambda folder: kills(words, folder, count, rng, processes)

    found = {f"train, {name}: killed": killed(train(*method)) for name, method in METHODS.items()}
    found["train, GRPO, two processes: killed"] = killed(train(*METHODS["GRPO"]), 2)
    bench = ["evaluate", "toybox", "--subjects", "2", "--prompts", "2", "--seeds", "2", "--out"]
    found["evaluate: killed"] = killed(lambda out: [*bench, str(out)])
    encode = ["data", "encode", "toybox", *given(["data.limit=12"]), "--out"]
    found["data encode: killed"] = killed(lambda out: [*encode, str(out)])
    syncd = ["data", "syncd", str(ROOT / "tests" / "data" / "syncd_mini" / "release"), "--top", "2", "--out"]
    found["data syncd: killed"] = killed(lambda out: [*syncd, str(out / "train.json")])
    found |= {
        "NaN in a velocity": stopped("velocity", [], "NaN"),
        "NaN in a gradient": stopped("gradient", [], "norm is nan"),
        "NaN from a reward, now and then": some_unscored,
        "NaN from a reward, always": all_unscored,
        "a clock that jumps back": clock,
        "a reward server killed": reward_server,
        "one of two nodes killed": nodes,
        "a full disk": full_disk,
        "a read-only disk": read_only,
    }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each command that is killed")
    parser.add_argument("--quick", action="store_true", help="what is quickly tried, and kills nothing")
    parser.add_argument("--only", default="", metavar="WORD", help="faults whose name holds it")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="keep what the commands leave, here")
    options = parser.parse_args()
    if options.quick:
        TINY.extend(QUICK)
    folder = options.out or Path(tempfile.mkdtemp(prefix="faults-"))
    tried = survived = 0
    for name, check in cases(options.kills, random.Random(options.seed)).items():
        if options.only not in name or (options.quick and not name.startswith(SHORT)):
            continue
        began = time.monotonic()
        place = folder / "".join(c if c.isalnum() else "-" for c in name)
        place.mkdir(parents=True)
        try:
            found = check(place)
        except PermissionError as error:
            print(f"{name:40s} left out: {error}", flush=True)
            continue
        except RuntimeError as error:
            found = str(error)
        tried, survived = tried + 1, survived + (not found)
        print(f"{name:40s} {found or 'survived'} ({time.monotonic() - began:.0f} s)", flush=True)
        if options.out is None and place / "whole" not in WHOLE.values():
            shutil.rmtree(place, ignore_errors=True)
    if options.out is None:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{tried} faults tried, {survived} survived")
    return 0 if tried == survived else 1


if __name__ == "__main__":
    sys.exit(main())
