"""Whole-state checkpoints: adapter, its average, optimizer, random state, position. Safetensors only, no pickle.

The data order and all noise are functions of (seed, iteration), so the position is one number.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic_core import to_json
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cgrpo.errors import UserError
from cgrpo.files import json_text, reading
from cgrpo.fingerprint import of_bytes, of_file
from cgrpo.section import dotted
from cgrpo.tensor_files import write_tensors

STATE, INDEX, BEST = "state.safetensors", "index.json", "best"


def config_fingerprint(settings: Mapping[str, Any]) -> str:
    """A hash of all settings that a run's numbers depend on: not memory savers, logging, evaluation, guard.

    Nor its length, but where the learning rate depends on that. ``settings``: a configuration as config.json has it.
    """
    return of_bytes(to_json(_dependent(settings)))


def binding_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a resumed run must share with its checkpoint, by dotted key; ``settings`` as above.

    Batches that only bound memory are free, too: they change the last bits alone.
    """
    kept = _dependent(settings)
    for name, free in (("training", {"micro_batch"}), ("sampling", {"batch"})):
        kept[name] = _without(kept.get(name, {}), free)
    return dict(dotted(kept))


def _dependent(settings: Mapping[str, Any]) -> dict[str, Any]:
    length = {"iterations", "checkpoint_every", "keep_checkpoints", "parallel"}
    # Where and at what pains a reward computes, not what.
    effort = {"url", "token_variable", "timeout", "patience", "on_failure", "chunk", "offload"}
    effort |= {"budget", "token_budget", "input_price", "output_price", "concurrency", "attempts", "refusals"}
    effort |= {"backoff", "cache", "key_variable", "background"}
    if settings.get("training", {}).get("schedule", "constant") != "constant":
        length -= {"iterations"}
    kept = {name: table for name, table in settings.items() if name not in ("evaluation", "guard", "logging")}
    for name, free in (("training", length), ("policy", {"checkpointing", "offload", "base_differs"})):
        kept[name] = _without(kept.get(name, {}), free)
    kept["rewards"] = {name: _without(reward, effort) for name, reward in kept.get("rewards", {}).items()}
    return kept


def _without(table: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in table.items() if name not in names}


def refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Raises UserError for a setting in which a run and its checkpoint at ``path`` differ; see ``binding_settings``."""
    for key in dict.fromkeys((*now, *before)):
        if before.get(key) != now.get(key):
            reason = "the run's numbers depend on it"
            if key == "training.iterations":
                reason = f"the learning rate ({now.get('training.schedule')}) falls to 0 behind the last iteration"
            raise UserError(
                f"checkpoint {path}: {key} was {json_text(before.get(key))} and is {json_text(now.get(key))} now, but "
                f"it can't change when a run is resumed: {reason}",
                "leave it as it was, or start a new run",
            )


def save_checkpoint(
    folder: Path,
    iteration: int,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    keep: int,
    best: Path | None = None,
) -> None:
    """Write ``folder``/step-N for the state before iteration N, then delete all but the newest ``keep``.

    ``state``: what else the trainer continues from, by name, such as its average; ``settings``: ``binding_settings``.
    ``best``: the folder of the guard's best adapter, kept with the state if there is one, since the run may go on to
    find a better one and then be taken up from here.
    """
    tensors: dict[str, Tensor] = {f"adapter.{name}": p.detach() for name, p in parameters.items()}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value
    tensors |= {f"state.{name}": value for name, value in state.items()}
    tensors |= random_state()
    partial, final = folder / f".step-{iteration}.partial", folder / f"step-{iteration}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_tensors(partial / STATE, tensors)
    index = {"iteration": iteration, "settings": settings, "sha256": of_file(partial / STATE)}
    (partial / INDEX).write_text(json_text(index, indent=2) + "\n")
    for name in (STATE, INDEX):
        with (partial / name).open("rb") as file:
            os.fsync(file.fileno())
    if best is not None and best.exists():
        shutil.copytree(best, partial / BEST, copy_function=_link)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)


def random_state() -> dict[str, Tensor]:
    """torch's default generators, for rewards that draw: the CPU's, and this process's GPU's where there is one."""
    states = {"random.torch": torch.get_rng_state()}
    return states | ({"random.cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def restore_best(folder: Path, iteration: int, best: Path) -> None:
    """Make ``best`` what it was when ``folder``/step-``iteration`` was written; nothing if there was none."""
    kept = folder / f"step-{iteration}" / BEST
    shutil.rmtree(best, ignore_errors=True)
    if kept.exists():
        shutil.copytree(kept, best, copy_function=_link)


def _link(source: str, target: str) -> None:
    """The same file under a second name: adapters are replaced, never written into. A copy where links can't be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first; a copy under another name is none of them."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def load_checkpoint(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Tensor],
    settings: Mapping[str, Any],
) -> int:
    """Restore the newest checkpoint under ``folder``; returns the iteration to continue with (0 if there is none).

    ``state`` is what the loop gives now, and is written into. ``settings``: see ``binding_settings``.
    Raises UserError, before anything is changed, if it is truncated, damaged, or of other settings.
    """
    found = checkpoints(folder)
    if not found:
        return 0
    path = found[-1]
    cure = f"delete {path} to continue from the one before, or start a new run"
    with reading(path / INDEX, cure, LookupError, TypeError):
        index = json.loads((path / INDEX).read_text())
        iteration, before, expected = int(index["iteration"]), dict(index["settings"]), index["sha256"]
    with reading(path / STATE, cure, SafetensorError):
        if of_file(path / STATE) != expected:
            raise ValueError("truncated or damaged: its checksum differs")
        tensors = load_file(path / STATE)
    refuse_changes(before, settings, path)
    wanted = {f"adapter.{name}": p.shape for name, p in parameters.items()}
    have = {key: value.shape for key, value in tensors.items() if key.startswith("adapter.")}
    if wanted != have:
        raise UserError(f"checkpoint {path} does not fit this policy's adapter; {cure}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"adapter.{name}"])
            keys = [key for key in tensors if key.startswith("optimizer.") and key.endswith(f".{name}")]
            if keys:
                moments = {key.split(".")[1]: tensors[key] for key in keys}
                optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(parameter.device) for key, value in moments.items()
                }
        for name, value in state.items():
            value.copy_(tensors[f"state.{name}"])
    torch.set_rng_state(tensors["random.torch"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return iteration
