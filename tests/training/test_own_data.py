"""A run on somebody's own subject ends as the toy world's does: compared on held-out tasks, scored, reported."""

import json
from pathlib import Path

import pytest
from PIL import Image
from support.runs import GUARDED, JUDGED

from cgrpo.app.main import main
from cgrpo.app.run import train
from cgrpo.scores import read_scores


@pytest.fixture
def own(tmp_path) -> dict[str, str]:
    """Photographs of two sizes, as `cgrpo data prompts` makes tasks of them with two references each."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, size in enumerate([(48, 32), (32, 32), (40, 40)]):
        Image.effect_noise(size, 60 + 20 * number).convert("RGB").save(photos / f"{number}.png")
    out = tmp_path / "toy.json"
    words = ["--subject", "toy", "--references", "2", "--held-out", "3"]
    assert main(["data", "prompts", str(photos), *words, "--out", str(out)]) == 0
    return {"train": str(out), "heldout": str(out.with_suffix(".heldout.json"))}


def test_the_trained_subject_is_compared_on_prompts_held_out(small, own, tmp_path):
    settings = (f"data.source={own['train']}", "policy.several_size=16", "evaluation.enabled=true")
    settings += (f"guard.source={own['heldout']}", *GUARDED, *JUDGED, "training.iterations=1", "evaluation.tasks=6")
    folder = train(small(*settings), tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["heldout"] == {"source": "toy.heldout.json", "tasks": 6, "over": "prompts", "clusters": 3}
    roles = {name: metric["role"] for name, metric in summary["metrics"].items()}
    assert roles == {
        "identity": "reward",
        "prompt": "reward",
        "light": "judge",  # the guard's
        "red": "judge",
        "copy_paste": "guard",
    }
    for metric in summary["metrics"].values():
        assert metric["low"] <= metric["difference"] <= metric["high"]
    rows = read_scores(folder)
    assert len(rows) == 5 * 2 * 6 and {(row.subject, row.method) for row in rows} == {
        ("toy", "base"),
        ("toy", "trained"),
    }
    assert {row.prompt_kind for row in rows} == {"background", "context", "property"}
    (check,) = [json.loads(line) for line in (folder / "guard.jsonl").read_text().splitlines()]
    assert check["unit"] == "prompts"
    report = (folder / "report.html").read_text()
    assert (
        "6 of toy.heldout.json: 3 prompts of one subject" in report and "of other subjects they say nothing" in report
    )
    assert "reference 2" in report
    sheet = Image.open(folder / "comparison.png")
    assert sheet.width > 2 * 4 * 128  # two tasks beside each other: two references, base, trained


def test_a_comparison_may_have_tasks_of_its_own_without_any_guard(small_sft, manifest, tmp_path):
    settings = (f"evaluation.source={manifest}", "evaluation.enabled=true", "guard.every=0", "training.iterations=1")
    folder = train(small_sft(*settings, "policy.several_size=16"), tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["heldout"] | {"source": ""} == {"source": "", "tasks": 5, "over": "subjects", "clusters": 4}
    assert {m["role"] for m in summary["metrics"].values()} == {"reward", "guard"}
    assert not (folder / "guard.jsonl").exists() and (Path(folder) / "comparison.png").exists()


def test_targets_of_several_sizes_are_trained_on(small_sft, tmp_path) -> None:
    """Each stretched to the policy's size, on the sheet of samples, too."""
    for number, size in enumerate([(32, 32), (48, 20), (16, 40), (32, 32)]):
        Image.effect_noise(size, 60).convert("RGB").save(tmp_path / f"{number}.png")
    table = [{"prompt": "a toy", "references": ["3.png"], "target": f"{number}.png"} for number in range(3)]
    (tmp_path / "pairs.json").write_text(json.dumps(table))
    run = train(small_sft(f"data.source={tmp_path / 'pairs.json'}", "guard.every=0"), tmp_path / "run")
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3 and list((run / "samples").glob("*.png"))
