"""adapter/README.md of a run."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from cgrpo.app.model_card import write_model_card
from cgrpo.config import load_config

ROW = {"role": "judge", "axis": "prompt", "base": 0.5, "trained": 0.75, "difference": 0.25, "low": 0.125, "high": None}
SUMMARY = {
    "iterations": 7,
    "metrics": {"prompt_readback": ROW},
    "heldout": {"source": "test", "tasks": 16, "over": "subjects", "clusters": 4},
}


def card(folder: Path, *settings: str, recipe: str = "toybox", summary: dict = SUMMARY) -> ModelCard:
    write_model_card(folder, load_config(recipe, settings), summary)
    return ModelCard.load(folder / "README.md")


def test_results_and_settings(tmp_path: Path) -> None:
    made = card(tmp_path, "training.learning_rate=3e-4", "training.seed=5")
    assert made.data.license == "apache-2.0" and made.data.base_model is None
    assert "| prompt_readback | judge | prompt | 0.500 | 0.750 | +0.125 to +nan |" in made.text
    assert "16 held-out tasks. Intervals: 95 %, over 4 subjects." in made.text
    for line in ("| iterations | 7 |", "| learning rate | 0.0003 |", "| seed | 5 |"):
        assert line in made.text


@pytest.mark.parametrize("recipe", ["sft", "rpo", "forward", "uno-24gb", "klein-24gb"])
def test_every_method_has_a_card(tmp_path: Path, recipe: str) -> None:
    made = card(tmp_path, recipe=recipe, summary={"iterations": 1, "metrics": {}})
    assert "Not measured." in made.text and "| method |" in made.text


def test_a_hub_base_is_named_and_its_licence_left_open(tmp_path: Path) -> None:
    made = card(tmp_path, "policy.path=someone/FLUX", recipe="klein-24gb")
    assert made.data.base_model == "someone/FLUX" and made.data.license == "other"


def test_a_local_base_gives_its_licence_and_no_path(tmp_path: Path) -> None:
    base, adapter = tmp_path / "my-base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    said = "---\nlicense: other\nlicense_name: flux-1-dev-non-commercial-license\nlicense_link: LICENSE.md\n---\n"
    (base / "README.md").write_text(said)
    made = card(adapter, f"policy.path={base}")
    assert made.data.license_name == "flux-1-dev-non-commercial-license"
    assert "my-base" in made.text and str(tmp_path) not in made.text + made.data.to_yaml()
