"""The toy world and data of one's own as benchmarks, through the command."""

from __future__ import annotations

import json
import shutil
import time
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from support.warm import Started

from cgrpo.app.main import main
from cgrpo.config import load_config
from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.candidates import copy_candidates, real_candidates
from cgrpo.evaluation.benchmark.score import score_candidates
from cgrpo.evaluation.benchmark.suite import manifest_suite
from cgrpo.evaluation.benchmark.toybox import toybox_suite
from cgrpo.evaluation.heldout import heldout_tasks
from cgrpo.evaluation.metrics import Scorer
from cgrpo.evaluation.pages.comparison import write_comparison
from cgrpo.rewards import Reward
from cgrpo.scores import read_scores

SMALL = ["--subjects", "2", "--prompts", "4", "--seeds", "3", "--set", "sampling.steps=4"]


def means(out):
    summary = json.loads((out / "benchmark.json").read_text())["summary"]
    return {(row["method"], row["metric"], row["protocol"]): row["mean"] for row in summary}


def pictures(out):
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*.png"))}


# -- the toy world ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out, threads = tmp_path_factory.mktemp("whole"), torch.get_num_threads()
    torch.set_num_threads(1)  # the number of threads shows in the last digits
    try:
        assert main(["evaluate", "toybox", "--out", str(out), *SMALL, "--protocol", "one", "--protocol", "all"]) == 0
    finally:
        torch.set_num_threads(threads)
    return out


def test_the_toybox_is_the_one_that_training_evaluates_on(tmp_path):
    cfg = load_config("toybox", ["evaluation.subjects=3", "evaluation.prompts_per_subject=4"])
    suite = toybox_suite(tmp_path, "test", cfg.data.dial, 3, 4)
    batch = heldout_tasks(cfg)[1].batch
    assert [row.prompt for row in suite.rows] == list(batch.prompts)
    for row, references in zip(suite.rows, batch.references, strict=True):
        assert (np.asarray(Image.open(tmp_path / row.references[0])) == np.asarray(references[0])).all()
    assert [row.prompt_kind == "property" for row in suite.rows] == [
        any(word in row.prompt for word in ("red", "yellow", "green", "blue", "purple")) for row in suite.rows
    ]
    assert len({pictures(tmp_path)[name] for name in suite.photos["toy00"]}) == 4


def test_every_reference_row_stands_beside_the_method(whole):
    found = means(whole)
    assert found["copy-paste", "identity", "one"] > 0.999 > found["copy-paste", "identity", "all"]
    assert found["real-vs-real", "prompt_readback", "prompt"] > found["copy-paste", "prompt_readback", "prompt"] + 0.2
    assert found["autoencoded", "identity", "one"] > found["prompt-only", "identity", "one"] + 0.2
    assert {method for method, _, _ in found} == {"base", "prompt-only", "autoencoded", "real-vs-real", "copy-paste"}
    assert {metric for _, metric, _ in found} == {"identity", "prompt", "identity_readback", "prompt_readback"}
    counts = {name: sum(r.method == name and r.metric == "prompt" for r in read_scores(whole)) for name, _, _ in found}
    assert counts == {"base": 24, "prompt-only": 24, "autoencoded": 8, "real-vs-real": 8, "copy-paste": 8}


def test_killed_twice_and_finished_by_two_processes_is_the_undisturbed_run(whole, tmp_path):
    """SIGKILL while sampling, then while scoring: nothing is made twice or lost, and no row differs."""
    words = ["evaluate", "toybox", "--out", str(tmp_path), *SMALL, "--protocol", "one", "--protocol", "all"]

    def killed_when(reached):
        job = Started(main, words, threads=1)
        while not reached():
            assert job.poll() is None, "it was through before it could be killed"
            time.sleep(0.002)
        job.kill()

    made = tmp_path / "pictures" / "base"
    killed_when(lambda: len(list(made.rglob("*.png"))) >= 5)
    assert 5 <= len(list(made.rglob("*.png"))) < 24
    before = {file: file.stat().st_mtime_ns for file in made.rglob("*.png")}
    killed_when(lambda: (tmp_path / "scores.part0.jsonl").exists())
    done = Started(main, words, 2).wait()
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Toybox: 8 rows") == 1  # said once
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())
    assert pictures(tmp_path) == pictures(whole)
    assert (tmp_path / "scores.jsonl").read_text() == (whole / "scores.jsonl").read_text()


def test_a_folder_that_was_moved_still_shows_its_pictures(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "moved")
    told = json.loads((tmp_path / "moved" / "benchmark.json").read_text())
    assert (told["data"], told["methods"]["base"]) == ("data", "pictures/base")
    (tmp_path / "moved" / "pictures" / "base" / "toy00" / "00_3407.png").unlink()
    page = write_comparison(tmp_path / "moved", None, tmp_path / "page").read_text()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert [pair["m"].index(None) if None in pair["m"] else None for pair in data["pairs"]] == [0] + [None] * 7
    assert all(pair["r"] is not None for pair in data["pairs"])


def test_other_counts_are_another_benchmark(whole, capsys):
    assert main(["evaluate", "toybox", "--out", str(whole), *SMALL[2:], "--subjects", "3"]) == 2
    assert "data holds pictures made with another subjects; give another" in capsys.readouterr().err


# -- data of one's own -----------------------------------------------------------------------------


@pytest.fixture
def manifest(tmp_path):
    """A cat with two references and targets, a dog in a zip, another dog without a word for it."""
    for name, grey in (("a", 40), ("b", 60), ("target", 90), ("rex", 200)):
        Image.new("RGB", (40, 32), (grey,) * 3).save(tmp_path / f"{name}.png")
    with zipfile.ZipFile(tmp_path / "dogs.zip", "w") as archive:
        archive.write(tmp_path / "rex.png", "rex/0.png")
    rows = [
        {"references": ["a.png", "b.png"], "prompt": "a cat in the snow", "subject": "my cat", "target": "target.png"},
        {
            "references": ["dogs.zip!/rex/0.png"],
            "prompt": "a dog at night",
            "subject": "dog",
            "meta": {"subject_kind": "live"},
        },
        {
            "references": ["a.png", "b.png"],
            "prompt": "a red cat",
            "subject": "my cat",
            "meta": {"prompt_kind": "property"},
        },
        {"references": ["rex.png"], "prompt": "at sea", "subject": "dog"},
        {"references": ["b.png"], "prompt": "on a beach"},
    ]
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    return tmp_path / "mine.json"


def test_rows_of_one_set_of_references_are_one_subject(manifest):
    suite = manifest_suite(manifest)
    rows = [(row.subject, row.prompt_index, row.prompt, row.subject_kind, row.prompt_kind) for row in suite.rows]
    assert rows == [
        ("my_cat", 0, "a cat in the snow", "", ""),
        ("dog", 0, "a dog at night", "live", ""),
        ("my_cat", 1, "a red cat", "", "property"),
        ("dog-2", 0, "at sea", "", ""),
        ("b", 0, "on a beach", "", ""),
    ]
    assert [len(row.references) for row in suite.rows] == [2, 1, 2, 1, 1]
    (real,) = real_candidates(suite)
    assert (real.prompt, real.files[0].name) == ("a cat in the snow", "target.png")
    assert [len(item.references("all")[0][1]) for item in copy_candidates(suite)] == [2, 1, 2, 1, 1]
    assert len(manifest_suite(manifest, limit=2).rows) == 2


def test_a_manifest_from_pictures_to_a_page(manifest, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["evaluate", "manifest", str(manifest), "--out", str(out), "--seeds", "2", "--set", "sampling.steps=2"]
    words += ["--metric", "clip-i=toybox", "--metric", "clip=toybox", "--protocol", "one", "--protocol", "all"]
    assert main(words) == 0
    assert main([*words, "--images", str(out / "pictures" / "prompt-only"), "--method", "theirs"]) == 0
    assert "mine.json: 5 rows" in capsys.readouterr().out
    assert main(["evaluate", "compare", str(out), "--out", str(tmp_path / "page")]) == 0
    found = means(out)
    assert found["copy-paste", "clip-i", "one"] == pytest.approx(1, abs=1e-4)
    assert found["theirs", "clip", "prompt"] == pytest.approx(found["prompt-only", "clip", "prompt"], abs=1e-6)
    table = json.loads((tmp_path / "page" / "comparison.json").read_text())
    assert (table["baseline"], table["methods"]) == ("base", ["base", "theirs"])
    manifest.write_text(manifest.read_text().replace("red", "blue"))
    assert main(words) == 2
    assert "holds scores of another rows" in capsys.readouterr().err


def test_a_manifest_at_fault_is_one_line(tmp_path, capsys):
    (tmp_path / "bad.json").write_text('[{"prompt": "a cat"}]')
    assert main(["evaluate", "manifest", str(tmp_path / "bad.json"), "--out", str(tmp_path / "out")]) == 2
    assert "bad.json, row 1: references" in capsys.readouterr().err
    with pytest.raises(UserError, match="no such file"):
        manifest_suite(tmp_path / "none.json")


def test_measures_of_the_picture_alone_stand_on_neither_axis(manifest, tmp_path):
    """Copies of the cats' first reference and of the dogs': grey 40, 200 and, of b.png, 60."""
    for name in ("my_cat", "dog", "dog-2", "b"):
        (tmp_path / "made" / name).mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (40, 32), (102,) * 3).save(tmp_path / "made" / name / f"{index:02d}_3407.png")
    words = ["evaluate", "manifest", str(manifest), "--images", str(tmp_path / "made"), "--seeds", "1"]
    words += ["--metric", "brightness", "--metric", "copy_paste", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    found = means(tmp_path / "out")
    assert found["made", "brightness", "picture"] == pytest.approx(102 / 255, abs=1e-6)
    assert found["real-vs-real", "brightness", "picture"] == pytest.approx(90 / 255, abs=1e-6)
    assert found["copy-paste", "brightness", "picture"] == pytest.approx((40 + 200 + 40 + 200 + 60) / 5 / 255, abs=1e-6)
    nearest = (42 + 98 + 42 + 98 + 42) / 5  # of my_cat's two the brighter
    assert found["made", "copy_paste", "picture"] == pytest.approx(1 - nearest / 255, abs=1e-6)
    assert main(["evaluate", "compare", str(tmp_path / "out"), "--out", str(tmp_path / "page")]) == 0
    table = json.loads((tmp_path / "page" / "comparison.json").read_text())
    assert table["columns"] == ["brightness", "copy_paste"] and table["tradeoffs"] == []


class Share(Reward):
    """How much of the reference its mask has: -1 without one."""

    axis = "identity"
    unit = "test"

    def __call__(self, images_NHWC, batch):
        given = batch.reference_masks or [(None,) * len(row) for row in batch.references]
        shares = [[-1.0 if m is None else m.histogram()[255] / (m.width * m.height) for m in row] for row in given]
        return torch.tensor([sum(row) / len(row) for row in shares])


def test_the_data_sets_own_masks_count_as_in_training(manifest, tmp_path):
    """They were passed over: the same metric said something else of the same pictures than held-out tasks did."""
    mask = Image.new("L", (40, 32), 0)
    mask.paste(20, (0, 0, 20, 32))
    mask.save(tmp_path / "mask.png")
    rows = [{"references": ["a.png", "b.png"], "masks": ["mask.png", None], "mask_threshold": 8, "prompt": "a cat"}]
    (tmp_path / "masked.json").write_text(json.dumps(rows))
    suite = manifest_suite(tmp_path / "masked.json")
    (tmp_path / "out").mkdir()
    metrics = {"share": Scorer("judge", Share())}
    items = copy_candidates(suite)
    score_candidates(metrics, items, suite.root, tmp_path / "out", masks=suite.masks)
    # Or scores of both would mix.
    assert suite.conditions["masks"] == 1 and "masks" not in manifest_suite(manifest).conditions
    assert [row.score for row in read_scores(tmp_path / "out")] == [0.5]
    score_candidates(metrics, items, suite.root, tmp_path / "out", masks=suite.masks, protocols=("all",))
    assert read_scores(tmp_path / "out")[-1].score == (0.5 - 1) / 2
