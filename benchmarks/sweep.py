"""Many toybox trainings side by side on one machine, each with its own settings and seed; a JSON line for each.

    python benchmarks/sweep.py LIST.toml --out rows.jsonl [--jobs 4] [--cpu-jobs 10] [--limit 300]

--jobs trainings at a time take the GPU where there is one, and beside them --cpu-jobs the CPU.

LIST names trainings, in the order in which they begin; ``vary`` and ``seeds`` are multiplied out:

    [[run]]
    name = "forward"                        # of the row; what ``vary`` sets is added
    recipe = "forward"
    set = ["training.iterations=60"]
    vary = { "training.learning_rate" = [3e-4, 8e-4] }
    seeds = [0, 1, 2]
    every = 20                              # iterations between evaluations on the validation split; 0: only the end
    test = true                             # on the test split, too
    keep = true                             # the adapter, in OUT.parts/NAME-SEED

A row is written as its training ends (or, with "done": false, at each evaluation on the way, so that a killed sweep
leaves what it has): settings, iterations, seconds of training (evaluations left out), pictures and forwards made, each
metric's change against the base with its 95 % interval on both splits by the averaged weights where they are on, and
the gradient norms, mean rewards and updates left out of all iterations. A training that fails leaves a row with
"error". Interrupting ends all of them. Rows of runs that are already done in --out are not made again.

    python benchmarks/sweep.py --table rows.jsonl       # the rows' judges, averaged over seeds
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TRACED = ("gradient_norm", "updates_left_out", "old_gap", "loss")


def runs(file: Path) -> Iterator[dict[str, Any]]:
    """The trainings that a list names, one table each."""
    for table in tomllib.loads(file.read_text())["run"]:
        known = {"name", "recipe", "set", "vary", "seeds", "every", "test", "subjects", "keep"}
        if unknown := table.keys() - known:
            raise SystemExit(f"{file}: unknown {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
        vary = table.get("vary", {})
        for values in itertools.product(*vary.values()):
            chosen = [f"{key}={json.dumps(value)}" for key, value in zip(vary, values, strict=True)]
            words = [f"{key.rpartition('.')[2]}={value}" for key, value in zip(vary, values, strict=True)]
            for seed in table.get("seeds", [0]):
                yield {
                    "name": " ".join([table.get("name", table["recipe"]), *words]),
                    "recipe": table["recipe"],
                    "set": [*table.get("set", []), *chosen, f"training.seed={seed}"],
                    "seed": seed,
                    "every": table.get("every", 0),
                    "test": table.get("test", False),
                    "subjects": table.get("subjects", 32),
                    "keep": table.get("keep", False),
                }


# -- one training, in a process of its own ---------------------------------------------------------------------


def one(table: dict[str, Any], threads: int) -> None:
    """Train as ``table`` says; its rows go to stdout."""
    import torch

    torch.set_num_threads(threads)
    from cgrpo.build import make_policy, make_source
    from cgrpo.config import GroupConfig, load_config
    from cgrpo.evaluation.metrics import make_scorers
    from cgrpo.rewards import make_rewards
    from cgrpo.toybox.judges import make_judges
    from cgrpo.training.loop import make_loop
    from cgrpo.training.runtime import Runtime

    began = time.perf_counter()
    cfg = load_config(table["recipe"], [*table["set"], "logging.tracker=none"])
    runtime = Runtime()
    torch.manual_seed(cfg.training.seed)
    policy = make_policy(cfg, runtime.device)
    rewards = make_rewards(cfg.rewards, runtime.device)
    trainer = make_loop(cfg, policy, rewards, make_source(cfg), runtime)
    evaluate = Evaluation(cfg, policy, make_scorers(rewards, make_judges()), table["subjects"])
    row = {key: value for key, value in table.items() if key != "test"}  # where a row has it, it is the split
    row |= {"device": str(runtime.device), "threads": threads, "config": cfg.model_dump(mode="json")}
    splits = ("validation", "test") if table["test"] else ("validation",)
    trace: dict[str, list[float]] = {}
    seconds, done = 0.0, 0
    start = time.perf_counter()
    for iteration in trainer.run(0):
        seconds, done = seconds + time.perf_counter() - start, iteration.number + 1
        for key, value in iteration.metrics.items():
            if key.endswith(("/mean", "conflict_share", "reward_correlation")) or key in TRACED:
                trace.setdefault(key, []).append(round(value, 5))
        if table["every"] and done % table["every"] == 0 and done < cfg.training.iterations:
            with trainer.average.shown():
                say(
                    row
                    | {"done": False, "iterations": done, "seconds": seconds}
                    | {split: evaluate(split) for split in splits}
                    | {"trace": trace}
                )
        start = time.perf_counter()
    with trainer.average.shown():
        if table["keep"]:
            policy.save(Path(table["keep"]))
        scores = {split: evaluate(split) for split in splits}
    per_iteration = cfg.training.prompts_per_iteration * cfg.training.group_size if isinstance(cfg, GroupConfig) else 0
    samples = done * per_iteration
    say(
        row
        | {"done": True, "iterations": done, "seconds": seconds, "pictures": samples, "stopped": trainer.stopped}
        | scores
        | {"trace": trace, "seconds_in_all": time.perf_counter() - began}
    )


class Evaluation:
    """Base against the policy as it is, on held-out tasks of ``subjects`` from the ``first`` on; the base is scored
    once a split."""

    def __init__(self, cfg: Any, policy: Any, scorers: Any, subjects: int, first: int = 0):
        self.cfg, self.policy, self.scorers, self.subjects, self.first = cfg, policy, scorers, subjects, first
        self.base: dict[str, Any] = {}

    def __call__(self, split: str) -> dict[str, dict[str, float]]:
        import torch

        from cgrpo.evaluation.statistics.paired import cluster_means, paired_difference

        if split not in self.base:
            with self.policy.reference():
                self.base[split] = self._scores(split)
        base = self.base[split]
        now, subject_N = self._scores(split), torch.arange(8 * self.subjects) // 8
        found = {}
        for name in self.scorers:
            change = paired_difference(base[name], now[name], subject_N)
            found[name] = {
                "base": round(change.base, 4),
                "difference": round(change.difference, 4),
                "low": round(change.low, 4),
                "high": round(change.high, 4),
                "by_subject": [round(gap, 4) for gap in cluster_means(now[name] - base[name], subject_N).tolist()],
            }
        return found

    def _scores(self, split: str) -> dict[str, Any]:
        from cgrpo.data import ToyboxSource
        from cgrpo.evaluation.sampling import follow, task_noise
        from cgrpo.rewards import scored

        cfg = self.cfg
        tasks = ToyboxSource(0, split, cfg.data.dial, 8).batch(range(8 * self.first, 8 * (self.first + self.subjects)))
        sigmas = self.policy.sigmas(cfg.sampling.steps, cfg.sampling.shift)
        pictures = follow(self.policy, tasks, task_noise(self.policy, tasks.ids), sigmas)
        return {name: scored(name, scorer.score, pictures, tasks) for name, scorer in self.scorers.items()}


def say(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


# -- many of them ----------------------------------------------------------------------------------------------


def sweep(tables: list[dict[str, Any]], places: list[str], threads: int, out: Path, limit: float) -> None:
    """Keep a training going in each of ``places`` until none is left, or ``limit`` seconds have passed."""
    plain = os.environ | {"OMP_NUM_THREADS": str(threads)}
    environments = {"any": plain, "cpu": plain | {"CUDA_VISIBLE_DEVICES": ""}}
    waiting, free, start = list(reversed(tables)), list(places), time.time()
    going: dict[subprocess.Popen[bytes], tuple[dict[str, Any], Path, str]] = {}
    written: dict[Path, int] = {}
    scratch = out.with_suffix(".parts")
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        while (waiting or going) and (not limit or time.time() - start < limit):
            while waiting and free:
                table, place = waiting.pop(), free.pop(0)
                part = scratch / f"{len(tables) - len(waiting)}.jsonl"
                if table["keep"]:
                    table = table | {"keep": str(scratch / f"{table['name']}-{table['seed']}")}
                command = [sys.executable, __file__, "--one", json.dumps(table), "--threads", str(threads)]
                with part.open("wb") as stdout, part.with_suffix(".err").open("wb") as stderr:
                    process = subprocess.Popen(command, env=environments[place], stdout=stdout, stderr=stderr)
                going[process] = (table, part, place)
            time.sleep(0.2)
            for process, (table, part, place) in list(going.items()):
                ended = process.poll() is not None
                _collect(part, written, out)
                if not ended:
                    continue
                del going[process]
                free.append(place)
                if process.returncode:
                    error = part.with_suffix(".err").read_text(errors="replace").strip().splitlines()[-1:]
                    with out.open("a") as file:
                        said = " ".join(error) or f"exit {process.returncode}"
                        file.write(json.dumps(table | {"error": said}) + "\n")
                how = "failed" if process.returncode else "done"
                left = f"{len(going)} going, {len(waiting)} to come"
                print(f"{time.time() - start:.0f} s: {how} {table['name']} seed {table['seed']}; {left}", flush=True)
    finally:
        for process in going:
            process.terminate()
        for process, (_, part, _) in going.items():
            process.wait()
            _collect(part, written, out)


def _collect(part: Path, written: dict[Path, int], out: Path) -> None:
    """Whole lines that a training has written since last asked."""
    lines = part.read_bytes().split(b"\n")[:-1]
    if fresh := lines[written.get(part, 0) :]:
        with out.open("ab") as file:
            file.writelines(line + b"\n" for line in fresh)
        written[part] = len(lines)


def finished(out: Path) -> set[tuple[str, int, str]]:
    """Which trainings ``out`` already has whole."""
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    return {(row["name"], row["seed"], json.dumps(row["set"])) for row in rows if row.get("done")}


def table(file: Path) -> None:
    """Judges' changes by name and iterations: the mean over seeds, and the lowest and highest of them."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        if "error" in row:
            print(f"{row['name']} seed {row['seed']}: {row['error']}")
        else:
            groups.setdefault((row["name"], row["iterations"]), []).append(row)
    metrics = ("identity_readback", "prompt_readback", "copy_paste")
    print("name | iterations | seeds | seconds | split | " + " | ".join(metrics))
    for (name, iterations), found in groups.items():
        seconds = sum(row["seconds"] for row in found) / len(found)
        for split in ("validation", "test"):
            told = []
            for metric in metrics:
                gains = [row[split][metric]["difference"] for row in found if isinstance(row.get(split), dict)]
                if gains:
                    told.append(f"{sum(gains) / len(gains):+.3f} [{min(gains):+.3f}, {max(gains):+.3f}]")
            if told:
                print(f"{name} | {iterations} | {len(found)} | {seconds:.0f} | {split} | " + " | ".join(told))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", nargs="?", type=Path)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, on the GPU where there is one")
    parser.add_argument("--cpu-jobs", type=int, default=0, help="trainings beside them, on the CPU")
    parser.add_argument("--threads", type=int, default=1, help="of each training")
    parser.add_argument("--out", type=Path, default=Path("sweep.jsonl"))
    parser.add_argument("--limit", type=float, default=0, help="seconds after which all are ended; 0: never")
    parser.add_argument("--table", type=Path, metavar="ROWS", help="print what is in ROWS, and train nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(json.loads(given.one), given.threads)
        return
    if given.table:
        table(given.table)
        return
    if given.list is None:
        parser.error("which LIST?")
    done = finished(given.out)
    tables = [t for t in runs(given.list) if (t["name"], t["seed"], json.dumps(t["set"])) not in done]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"{len(tables)} trainings, {len(done)} already done", flush=True)
    sweep(tables, ["any"] * given.jobs + ["cpu"] * given.cpu_jobs, given.threads, given.out, given.limit)


if __name__ == "__main__":
    main()
