"""Does `cgrpo evaluate adapters` pick the good one of a series, and name what is wrong with the others?

python benchmarks/best_checkpoint.py --good RUN... --out DIR [--series 10]

Each series has six adapters of the copy world's base, planted by these rules:

undertrained  a tenth of a good run's adapter
good          a good run's adapter, of `cgrpo train copy-forward`; series take turns with the runs that --good names
overtrained   twelve times the same
copying       a LoRA that learnt for a minute to give back its reference
keys dropped  the good one without every other layer
wrong base    the good one with the inputs of another width (even series), or under names of no layer (odd ones)

Every series has other held-out tasks: 24 subjects, a prompt each, 2 seeds. A line per series, and the counts.
The same call again continues; 7 minutes of one core for ten series.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from cgrpo.app.checkpoints import find_best
from cgrpo.app.requests import AdapterRequest
from cgrpo.build import make_policy
from cgrpo.config import load_config
from cgrpo.data import ToyboxSource
from cgrpo.files import json_text, write_text
from cgrpo.policies.adapters.files import adapter_file, read_split, write_adapter
from cgrpo.policies.adapters.keys import State, adapter_to_stock
from cgrpo.tensor_files import write_tensors

RECIPE = "copy-forward"
TASKS = 24
STEPS, BATCH, RATE = 120, 24, 2e-3  # of learning to copy
EXPECTED = {
    "undertrained": {"undertrained"},
    "overtrained": {"prompt lost", "subject lost"},
    "copying": {"memorised"},
    "dropped": {"incomplete"},
}


def learn_to_copy(out: Path) -> Path:
    """An adapter whose pictures are their references, whatever the prompt; kept in ``out``."""
    if not (out / "copying").is_dir():
        cfg = load_config(RECIPE)
        policy = make_policy(cfg)
        source, rng = ToyboxSource(5, "train", cfg.data.dial), torch.Generator().manual_seed(5)
        weights = list(policy.trainable_parameters().values())
        optimizer = torch.optim.AdamW(weights, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)
        for step in range(STEPS):
            batch = source.batch(range(step * BATCH, (step + 1) * BATCH))
            x0_NLC = policy.encode_targets([pictures[0] for pictures in batch.references])
            noise_NLC = torch.randn(x0_NLC.shape, generator=rng)
            sigma_N = torch.sigmoid(torch.randn(len(x0_NLC), generator=rng))
            x_NLC = x0_NLC + sigma_N[:, None, None] * (noise_NLC - x0_NLC)
            loss = (policy.velocity(x_NLC, sigma_N, policy.encode(batch)) - (noise_NLC - x0_NLC)).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step % 20 == 0:
                print(f"learning to copy: step {step}, loss {loss.item():.3f}", flush=True)
        policy.save(out / "copying")
    return adapter_file(out / "copying")


def plant(folder: Path, good: Path, copying: Path, number: int) -> None:
    """A series of six files, named as a trainer numbers them."""
    split, header = read_split(good)
    own, own_header = read_split(copying)
    layers = sorted({key.rsplit(".", 2)[0] for key in split})
    half = {key: value for key, value in split.items() if key.rsplit(".", 2)[0] in layers[::2]}
    states: dict[str, tuple[State, dict[str, str]]] = {
        "toy-000100-undertrained": (times(split, 0.1), header),
        "toy-000200-good": (split, header),
        "toy-000300-overtrained": (times(split, 12.0), header),
        "toy-000400-copying": (own, own_header),
        "toy-000500-dropped": (half, header),
    }
    for name, (state, words) in states.items():
        write_adapter(folder / f"{name}.safetensors", adapter_to_stock(state), words)
    wrong: dict[str, Tensor] = adapter_to_stock(split)
    if number % 2:
        wrong = {key.replace("transformer_blocks", "joint_layers"): value for key, value in wrong.items()}
    else:
        wrong = {key: widened(value) if "lora_A" in key else value for key, value in wrong.items()}
    write_tensors(folder / "toy-000600-wrong.safetensors", wrong)


def times(split: State, factor: float) -> State:
    return {key: value * factor if "lora_B" in key else value for key, value in split.items()}


def widened(down: Tensor) -> Tensor:
    return torch.cat([down, down[:, :64]], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--good", type=Path, nargs="+", required=True, metavar="RUN", help="runs of copy-forward")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--series", type=int, default=10)
    arguments = parser.parse_args()
    copying = learn_to_copy(arguments.out)
    counts: Counter[str] = Counter()
    for number in range(arguments.series):
        folder = arguments.out / f"series-{number}"
        result_file = folder / "named.json"
        if not result_file.exists():
            plant(
                folder / "adapters",
                adapter_file(arguments.good[number % len(arguments.good)] / "adapter"),
                copying,
                number,
            )
            request = AdapterRequest(
                [folder / "adapters"], folder / "result", limit=TASKS, skip=number * TASKS, recipe=RECIPE
            )
            found = find_best(request)
            named = {
                one.name.rpartition("-")[2]: [fault.kind for fault in one.faults] for one in found.ranking.adapters
            }
            tied = [name.rpartition("-")[2] for name in found.ranking.tied]
            best = (found.ranking.best or "").rpartition("-")[2]
            unread = [name.rpartition("-")[2] for name in found.unread]
            write_text(result_file, json_text({"best": best, "tied": tied, "named": named, "unread": unread}))
        found = json.loads(result_file.read_text(encoding="utf-8"))
        print(f"series {number}: best {found['best']}, tied {found['tied']}, {found['named']}", flush=True)
        counts["good is best"] += found["best"] == "good"
        counts["good is best or not told apart"] += "good" in found["tied"]
        counts["good without a fault"] += not found["named"]["good"]
        counts["wrong: not read"] += found["unread"] == ["wrong"]
        for name, kinds in EXPECTED.items():
            counts[f"{name}: named"] += bool(kinds & set(found["named"][name]))
    for name, count in counts.items():
        print(f"{name}: {count} of {arguments.series}")


if __name__ == "__main__":
    main()
