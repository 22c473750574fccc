"""Out to training and Label Studio, and back from there."""

import json
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.studies import METHODS, small_study

from cgrpo.app.main import main
from cgrpo.data import PairSource
from cgrpo.scores import read_scores
from cgrpo.study.labelstudio import tasks
from cgrpo.study.manifest import Study
from cgrpo.study.store import Store

Made = tuple[Study, Path, list[str]]


def vote(study: Study, folder: Path, choices: dict[int, list[tuple[str, str]]]) -> None:
    """Answers by raters 1, 2, ... of item n, as (identity, prompt), all with the first picture on the left."""
    store = Store(folder)
    for n, given in choices.items():
        for rater, (identity, prompt) in enumerate(given, 1):
            store.save(rater, study.items[n].id, {"identity": identity, "prompt": prompt}, True, 0)
    store.close()


def test_pairs_for_the_preference_method(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, folder, _ = made
    vote(
        study,
        folder,
        {
            0: [("right", "right"), ("right", "tie")],  # the second wins on both
            1: [("left", "tie"), ("left", "tie")],  # the first wins on one, equal on the other
            2: [("left", "right"), ("left", "right")],  # the questions contradict
            3: [("left", "tie"), ("right", "tie")],  # equal
            4: [("tie", "left")],
        },
    )
    out = tmp_path / "deep" / "pairs.jsonl"
    words = ["study", "export", str(folder), "--to", "pairs", "--out", str(out)]
    assert main(words) == 0
    assert "3 pairs; 2 items undecided" in capsys.readouterr().out
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    won = {row["id"]: row for row in rows}
    for n, second in ((0, True), (1, False), (4, False)):
        item, row = study.items[n], won[study.items[n].id]
        names = [Path(row[key]).stem for key in ("winner", "loser")]
        assert names == list(item.pictures[::-1] if second else item.pictures)
        assert row["prompt"] == item.prompt and [Path(name).stem for name in row["references"]] == list(item.references)
        for name in (row["winner"], row["loser"], *row["references"]):
            Image.open(out.parent / name).verify()
    source = PairSource(out)
    _, winners, losers = source.preferences(range(3))
    assert {picture.size for picture in (*winners, *losers)} == {(24, 24)}
    assert won[study.items[0].id]["margin"] == {"identity": 2.0, "prompt": 1.0}
    assert main([*words, "--question", "identity"]) == 0
    assert "3 pairs; 2 items undecided" in capsys.readouterr().out
    assert main([*words, "--question", "prompt"]) == 0
    assert "3 pairs; 2 items undecided" in capsys.readouterr().out


def test_ratings_give_pairs_within_a_prompt(scores: Path, tmp_path: Path) -> None:
    study, _ = small_study(scores, tmp_path / "study", mode="rating", items=12)
    store = Store(tmp_path / "study")
    for item in study.of_kind("item"):
        seen = "5" if item.arms[0].method == METHODS[1] else "1"
        store.save(1, item.id, {"identity": seen, "prompt": "3"}, True, 0)
    store.close()
    out = tmp_path / "pairs.jsonl"
    assert main(["study", "export", str(tmp_path / "study"), "--to", "pairs", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    better = {name for item in study.of_kind("item") for name in item.pictures if item.arms[0].method == METHODS[1]}
    assert len(rows) == 6 and all(Path(row["winner"]).stem in better for row in rows)
    assert {row["margin"]["identity"] for row in rows} == {4.0}


def test_verdicts_as_rows_of_scores(made: Made, tmp_path: Path) -> None:
    """Whatever reads scores reads them: here the comparison of methods."""
    study, folder, _ = made
    vote(study, folder, {n: [("right", "tie"), ("right", "left")] for n in range(12)})
    assert main(["study", "export", str(folder), "--to", "scores", "--out", str(tmp_path / "people")]) == 0
    rows = {(row.method, row.metric): row.score for row in read_scores(tmp_path / "people")}
    assert rows[METHODS[1], "people-identity"] == 1.0 and rows[METHODS[0], "people-identity"] == 0.0
    assert rows[METHODS[0], "people-prompt"] == 0.75
    assert main(["evaluate", "compare", str(tmp_path / "people"), "--out", str(tmp_path / "out")]) == 0
    table = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert {d["column"]: d["difference"] for d in table["differences"] if d["group"] == "all"} == {
        "people-identity (one)": 1.0,
        "people-prompt": -0.5,
    }


def test_nothing_to_export(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, told in (("pairs", "no pair on which people decided"), ("scores", "no answer counts")):
        assert main(["study", "export", str(made[1]), "--to", kind, "--out", str(tmp_path / "x")]) == 2
        assert told in capsys.readouterr().err


def test_label_studios_tasks_and_interface(made: Made, tmp_path: Path) -> None:
    study, folder, _ = made
    words = ["study", "export", str(folder), "--to", "label-studio", "--url", "http://127.0.0.1:9/p/"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    for url in ("http://x.org/?p=", "x.org"):
        assert main([*words[:-1], url, "--out", str(tmp_path / "dead")]) == 2
    text = (tmp_path / "out" / "tasks.json").read_text(encoding="utf-8")
    found = json.loads(text)
    assert len(found) == sum(map(len, study.lists)) and not any(name in text for name in (*METHODS, "toy0"))
    for task, (item_id, first_on_left) in zip(found, [s for one in study.lists for s in one], strict=True):
        item = study.by_id()[item_id]
        left, right = item.pictures if first_on_left else item.pictures[::-1]
        assert task["data"]["left"] == f"http://127.0.0.1:9/p/{left}.png" and right in task["data"]["right"]
    view = xml.parse(tmp_path / "out" / "config.xml").getroot()
    named = {element.get("name") for element in view.iter("Image")}
    choices = list(view.iter("Choices"))
    assert [one.get("name") for one in choices] == ["identity", "prompt"]
    assert all(one.get("toName") in named for one in choices)  # one name: with two, answers are lost
    used = {value[1:] for e in view.iter() if (value := e.get("value", "")).startswith("$")}
    assert used <= found[0]["data"].keys()


def annotation(who: Any, identity: str, prompt: str, **more: Any) -> dict[str, Any]:
    given = {"identity": identity, "prompt": prompt}
    result = [
        {"type": "choices", "from_name": key, "to_name": "left", "value": {"choices": [choice]}}
        for key, choice in given.items()
    ]
    times = {"created_at": "2026-01-02T03:04:05.678901Z", "lead_time": 12.5}
    return {"completed_by": who, "result": result, "was_cancelled": False} | times | more


def test_label_studios_export_comes_back(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, folder, _ = made
    found = tasks(study, "http://x")
    for number, task in enumerate(found):
        task["id"] = number
        task["annotations"] = []
    found[0]["annotations"] = [annotation(7, "A", "Tie"), annotation({"id": 8, "email": "x@y.z"}, "B", "B")]
    found[1]["annotations"] = [annotation(7, "A", "A", was_cancelled=True), annotation(7, "B", "B", result=[])]
    item = found[0]["data"]["item"]
    again = next(task for task in found[1:] if task["data"]["item"] == item)  # the same item on another rater's list
    again["annotations"] = [annotation(7, "B", "B")]
    file = tmp_path / "export.json"
    file.write_text(json.dumps(found), encoding="utf-8")
    assert main(["study", "import", str(folder), str(file)]) == 0
    assert capsys.readouterr().out == "4 new answers of 2 raters; 3 annotations skipped\n"
    assert main(["study", "import", str(folder), str(file)]) == 0
    assert "0 new answers" in capsys.readouterr().out
    store = Store(folder)
    assert [rater.origin for rater in store.raters()][-2:] == ["label-studio 7", "label-studio 8"]
    first = store.responses()[0]
    assert (first.item, first.choice, first.first_on_left) == (item, "left", dict(study.lists[0])[item])
    assert (
        first.shown_at == "2026-01-02T03:03:53.178+00:00" and b"x@y.z" not in (folder / "answers.sqlite").read_bytes()
    )
    store.close()
    assert main(["study", "report", str(folder), "--out", str(tmp_path / "report")]) == 0


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{}", "no list of tasks"),
        ("nothing", "can't be read"),
        ('[{"data": {"item": "other", "slot": 1}, "annotations": []}]', "task 1: KeyError('other')"),
        ('[{"data": {"left": "x"}, "annotations": []}]', "task 1: KeyError('item')"),
        ("[" * 100_000, "too deep"),
        ([{"lead_time": 1e30}], "task 1: OverflowError"),
        ([{"completed_by": "\ud800"}], "task 1: UnicodeEncodeError"),
        ([{}, 0], "task 1: IndexError('slot 0')"),
        ([{}, -1], "task 1: IndexError('slot -1')"),
    ],
)
def test_other_exports_are_refused(
    content: str | list, told: str, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if isinstance(content, list):  # what one annotation has otherwise than a right one, and its task's place
        first = tasks(made[0], "http://x")[0]["data"] | ({"slot": content[1]} if len(content) > 1 else {})
        content = json.dumps([{"data": first, "annotations": [annotation(7, "A", "B", **content[0])]}])
    (tmp_path / "x.json").write_text(content, encoding="utf-8")
    assert main(["study", "import", str(made[1]), str(tmp_path / "x.json")]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
