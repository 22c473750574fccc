"""The model card in a run's ``adapter/``: a file that is passed on says what it was made of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from cgrpo import __version__
from cgrpo.config import TOYBOX, Config
from cgrpo.files import write_text
from cgrpo.section import TOYBOX_WORLDS

TEXT = """---
{header}
---

# LoRA adapter for {base}

It was trained with [Customized-GRPO](https://arxiv.org/abs/2510.18263) (`cgrpo` {version}) to keep the
subject of a reference image and follow the prompt.

{licence}

## Training

| | |
|---|---|
{facts}

The run's `config.json` has every setting.

## Held-out results

{results}

## Use

```sh
cgrpo sample ADAPTER --recipe RECIPE --reference photo.png --prompt "..." --out images
```

`RECIPE` describes the base model. The adapter file has diffusers' names; `cgrpo adapter convert` writes others.
"""


def write_model_card(adapter: Path, cfg: Config, summary: Mapping[str, Any]) -> None:
    """Write ``adapter/README.md``: YAML header as the model hub reads it, then the run's facts and results.

    summary: as in summary.json. Of paths on this machine only the last part is shown.
    """
    own = cfg.policy.path.startswith(TOYBOX)
    licence = _licence(cfg.policy.path, own)
    header = ModelCardData(
        base_model=None if own or _is_local(cfg.policy.path) else cfg.policy.path,
        library_name="diffusers",
        license=licence.get("license", "other"),
        license_name=licence.get("license_name"),
        license_link=licence.get("license_link"),
        tags=["lora", "subject-driven-generation", "reinforcement-learning", "cgrpo"],
    )
    rewards = ", ".join(f"{key} ({reward.type})" for key, reward in cfg.rewards.items())
    data = _shown(cfg.data.source)
    facts = {
        "method": cfg.title(),
        **cfg.facts(),
        "rewards": rewards,
        "data": "the built-in toy dataset" if cfg.data.source in TOYBOX_WORLDS else data,
        "iterations": summary["iterations"],
        "learning rate": f"{cfg.training.learning_rate:g}",
        "seed": cfg.training.seed,
    }
    text = TEXT.format(
        header=header.to_yaml(),
        base=_shown(cfg.policy.path),
        version=__version__,
        licence="The base and this adapter are Apache-2.0." if own else "The licence of the base model applies.",
        facts="\n".join(f"| {key} | {value} |" for key, value in facts.items()),
        results=_results(summary),
    )
    write_text(adapter / "README.md", text)


def _is_local(path: str) -> bool:
    return Path(path).exists()


def _shown(path: str) -> str:
    return Path(path).name if _is_local(path) else path


def _licence(path: str, own: bool) -> dict[str, Any]:
    """What the base's own card says, where it lies beside its weights."""
    if own:
        return {"license": "apache-2.0"}
    card = Path(path) / "README.md"
    if not card.is_file():
        return {}
    from huggingface_hub import ModelCard

    header = ModelCard.load(card).data
    return {key: getattr(header, key, None) for key in ("license", "license_name", "license_link")}


def _results(summary: Mapping[str, Any]) -> str:
    if not summary["metrics"]:
        return "Not measured."
    heldout = summary["heldout"]
    rows = [
        "| {0} | {role} | {axis} | {base:.3f} | {trained:.3f} | {low:+.3f} to {high:+.3f} |".format(key, **_plain(row))
        for key, row in summary["metrics"].items()
    ]
    return "\n".join(
        [
            f"{heldout['tasks']} held-out tasks. Intervals: 95 %, over {heldout['clusters']} {heldout['over']}.",
            "",
            "| metric | role | axis | base | trained | change |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: float("nan") if value is None else value for key, value in row.items()}
