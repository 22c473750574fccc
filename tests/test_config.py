"""Settings: what recipes say, which method has which, values at their ends, and a configuration that is read back."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cgrpo.config import METHODS, Section, load_config, override, parse_config, recipes
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


@pytest.mark.parametrize("text", ["nan", "2024", "true", "1e3", "2024-01-01"])
def test_a_text_is_taken_as_text(text: str) -> None:
    cfg = load_config("toybox", [f"policy.path={text}", f"data.source={text}", "training.seed=3"])
    assert (cfg.policy.path, cfg.data.source, cfg.training.seed) == (text, text, 3)
    own = load_config("toybox", ["rewards.prompt.type=clip", f"rewards.prompt.path={text}"])
    assert own.rewards["prompt"].path == text
    with pytest.raises(UserError, match="training.iterations"):
        load_config("toybox", [f"policy.path={text}", "training.iterations=many"])


def test_a_recipe_with_a_bom(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[training]\niterations = 7\n", encoding="utf-8-sig")
    assert load_config(str(tmp_path / "mine.toml")).training.iterations == 7


def test_extends_is_relative_to_the_file_that_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "x.toml").write_text('extends = "naive"\n[training]\niterations = 7\n')
    (tmp_path / "a" / "y.toml").write_text('extends = "../x.toml"\n[training]\nseed = 5\n')
    (tmp_path / "a" / "b" / "z.toml").write_text('extends = "../y.toml"\n')
    (tmp_path / "a" / "loop.toml").write_text('extends = "../a/loop.toml"\n')
    for place in (tmp_path, tmp_path / "a" / "b"):
        monkeypatch.chdir(place)
        for name in (tmp_path / "a" / "b" / "z.toml", os.path.relpath(tmp_path / "a" / "b" / "z.toml")):
            cfg = load_config(str(name))
            assert (cfg.training.iterations, cfg.training.seed, cfg.shaping.type) == (7, 5, "none")
    with pytest.raises(UserError, match="not in a circle"):
        load_config(str(tmp_path / "a" / "loop.toml"))


@pytest.mark.parametrize("key", ["training.seed", "training.learning_rate"])
def test_a_truth_value_is_no_number(key: str) -> None:
    with pytest.raises(UserError, match=f"{key}: must be a number, got true"):
        load_config("toybox", [f"{key}=true"])


def test_a_number_of_thousands_of_digits(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f"[training]\nseed = {'9' * 5000}\n")
    for recipe, settings in ((str(tmp_path / "mine.toml"), []), ("toybox", [f"training.seed={'9' * 5000}"])):
        with pytest.raises(UserError):
            load_config(recipe, settings)


def test_a_recipe_in_utf16(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[training]\r\niterations = 7\r\n", encoding="utf-16")
    assert load_config(str(tmp_path / "mine.toml")).training.iterations == 7


def numbers(section: type[Section], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The dotted keys whose values are numbers, and the text of each type."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from numbers(kind, f"{prefix}{name}.")
        elif kind is not bool and re.search(r"\b(int|float)\b", str(kind)):
            yield prefix + name, str(kind)


@pytest.mark.parametrize("method", METHODS.own)
def test_numbers_that_no_library_takes_are_refused(method: str) -> None:
    """By their keys; tests/training/test_bad_input.py trains at the ends that are accepted."""
    keys = dict(numbers(settings_of(method)))
    assert {"training.betas", "sampling.shift", "policy.guidance"} <= keys.keys()
    for key, kind in keys.items():
        for value in ("1e308", "-1e308", "1e30", str(2**63), str(10**9 + 1)):
            text = f"{{a = {value}}}" if "dict" in kind else f"[{value}, {value}]" if "tuple" in kind else value
            if key.endswith("seed") and value == str(10**9 + 1):
                continue
            assert key in refusal("toybox", f"method={method}", f"{key}={text}")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("policy.compile=inductr", "did you mean 'inductor'"),
        ("training.betas=[0.9, 1.0]", "training.betas.1"),
        ("objective.clip=1.0", "objective.clip"),
        ("sampling.noise_level=1e-300", "sampling.noise_level"),
        ("sampling.shift=1e-30", "sampling.shift"),
        ("weights.others={identity=1e308}", "weights.others"),
    ],
)
def test_what_a_library_refuses_is_refused(setting: str, said: str) -> None:
    assert said in refusal("toybox", setting)


NONE = {
    "identity": ("rewards.identity.type=none", "weights.type=constant", "weights.prompt=1", "shaping.focal=0"),
    "prompt": ("rewards.prompt.type=none", "weights.type=constant", "weights.prompt=0"),
    "both": ("method=sft", "rewards.identity.type=none", "rewards.prompt.type=none", "rewards.own.type=a:b"),
    "another": ("rewards.identity.type=clip-i", "rewards.identity.path=x", "guard.scorers.judge.type=a:b"),
    "places": ("policy.path=~/x", "data.source=2024", "policy.start=~nobody/y"),
    "nothing": (),
}


@pytest.mark.parametrize("settings", NONE.values(), ids=NONE)
@pytest.mark.parametrize("recipe", recipes())
def test_a_written_configuration_is_whole(recipe: str, settings: tuple[str, ...]) -> None:
    """Read back it is itself: nothing that it leaves out comes back as a default."""
    try:
        cfg = load_config(recipe, settings)
    except UserError as error:  # this recipe's method has no weights, or wants the reward
        assert re.search("belongs to method|is left out", str(error))
        return
    assert parse_config(json.loads(cfg.model_dump_json()), "config.json") == override(cfg, []) == cfg


def test_rewards_and_judges_that_are_none_are_left_out() -> None:
    cfg = load_config("toybox", NONE["identity"])
    assert list(cfg.rewards) == ["prompt"]
    again = override(cfg, ["rewards.identity.type=dino-seg", "guard.scorers.light.type=a:b"])
    assert set(again.rewards) == {"prompt", "identity"} and list(again.guard.scorers) == ["light"]
    assert not override(again, ["guard.scorers.light.type=none"]).guard.scorers


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("ai-toolkit.yaml", "job: extension\nconfig:\n  datasets:\n  - folder_path: /my/photos\n", "source=/my/photos"),
        ("onetrainer.json", '{"concepts": []}', "--set data.source=FOLDER"),
        ("broken.toml", "a toy", "broken.toml"),
        ("kohya.toml", "[general]\nshuffle_caption = false\n", "unknown key general"),
    ],
)
def test_other_programs_configurations(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert said in refusal(str(tmp_path / name))


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    assert f"--set data.source={tmp_path}" in refusal(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert f"--resume {tmp_path}" in refusal(str(tmp_path))
