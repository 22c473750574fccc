"""What peft's settings say of an adapter's strength: alpha / r, or alpha / sqrt(r), module by module."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cgrpo.errors import UserError
from cgrpo.files import reading

_PLAIN = (None, True, False, "gaussian", "orthogonal", "eva")  # ways to begin that leave the base as it is; not PiSSA


Number = Annotated[float, Field(allow_inf_nan=False)]


class Settings(BaseModel):
    """peft's ``LoraConfig``, as far as the strength goes. Patterns are read as peft does: the first whose regular
    expression matches the end of a module's name."""

    model_config = ConfigDict(strict=True)

    r: Number = 8
    lora_alpha: Number = 8
    use_rslora: bool | None = False
    rank_pattern: dict[re.Pattern[str], Number] | None = None
    alpha_pattern: dict[re.Pattern[str], Number] | None = None

    def scale(self, module: str, rank: int) -> float:
        """What B A of ``module`` is multiplied with. Raises UserError if its matrices have another rank."""
        from peft.utils.other import get_pattern_key

        def own(patterns: Mapping[re.Pattern[str], float] | None, default: float) -> float:
            values = {expression.pattern: value for expression, value in (patterns or {}).items()}
            return values.get(get_pattern_key(list(values), module), default)

        stated, alpha = own(self.rank_pattern, self.r), own(self.alpha_pattern, self.lora_alpha)
        if stated != rank:
            raise UserError(
                f"adapter: {module} has rank {rank}, but its settings say {stated:g}; save the adapter anew"
            )
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def header_settings(file: Path, header: Mapping[str, str]) -> Settings | None:
    """What a stock pipeline's header says of the transformer's part; None where it says nothing."""
    text = header.get("lora_adapter_metadata")
    if text is None:
        return None
    with reading(file, "save the adapter anew"):
        table = _table(text)
        own = {
            key.removeprefix("transformer."): value for key, value in table.items() if key.startswith("transformer.")
        }
        return _settings(own or {key: value for key, value in table.items() if "." not in key}, file)


def config_settings(file: Path) -> Settings | None:
    """What peft's adapter_config.json beside ``file`` says; None where there is none."""
    beside = file.with_name("adapter_config.json")
    if not beside.is_file():
        return None
    with reading(beside, "save the adapter anew"):
        return _settings(_table(beside.read_text(encoding="utf-8-sig")), beside)


def _table(text: str) -> dict[str, Any]:
    table = json.loads(text)
    if not isinstance(table, dict):
        raise ValueError("no table")
    return table


def _settings(table: Mapping[str, Any], file: Path) -> Settings | None:
    if not table:
        return None
    if table.get("use_dora"):
        raise UserError(f"{file}: it is a DoRA, which is no B A", "merge it into its base by its own program")
    kind, begun = table.get("peft_type") or "LORA", table.get("init_lora_weights")
    if kind != "LORA":
        raise UserError(
            f"{file}: it is of peft's type {kind}, which is no B A", "merge it into its base by its own program"
        )
    if begun not in _PLAIN:
        raise UserError(
            f"{file}: it began with {begun}, which takes from the base's weights what it begins with, so that its B A "
            "fits no plain base",
            "let peft save it as a LoRA (path_initial_model_for_weight_conversion)",
        )
    try:
        return Settings.model_validate(table)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise ValueError("; ".join(faults)) from None
