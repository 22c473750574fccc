"""Scores of drawn pictures, against values worked out by hand from their grey levels."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil

import pytest
from PIL import Image
from support.dreambench import SUBJECTS, Alike, Length, draw_photographs

from cgrpo.app.main import main
from cgrpo.data.captions import files_in
from cgrpo.data.own_subject import photos_in
from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.candidates import copy_candidates, method_candidates, of_no_row, real_candidates
from cgrpo.evaluation.benchmark.dreambench import dreambench_suite, official_list
from cgrpo.evaluation.benchmark.score import score_candidates
from cgrpo.evaluation.benchmark.suite import describe
from cgrpo.evaluation.metrics import Scorer
from cgrpo.evaluation.statistics.cells import short_summary
from cgrpo.files import save_picture
from cgrpo.scores import ScoreRow, collect_rows, join_description, read_scores, write_description

METRICS = {"alike": Scorer("judge", Alike()), "length": Scorer("judge", Length())}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def made(tmp_path):
    """Two seeds a row: seed 5 of grey 100, seed 6 of grey 110; the sizes differ too."""
    for row in official_list("single", SUBJECTS):
        (tmp_path / "made" / row.subject).mkdir(parents=True, exist_ok=True)
        for n in (0, 1):
            picture = Image.new("RGB", (8 + n, 8), (100 + 10 * n,) * 3)
            picture.save(tmp_path / "made" / row.subject / f"{row.prompt_index:02d}_{5 + n}.png")
    return tmp_path / "made"


def all_items(made, data):
    suite = dreambench_suite(data, "single", SUBJECTS)
    return [*method_candidates("ours", made, suite, 2, 5), *real_candidates(suite), *copy_candidates(suite)]


def score(items, data, out, **more):
    order = score_candidates(METRICS, items, data, out, **more)
    return collect_rows(out, order)


def means(rows):
    return {(r["method"], r["metric"], r["protocol"]): (r["mean"], r["pictures"]) for r in short_summary(rows)}


def test_scores_are_those_worked_out_by_hand(made, data, out):
    rows = score(all_items(made, data), data, out, protocols=("one", "all"))
    assert not [row for row in rows if row.score is None]
    found = {(r.method, r.subject, r.prompt_index, r.seed, r.metric, r.protocol, r.picture): r.score for r in rows}
    # The cat's reference 04 is of grey 100, its five photographs 60 to 100; JPEG may shift a level.
    assert found["ours", "cat", 0, 5, "alike", "one", "cat/00_5.png"] == pytest.approx(1.0, abs=0.02)
    assert found["ours", "cat", 0, 6, "alike", "one", "cat/00_6.png"] == pytest.approx(0.9, abs=0.02)
    assert found["ours", "cat", 0, 5, "alike", "all", "cat/00_5.png"] == pytest.approx(0.8, abs=0.02)
    assert found["ours", "cat", 0, 5, "length", "prompt", "cat/00_5.png"] == len("a cat in the jungle")
    # Real photographs against the reference, and leaving out the photograph itself: 00 with 70, 80, 90, 100.
    assert found["real-vs-real", "cat", None, None, "alike", "one", "cat/00.jpg"] == pytest.approx(0.6, abs=0.02)
    assert found["real-vs-real", "cat", None, None, "alike", "all", "cat/00.jpg"] == pytest.approx(0.75, abs=0.02)
    assert found["copy-paste", "cat", 7, None, "alike", "one", "cat/04.jpg"] == pytest.approx(1.0, abs=1e-6)
    told = {(r.subject, r.prompt_index): (r.subject_kind, r.prompt_kind) for r in rows if r.subject != "dog"}
    assert [told["cat", n] for n in (None, 0, 10, 24)] == [
        ("live", g) for g in ("", "background", "accessory", "property")
    ]
    assert told["vase", 10] == ("object", "context")
    counts = {key: count for key, (_, count) in means(rows).items()}
    assert counts == {
        ("ours", "alike", "one"): 150,
        ("ours", "alike", "all"): 150,
        ("ours", "length", "prompt"): 150,
        ("real-vs-real", "alike", "one"): 8,  # 11 photographs, 3 of them references
        ("real-vs-real", "alike", "all"): 8,
        ("copy-paste", "alike", "one"): 75,
        ("copy-paste", "alike", "all"): 75,
        ("copy-paste", "length", "prompt"): 75,
    }


def test_odd_photographs_are_read_as_viewers_show_them(data, made, out):
    """MPO's first frame, EXIF's turn, a palette: cat 01 to 03 are of grey 70, 80, 90, the reference of 100."""
    rows = score([i for i in all_items(made, data) if i.method == "real-vs-real"], data, out)
    cats = {row.picture: row.score for row in rows if row.subject == "cat"}
    assert cats == pytest.approx({f"cat/0{n}.jpg": 0.6 + 0.1 * n for n in range(4)}, abs=0.02)


def test_a_pair_is_the_mean_over_its_subjects(data, tmp_path, out):
    suite = dreambench_suite(data, "multi", SUBJECTS)
    suite = dataclasses.replace(suite, rows=suite.rows[:1])
    (tmp_path / "made" / "cat+dog").mkdir(parents=True)
    Image.new("RGB", (8, 8), (100,) * 3).save(tmp_path / "made" / "cat+dog" / "00_1.png")
    items = method_candidates("ours", tmp_path / "made", suite, 1, 1)
    (one, prompt) = score([*items], data, out)
    # Against the cat's 100 and the dog's 200: (1 + 0) / 2.
    assert (one.metric, one.score) == ("alike", pytest.approx(0.5, abs=0.02))
    assert prompt.score == len("a cat and a dog in the jungle")
    copies = score(copy_candidates(suite), data, out)[-2:]
    assert copies[0].picture == "cat/04.jpg + dog/02.jpg" and copies[0].score is not None


def test_pictures_named_as_uno_names_them(data, tmp_path, out):
    suite = dreambench_suite(data, "single", ["dog"])
    for row in suite.rows:
        Image.new("RGB", (8, 8)).save(tmp_path / f"{row.number}_0.jpg")
    items = method_candidates("theirs", tmp_path, suite, 1, layout="uno")
    assert items[2].picture == "252_0.jpg" and items[2].seed == 3407
    with pytest.raises(UserError, match=r"dog/00_3407.png; see --layout"):
        method_candidates("theirs", tmp_path, suite, 1)


def test_one_process_is_two(made, data, out, tmp_path):
    """Rows and their order, whatever the number of processes."""
    rows = score(all_items(made, data), data, out, chunk=16)
    two = tmp_path / "two"
    two.mkdir()
    for rank in (1, 0):
        order = score_candidates(METRICS, all_items(made, data), data, two, chunk=16, rank=rank, world=2)
    assert all((two / f"scores.part{rank}.jsonl").stat().st_size > 1000 for rank in (0, 1))
    assert collect_rows(two, order) == rows
    assert (two / "scores.jsonl").read_bytes() == (out / "scores.jsonl").read_bytes()
    assert not list(two.glob("scores.part*"))


def test_broken_off_and_continued(made, data, out, tmp_path):
    """Rows that are there are kept, even a wrong one; a line that was cut off is scored again."""
    whole = tmp_path / "whole"
    whole.mkdir()
    rows = score(all_items(made, data), data, whole)
    lines = (whole / "scores.jsonl").read_text().splitlines()
    kept = json.loads(lines[0]) | {"score": -7.0}
    (out / "scores.part0.jsonl").write_text(json.dumps(kept) + "\n" + lines[1] + "\n" + lines[2][:40])
    again = score(all_items(made, data), data, out)
    assert [dataclasses.replace(row, score=None) for row in again] == [
        dataclasses.replace(row, score=None) for row in rows
    ]
    assert again[0].score == -7.0 and again[1:] == rows[1:]


def test_a_picture_made_anew_is_scored_anew(made, data, out, capsys):
    """Its old score stood for the new picture. Photographs may be drawn again, and are the same."""
    (first, *others) = score(all_items(made, data), data, out)
    later = (out / "scores.jsonl").stat().st_mtime + 10
    Image.new("RGB", (8, 8), (0, 0, 0)).save(made / first.picture)
    for file in (made / first.picture, data / "dog/02.jpg"):
        os.utime(file, (later, later))
    capsys.readouterr()
    (again, *rest) = score(all_items(made, data), data, out)
    assert again.score != first.score and [row for row in rest if row.picture != first.picture] == [
        row for row in others if row.picture != first.picture
    ]
    assert (
        capsys.readouterr().err
        == f"cgrpo: 1 pictures, such as {first.picture}, are newer than their scores: scored anew\n"
    )


def test_pictures_of_no_row(made, data):
    """Those of rows counted from 1, say: the first is missing and the last is nobody's."""
    (made / "dog/00_5.png").rename(made / "dog/25_5.png")
    (made / "notes.txt").touch()
    items = method_candidates("ours", made, dreambench_suite(data, "single", SUBJECTS), 2, 5)
    assert of_no_row(made, items) == ["dog/25_5.png"]


def test_a_contact_sheet_is_no_picture_of_its_folder(made, data, tmp_path):
    """The one that `cgrpo sample` writes; a photo of that name is one."""
    save_picture(Image.new("RGB", (8, 8)), made / "sheet.png")
    items = method_candidates("ours", made, dreambench_suite(data, "single", SUBJECTS), 2, 5)
    assert of_no_row(made, items) == [] and made / "sheet.png" not in files_in(made)
    Image.new("RGB", (8, 8)).save(tmp_path / "sheet.png")
    save_picture(Image.new("RGB", (8, 8)), tmp_path / "a.png")
    photos, _, _ = photos_in(tmp_path)
    assert [photo.name for photo in photos] == ["a.png", "sheet.png"]
    with pytest.raises(UserError, match="holds no photos"):
        (tmp_path / "alone").mkdir()
        (made / "sheet.png").rename(tmp_path / "alone" / "sheet.png")
        photos_in(tmp_path / "alone")


def test_a_bad_picture_costs_its_own_row(made, data, out):
    items = all_items(made, data)
    good = (made / "dog" / "03_5.png").read_bytes()
    (made / "dog" / "03_5.png").write_bytes(good[:40])
    (made / "dog" / "04_5.png").unlink()
    Image.new("RGB", (8, 8)).save(made / "dog" / "05_5.png")  # black: Length can't score it
    rows = score(items, data, out)
    lost = [row for row in rows if row.score is None]
    assert [(row.picture, row.metric) for row in lost] == [
        ("dog/03_5.png", "alike"),
        ("dog/03_5.png", "length"),
        ("dog/04_5.png", "alike"),
        ("dog/04_5.png", "length"),
        ("dog/05_5.png", "length"),
    ]
    assert "can't be read" in lost[0].error and "no such picture" in lost[2].error and "length" in lost[4].error
    assert [r["failed"] for r in short_summary(rows) if r["method"] == "ours"] == [2, 3]
    (made / "dog" / "03_5.png").write_bytes(good)
    assert sum(row.score is None for row in score(items, data, out)) == 3  # mended, and scored when asked again


def test_a_chunk_broken_off_is_scored_in_its_whole_batch(made, data, out, tmp_path):
    """A metric whose scores depend on the batch gives the digits of an undisturbed run all the same."""

    class BatchSize(Length):
        def __call__(self, images_NHWC, batch):
            return super().__call__(images_NHWC, batch) + len(batch)

    items, metrics = all_items(made, data), {"size": Scorer("judge", BatchSize())}
    (tmp_path / "whole").mkdir()
    rows = collect_rows(tmp_path / "whole", score_candidates(metrics, items, data, tmp_path / "whole", chunk=16))
    lines = (tmp_path / "whole" / "scores.jsonl").read_text().splitlines(keepends=True)
    (out / "scores.part1.jsonl").write_text("".join(lines[:20]) + lines[20][:30])
    assert collect_rows(out, score_candidates(metrics, items, data, out, chunk=16)) == rows


def test_a_corrupt_picture_among_3000(data, tmp_path, capsys):
    """120 seeds x 25 prompts: the run ends, the row is marked, the summary says so, and the exit code tells."""
    (tmp_path / "made" / "dog").mkdir(parents=True)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    for index in range(25):
        for seed in range(3407, 3527):
            (tmp_path / "made" / "dog" / f"{index:02d}_{seed}.png").write_bytes(buffer.getvalue())
    (tmp_path / "made" / "dog" / "12_3467.png").write_bytes(buffer.getvalue()[:50])
    words = ["evaluate", "dreambench", "--data", str(data), "--images", str(tmp_path / "made"), "--subjects", "dog"]
    words += ["--seeds", "120", "--metric", "copy_paste", "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert "1 rows without a score" in capsys.readouterr().out
    rows = [row for row in read_scores(tmp_path / "out") if row.method == "made"]
    assert len(rows) == 3000
    (lost,) = [row for row in rows if row.score is None]
    assert (lost.picture, lost.seed) == ("dog/12_3467.png", 3467) and "can't be read" in lost.error
    told = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert told["failed"] == 1 and told["summary"][0]["failed"] == 1 and told["summary"][0]["pictures"] == 3000
    comparison = tmp_path / "comparison"
    assert main(["evaluate", "compare", str(tmp_path / "out"), "--out", str(comparison)]) == 0
    assert "1 of 3000 pictures of made have no score of copy_paste" in (comparison / "tables.md").read_text()


def test_a_bad_photograph_costs_what_needs_it(made, data, out, tmp_path):
    shutil.copytree(data, tmp_path / "bad")
    (tmp_path / "bad" / "vase" / "02.jpg").write_bytes(b"no picture")
    rows = score(all_items(made, tmp_path / "bad"), tmp_path / "bad", out)
    lost = {(row.method, row.subject, row.metric) for row in rows if row.score is None}
    assert lost == {
        ("ours", "vase", "alike"),
        ("real-vs-real", "vase", "alike"),
        ("copy-paste", "vase", "alike"),
        ("copy-paste", "vase", "length"),
    }


def test_the_mean_weighs_prompts_alike_and_leaves_out_what_failed():
    def row(subject, prompt_index, seed, score):
        return ScoreRow("ours", subject, prompt_index, "", seed, "alike", "one", score, "", None if score else "lost")

    rows = [row("cat", 0, 1, 0.2), row("cat", 0, 2, 0.4), row("cat", 1, 1, 0.9), row("cat", 1, 2, None)]
    rows += [row("dog", 0, 1, None), row("dog", 0, 2, None)]
    (column,) = short_summary(rows)
    assert column["mean"] == pytest.approx((0.3 + 0.9) / 2) and (column["pictures"], column["failed"]) == (6, 3)
    assert short_summary(rows[-2:])[0]["mean"] is None


def test_rows_that_are_none_are_told(out):
    (out / "scores.jsonl").write_text('{"method": "x"}\n')
    with pytest.raises(UserError, match=r"scores.jsonl, line 1"):
        read_scores(out)


def test_scores_that_can_not_be_compared_do_not_mix(made, data, out, tmp_path):
    suite = dreambench_suite(data, "single", ["dog"])
    write_description(out, join_description(out, describe(suite, out, {"ours": made}, {"alike": METRICS["alike"]})))
    other = dreambench_suite(data, "single", ["cat"])
    joined = join_description(out, describe(other, out, {"theirs": data}, {"length": METRICS["length"]}))
    assert list(joined["methods"]) == ["ours", "theirs"] and list(joined["metrics"]) == ["alike", "length"]
    assert joined["references"] == {"dog": ["dog/02.jpg"], "cat": ["cat/04.jpg"]}
    pairs = dreambench_suite(data, "multi", ["cat", "dog"])
    originals = dataclasses.replace(suite, conditions=suite.conditions | {"photographs": "originals"})
    trained_on = {"alike": Scorer("reward", Alike())}  # another part to play makes it no other metric
    assert join_description(out, describe(suite, out, {}, trained_on))["metrics"]["alike"]["role"] == "reward"
    for table, match in (
        (describe(pairs, out, {}, {}), r"another benchmark \(dreambench single, now dreambench multi\)"),
        (describe(originals, out, {}, {}), "another photographs"),
        (describe(suite, out, {"ours": data}, {}), "another method called 'ours'"),
        (describe(suite, out, {}, {"alike": METRICS["length"]}), "another metric called 'alike'"),
    ):
        with pytest.raises(UserError, match=match):
            join_description(out, table)
