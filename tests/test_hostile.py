"""What comes from outside is converted or refused in one place: hostile values for every argument, setting and row."""

import json
import math
import os
import string
from typing import Any, get_args

import pytest
from cyclopts import Token
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.command_line import arguments

from cgrpo.config import METHODS, load_config, parse_config
from cgrpo.config.methods import keys
from cgrpo.data import check_manifest, read_tasks
from cgrpo.errors import UserError
from cgrpo.files import json_text
from cgrpo.launch import NEEDED, launched
from cgrpo.scores import read_scores

ODD = [
    "", " ", "\t", "\n", "0", "-0", "-1", "1e999", "-1e999", "nan", "NaN", "inf", "0x10", "1_000", "٣", "1.", ".5",
    "1e3",
    "9" * 30, "9" * 5000, "true", "null", "[]", "{}", "[1", '"', "'", "=", "a=b", "a=b=c", "--", "-x", "..", "/", "~",
    "~/x", "~nobody/x", "\\", "%s",
    "{0}", "${HOME}", "é", "猫", "\u202e", "\0", "\x1b[31m", "\ud800", "a" * 5000, "1,2", "1:1", "2026-01-01",
    "[1, 2]", "{a = 1}", "1979-05-27T07:32:00Z", "[[1]]", "inf = 3", "1#", "# x", '"""', "1" * 40 + ".5",
]  # fmt: skip
TEXT = st.one_of(st.sampled_from(ODD), st.text(max_size=30), st.text(string.digits + "+-.eE_", max_size=12))
JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
bounded = settings(
    derandomize="CGRPO_EXAMPLES" not in os.environ,
    deadline=None,
    max_examples=25,
    suppress_health_check=list(HealthCheck),
    database=None,
)
thorough = settings(bounded, max_examples=int(os.environ.get("CGRPO_EXAMPLES", "200")))


CONVERTED = {name: argument for name, argument in arguments().items() if argument.parameter.converter}


@pytest.mark.parametrize("name", CONVERTED)
@bounded
@given(text=TEXT)
def test_an_argument_is_converted_or_refused(name: str, text: str) -> None:
    """By a ValueError, which the command line turns into one line: any other exception would be a traceback."""
    argument = CONVERTED[name]
    kind = float if argument.hint in (float, float | None) else int
    try:
        value = argument.parameter.converter(kind, [Token(value=text)])
        for validate in argument.parameter.validator:
            validate(kind, value)
    except ValueError:
        return
    for number in value[0] if isinstance(value, list) else (value,):
        if isinstance(number, float):
            assert math.isfinite(number)
        if isinstance(number, int):
            assert abs(number) < 2**63


def test_numbers_are_converted() -> None:
    """By our own converters: cyclopts' own take 1.5 as a whole number, and infinity as a number."""
    numbers = {
        name for name, argument in arguments().items() if {int, float} & {argument.hint, *get_args(argument.hint)}
    }
    assert len(numbers) > 40 and numbers <= CONVERTED.keys()


@pytest.mark.parametrize("method", METHODS.own)
@thorough
@given(data=st.data())
def test_a_setting_is_converted_or_refused(method: str, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from([k for k in keys(method) if k != "method"]))
    words = [
        f"method={method}",
        *(f"{k}={data.draw(TEXT)}" for k in (key, "rewards.prompt.type", "rewards.identity.masks")),
    ]
    try:
        cfg = load_config("toybox", words[: data.draw(st.integers(2, 4))])
    except UserError as error:
        assert "\n" not in str(error)
        return
    stored = cfg.model_dump(mode="json")
    again = parse_config(json.loads(json_text(stored)), "config.json")
    assert again.model_dump(mode="json") == stored  # nothing is NaN


@thorough
@given(table=st.dictionaries(st.one_of(st.sampled_from([*keys("grpo"), "training", "rewards", "method"]), TEXT), JSON))
@example(table={"supervised.batch": None})
@example(table={"rewards": {"": None}})
@example(table={"rewards": {"a": 5}})
def test_a_recipes_table_is_read_or_refused(table: dict[str, Any]) -> None:
    try:
        parse_config(table, "recipe x")
    except UserError as error:
        assert "\n" not in str(error)


FIELDS = [
    "prompt",
    "image",
    "image_paths",
    "references",
    "subject",
    "target",
    "mask",
    "masks",
    "id",
    "file_name",
    "text",
]
ROW = st.dictionaries(st.one_of(st.sampled_from(FIELDS), TEXT), JSON, max_size=6)


@thorough
@given(rows=st.one_of(st.lists(st.one_of(ROW, JSON), max_size=4), JSON))
@example(rows=[{"prompt": "a", "image": "\0"}])
@example(rows={"records": [{"prompt": "a", "references": [["a"]]}]})
def test_a_data_set_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, rows: Any) -> None:
    """Of JSON as Python writes it, NaN and lone surrogates among it: an error in one line, a report, or records."""
    folder = tmp_path_factory.getbasetemp() / "hostile"
    folder.mkdir(exist_ok=True)
    lines = "\n".join(map(json.dumps, rows)) if isinstance(rows, list) else json.dumps(rows)
    for name, text in (("rows.json", json.dumps(rows)), ("rows.jsonl", lines)):
        (folder / name).write_text(text)
        try:
            json.loads(json_text(check_manifest(folder / name).as_dict()))
            for record in read_tasks(folder / name):
                record.prompt.encode()
        except UserError as error:
            assert "\n" not in str(error)


@thorough
@given(rows=st.lists(JSON, max_size=3), cut=st.text(max_size=8))
def test_scores_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, rows: list[Any], cut: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "scores"
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(row).encode() for row in rows]
    (folder / "scores.jsonl").write_bytes(b"\n".join([*lines, cut.encode(errors="surrogatepass")]))
    try:
        read_scores(folder)
    except UserError as error:
        assert "\n" not in str(error)


@thorough
@given(told=st.dictionaries(st.sampled_from(NEEDED), TEXT.filter(lambda text: "\0" not in text), max_size=5))
def test_an_environment_is_read_or_refused(told: dict[str, str]) -> None:
    before = dict(os.environ)
    try:
        for name in NEEDED:
            os.environ.pop(name, None)
        for name, text in told.items():
            os.environb[name.encode()] = text.encode(errors="surrogatepass")
        rank, world = launched()
        assert 0 <= rank < world
    except UserError as error:
        assert "\n" not in str(error)
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_the_walk_finds_the_commands() -> None:
    assert {"sample --seed", "plan --gpus", "train --out", "rewards serve --port"} <= CONVERTED.keys()
    assert len(CONVERTED) > 60
