"""A reward's fingerprint. Scores of two rewards with different fingerprints must not mix."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn

from cgrpo.fingerprint import of_file, of_tensors, of_text
from cgrpo.rewards.base import FunctionReward, Offloaded, Reward

COSTS = {"cache", "ledger", "budget", "token_budget", "input_price", "output_price"}
EFFORT = {"device", "background", "chunk", "concurrency", "timeout", "attempts", "refusals", "backoff", "key_variable"}


def reward_fingerprint(reward: Reward) -> str:
    """SHA-256 over the weights of a reward's modules and its plain settings; of a function, its name and source file.

    Modules and settings (texts, numbers) are found in the reward's public attributes and in those of its own parts,
    such as a segmenter. Weights are sampled as in ``fingerprint``. Where the files lie, the device, costs and effort
    don't count: they change no score.
    """
    if isinstance(reward, Offloaded):
        reward = reward.reward
    lines, tensors = [type(reward).__qualname__], []
    if isinstance(reward, FunctionReward):
        lines += _function_lines(reward.function)
    homes = {"cgrpo", type(reward).__module__.partition(".")[0]}
    for name, value in _parts(reward, "", homes, set()):
        if isinstance(value, nn.Module):
            kinds = sorted({type(module).__name__ for module in value.modules()})
            lines.append(f"{name} {','.join(kinds)}")
            tensors += _tensors(name, value)
        else:
            lines.append(f"{name} {value!r}")
    lines.append(of_tensors(tensors))
    return of_text("\n".join(lines))


def _parts(value: object, name: str, homes: set[str], seen: set[int]) -> Iterator[tuple[str, object]]:
    """Modules and plain settings under an object of ours, by dotted name, each once."""
    if isinstance(value, str | int | float | bool | None):
        yield name, value
    elif id(value) not in seen:
        seen.add(id(value))
        if isinstance(value, nn.Module):
            yield name, value
        elif isinstance(value, Mapping):
            for key, item in value.items():
                yield from _parts(item, f"{name}.{key}", homes, seen)
        elif isinstance(value, list | tuple):
            for place, item in enumerate(value):
                yield from _parts(item, f"{name}.{place}", homes, seen)
        elif type(value).__module__.partition(".")[0] in homes:
            for key, item in sorted(getattr(value, "__dict__", {}).items()):
                if not key.startswith("_") and key not in COSTS | EFFORT:
                    yield from _parts(item, f"{name}.{key}", homes, seen)


def _tensors(name: str, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Weights and saved buffers, their precision in the name: it changes scores, and a fingerprint rounds it away."""
    for key, value in module.state_dict().items():
        yield f"{name}.{key} {value.dtype}", value


def _function_lines(function: object) -> Iterator[str]:
    yield f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', type(function).__qualname__)}"
    try:
        source = inspect.getsourcefile(function)  # pyright: ignore[reportArgumentType]
    except TypeError:  # not a plain function
        source = None
    if source and Path(source).is_file():
        yield of_file(Path(source))
