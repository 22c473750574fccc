"""A run is told apart by its method, which has settings of its own; other packages add methods and credit functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cgrpo.config import METHODS, load_config, override, recipes
from cgrpo.config.methods import settings_of
from cgrpo.errors import UserError

GROUPS = {"shaping", "weights", "objective"}
OWN = {"grpo": GROUPS, "forward": GROUPS, "sft": {"supervised"}, "preference": {"preference"}}
COMMON = {"method", "policy", "data", "sampling", "rewards", "training", "evaluation", "guard", "logging"}


def refusal(recipe: str, *settings: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(recipe, settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_method_has_its_own_tables_and_the_common_ones() -> None:
    assert METHODS.own.keys() == OWN.keys()
    for method, kind in ((method, settings_of(method)) for method in METHODS.own):
        assert set(kind.model_fields) == COMMON | OWN[method]
        assert set(json.loads(kind().model_dump_json())) == COMMON | OWN[method]


@pytest.mark.parametrize(
    ("recipe", "setting", "key", "owner"),
    [
        ("toybox", "supervised.batch=7", "supervised.batch", "sft"),
        ("sft", "shaping.alpha=0.3", "shaping.alpha", "grpo and forward"),
        ("sft", "training.group_size=4", "training.group_size", "grpo and forward"),
        ("sft", "sampling.window.type=all", "sampling.window.type", "grpo"),
        ("sft", "weights.others={style=0.5}", "weights.others", "grpo and forward"),
        ("forward", "sampling.window.type=all", "sampling.window.type", "grpo"),
        ("toybox", "objective.levels=3", "objective.levels", "forward"),
        ("sft", "objective.kl=0.1", "objective.kl", "grpo and forward"),
    ],
)
def test_settings_of_another_method_are_refused(recipe: str, setting: str, key: str, owner: str) -> None:
    method = load_config(recipe).method
    said = refusal(recipe, setting)
    assert said.startswith(f"{recipe}: {key} belongs to method {owner}")
    assert said.endswith(f", and this run's is {method}; leave it out")


def test_a_table_of_another_method_is_refused_in_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('method = "sft"\n[weights]\ntype = "constant"\n')
    assert "weights.type belongs to method grpo and forward" in refusal(str(tmp_path / "mine.toml"))


def test_keys_that_no_method_has_are_still_unknown() -> None:
    assert "unknown key supervised.bach; did you mean supervised.batch?" in refusal("sft", "supervised.bach=3")
    assert "method: there is no method 'ppo'; choose one of grpo, " in refusal("toybox", "method=ppo")


def test_another_method_leaves_out_what_a_recipe_says_of_its_own(tmp_path: Path) -> None:
    paper = load_config("uno-dinoseg-hpsv3")
    switched = load_config("uno-dinoseg-hpsv3", ["method=sft", "supervised.batch=8"])
    (tmp_path / "mine.toml").write_text(
        'extends = "uno-dinoseg-hpsv3"\nmethod = "sft"\n[supervised]\nbatch = 8\n', encoding="utf-8"
    )
    assert switched == load_config(str(tmp_path / "mine.toml")) == load_config("uno-sft")
    assert switched == override(paper, ["supervised.batch=8", "method=sft"])  # in any order
    assert (switched.policy, switched.rewards, switched.guard) == (paper.policy, paper.rewards, paper.guard)
    assert switched.training.iterations == paper.training.iterations
    # What is said beside the method is said of that method.
    assert "shaping.alpha belongs to method grpo and forward" in refusal("toybox", "shaping.alpha=1", "method=sft")


@pytest.mark.parametrize("recipe", recipes())
def test_every_run_says_what_it_is(recipe: str) -> None:
    cfg = load_config(recipe)
    count, key = cfg.share()
    table: Any = cfg.model_dump()
    for name in key.split("."):
        table = table[name]
    assert table == count and cfg.title() and all(cfg.facts().values())
