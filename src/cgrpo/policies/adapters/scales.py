"""What peft's settings say of an adapter's strength: alpha / r, or alpha / sqrt(r), module by module."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgrpo.errors import UserError

_DEFAULT = 8  # peft's, of both r and lora_alpha
_PLAIN = (None, True, False, "gaussian", "orthogonal", "eva")  # ways to begin that leave the base as it is; not PiSSA


@dataclass(frozen=True)
class Settings:
    """peft's ``LoraConfig``, as far as the strength goes. Patterns are read as peft does: the first whose regular
    expression matches the end of a module's name."""

    r: int
    lora_alpha: float
    use_rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]

    def scale(self, module: str, rank: int) -> float:
        """What B A of ``module`` is multiplied with. Raises UserError if its matrices have another rank."""
        from peft.utils.other import get_pattern_key

        said = self.rank_pattern.get(get_pattern_key(list(self.rank_pattern), module), self.r)
        alpha = self.alpha_pattern.get(get_pattern_key(list(self.alpha_pattern), module), self.lora_alpha)
        if said != rank:
            raise UserError(f"adapter: {module} has rank {rank}, but its settings say {said}; save the adapter anew")
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def header_settings(header: Mapping[str, str]) -> Settings | None:
    """What a stock pipeline's header says of the transformer's part; None where it says nothing."""
    text = header.get("lora_adapter_metadata")
    if text is None:
        return None
    try:
        table = json.loads(text)
        own = {
            key.removeprefix("transformer."): value for key, value in table.items() if key.startswith("transformer.")
        }
        return _settings(own or {key: value for key, value in table.items() if "." not in key})
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"its lora_adapter_metadata can't be read ({error}); save the adapter anew") from error


def config_settings(file: Path) -> Settings | None:
    """What peft's adapter_config.json beside ``file`` says; None where there is none."""
    beside = file.with_name("adapter_config.json")
    if not beside.is_file():
        return None
    try:
        return _settings(json.loads(beside.read_text(encoding="utf-8-sig")))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{beside}: can't be read ({error}); save the adapter anew") from error


def _settings(table: Mapping[str, Any]) -> Settings | None:
    if not isinstance(table, Mapping):
        raise ValueError("no table")
    if not table:
        return None
    if table.get("use_dora"):
        raise UserError("it's a DoRA, which is no B A; merge it into its base by its own program")
    kind, begun = table.get("peft_type") or "LORA", table.get("init_lora_weights")
    if kind != "LORA":
        raise UserError(f"it's of peft's type {kind}, which is no B A; merge it into its base by its own program")
    if begun not in _PLAIN:
        raise UserError(
            f"it began with {begun}, which takes from the base's weights what it begins with, so that its B A fits no "
            "plain base; let peft save it as a LoRA (path_initial_model_for_weight_conversion)"
        )
    rank, alpha = table.get("r", _DEFAULT), table.get("lora_alpha", _DEFAULT)
    ranks, alphas = table.get("rank_pattern") or {}, table.get("alpha_pattern") or {}
    values = [rank, alpha, *ranks.values(), *alphas.values()]
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values):
        raise ValueError("r and alpha must be numbers")
    if not isinstance(table.get("use_rslora", False), bool | None):
        raise ValueError("use_rslora must be true or false")
    for pattern in (*ranks, *alphas):
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern} is no regular expression: {error}") from None
    return Settings(rank, alpha, bool(table.get("use_rslora")), ranks, alphas)
