"""A run is one of a union told apart by its method: its settings are its own, and earlier names go on working."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cgrpo.config import METHODS, GrpoConfig, SftConfig, load_config, moved, override, parse_config, parse_run, recipes
from cgrpo.config.methods import keys
from cgrpo.errors import UserError

GROUPS = {"shaping", "weights", "objective"}
OWN = {"grpo": GROUPS, "forward": GROUPS, "sft": {"supervised"}, "preference": {"preference"}}
COMMON = {"method", "policy", "data", "sampling", "rewards", "training", "evaluation", "guard", "logging"}


@pytest.fixture(autouse=True)
def say_again():
    """The new names are said once in a process, here once in a test."""
    moved.say.cache_clear()


def refusal(recipe: str, *settings: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(recipe, settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_method_has_its_own_tables_and_the_common_ones() -> None:
    assert METHODS.keys() == OWN.keys()
    for method, kind in METHODS.items():
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
        ("sft", "training.kl=0.1", "objective.kl", "grpo and forward"),
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
    assert "method must be grpo or " in refusal("toybox", "method=ppo")


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


@pytest.mark.parametrize("old", moved.MOVED)
def test_moved_settings_are_read_everywhere_and_said_once(old: str, tmp_path: Path, capsys) -> None:
    new = moved.MOVED[old]
    wanted = load_config("toybox", [f"{new}=0.25"])
    table, name = old.split(".")
    (tmp_path / "old.toml").write_text(f'extends = "naive"\n[{table}]\n{name} = 0.25\n')
    assert capsys.readouterr().err == ""
    for _ in range(2):
        assert load_config("toybox", [f"{old}=0.25"]) == wanted
        assert load_config(str(tmp_path / "old.toml")) == load_config("naive", [f"{new}=0.25"])
        assert parse_config({table: {name: 0.25}}, "here") == parse_config(
            {"objective": {new.split(".")[1]: 0.25}}, "here"
        )
    assert capsys.readouterr().err == f"cgrpo: renamed: {old} to {new}\n"
    assert old not in keys("grpo") and new in keys("grpo")
    with pytest.raises(UserError, match=f"{old} is now {new}, and both are given"):
        parse_config({table: {name: 0.25}, "objective": {new.split(".")[1]: 0.5}}, "here")


def earlier(method: str) -> dict[str, Any]:
    """A run's config.json as an earlier version wrote it: every method's settings."""
    table: dict[str, Any] = {}
    for kind in (SftConfig, GrpoConfig):
        table |= json.loads(kind().model_dump_json())
    table["training"] |= table.pop("objective")
    return table | {"method": method}


@pytest.mark.parametrize("method", ["grpo", "sft"])
def test_a_run_of_an_earlier_version_is_read_by_its_own_settings(method: str, capsys) -> None:
    table = earlier(method)
    table["training"] |= {"clip": 0.5, "iterations": 7}
    table["supervised"]["batch"] = 9
    own = {"grpo": {"objective": {"clip": 0.5}}, "sft": {"supervised": {"batch": 9}}}[method]
    assert parse_run(table, "run") == parse_config({"method": method, "training": {"iterations": 7}} | own, "here")
    assert ("training.clip to objective.clip" in capsys.readouterr().err) == (method == "grpo")
    table["training"]["clap"] = 1
    with pytest.raises(UserError, match="unknown key training.clap"):
        parse_run(table, "run")


@pytest.mark.parametrize("recipe", recipes())
def test_every_run_says_what_it_is(recipe: str) -> None:
    cfg = load_config(recipe)
    count, key = cfg.share()
    table: Any = cfg.model_dump()
    for name in key.split("."):
        table = table[name]
    assert table == count and cfg.title() and all(cfg.facts().values())
