"""The comparison's files: one JSON, tables of its numbers, and a page that needs nothing else."""

import base64
import io
import json
import random
import re
from dataclasses import replace

import pytest
from PIL import Image
from support.pages import Page

from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.dreambench import official_list
from cgrpo.evaluation.pages.comparison import write_comparison
from cgrpo.evaluation.pages.comparison.page import verdict, why_apart
from cgrpo.evaluation.pages.comparison.tables import differences_table, latex, markdown
from cgrpo.evaluation.show import thumbnails
from cgrpo.evaluation.statistics.comparison import compare_methods
from cgrpo.scores import ScoreRow, read_scores, write_description, write_scores

SUBJECTS = ["can", "cat", "teapot"]
SCRIPT = "</script><script>alert('x')</script>"


def score(method, item, metric, protocol, value, picture, seed=3407, prompt=None):
    texts = (item.prompt_index, prompt or item.prompt, seed, metric, protocol, value, picture, None)
    return ScoreRow(method, item.subject, *texts, item.subject_kind, item.prompt_kind)


@pytest.fixture
def folder(tmp_path):
    """Scores of two methods and two reference rows on three subjects x 25 prompts; new lacks teapot's pictures."""
    scores, rows = tmp_path / "scores", []
    for item in official_list(subjects=SUBJECTS):
        name = f"{item.subject}/{item.prompt_index:02d}_3407.png"
        prompt = SCRIPT if (item.subject, item.prompt_index) == ("can", 0) else None
        for place, method in enumerate(("base", "new_50%")):
            for metric, protocol, value in (("dino", "one", 0.6 + 0.1 * place), ("clip", "prompt", 0.3 - 0.01 * place)):
                value += 0.001 * item.prompt_index * place + 0.01 * (item.subject == "cat") * place
                rows.append(score(method, item, metric, protocol, value, name, prompt=prompt))
            if not (place and item.subject == "teapot"):
                file = scores / "pictures" / method / name
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (300, 300), (item.prompt_index * 10, 90 * place, 40)).save(file)
        for metric, protocol, value in (("dino", "one", 1.0), ("clip", "prompt", 0.2)):
            rows.append(score("copy-paste", item, metric, protocol, value, item.references[0], seed=None))
        reference = tmp_path / "dreambench" / item.references[0]
        reference.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), "red").save(reference)
    write_scores(scores, rows)
    methods = {method: str(scores / "pictures" / method) for method in ("base", "new_50%")}
    references = {item.subject: list(item.references) for item in official_list(subjects=SUBJECTS)}
    references["can+cat"] = [*references["can"], *references["cat"]]
    about = {"benchmark": "DreamBench, some", "data": str(tmp_path / "dreambench")}
    write_description(scores, about | {"methods": methods, "references": references})
    return scores


def test_all_files_come_from_one_comparison(folder, tmp_path):
    page = write_comparison(folder, "base", tmp_path / "out")
    names = {"comparison.json", "tables.md", "tables.tex", "pareto.png", "subjects.png", "index.html"}
    assert {file.name for file in page.parent.iterdir()} == names and page.name == "index.html"
    table = json.loads((page.parent / "comparison.json").read_text())
    assert [words.startswith("new_50% against base: ") for words in table.pop("verdicts")] == [True]
    alone = compare_methods(read_scores(folder), "base").as_dict()
    assert table == json.loads(json.dumps(alone | {"settings": {"benchmark": "DreamBench, some"} | alone["settings"]}))
    assert "<h1>DreamBench, some: compared with base</h1>" in page.read_text()
    (dino,) = [d for d in table["differences"] if d["column"] == "dino (one)" and d["group"] == "all"]
    # 0.1, plus 0.001 times the mean of 0..24, plus 0.01 on one subject of three
    assert dino["difference"] == pytest.approx(0.1 + 0.012 + 0.01 / 3)
    assert "| new_50% | dino (one) | +0.115 [" in (page.parent / "tables.md").read_text()
    for name in ("pareto.png", "subjects.png"):
        with Image.open(page.parent / name) as picture:
            assert min(picture.size) > 300


def test_the_page_needs_nothing_else_and_shows_every_pair(folder, tmp_path):
    text = write_comparison(folder, None, tmp_path / "out").read_text()
    page = Page(text)
    assert page.loads == [] and not re.search(r"url\((?!#)|@import|https?://", text)
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("script") == 3  # a prompt can't open another
    data = page.data
    assert (data["shown"], data["columns"]) == (["base", "new_50%"], ["dino (one)", "clip"])
    assert len(data["pairs"]) == 75
    first = data["pairs"][0]
    assert (first["s"], first["i"], first["p"], first["q"]) == ("can", 0, SCRIPT, False)
    assert first["v"] == [[0.6, 0.3], [pytest.approx(0.7), pytest.approx(0.29)]]
    assert sum(pair["q"] for pair in data["pairs"]) == 15
    # what is not there is null and nothing else is
    missing = [(pair["s"], m) for pair in data["pairs"] for m, place in enumerate(pair["m"]) if place is None]
    assert missing == [("teapot", 1)] * 25 and all(pair["r"] is not None for pair in data["pairs"])
    assert len(data["pictures"]) == 3 + 75 + 50  # a reference once a subject
    with Image.open(io.BytesIO(base64.b64decode(data["pictures"][first["m"][0]]))) as picture:
        assert picture.format == "JPEG" and picture.size == (256, 256)


def test_a_verdict_names_what_rose_fell_and_stayed(folder):
    comparison = compare_methods(read_scores(folder), "base")
    unsure = verdict(comparison, "new_50%")  # three subjects: p is 0.25 at least
    assert (unsure.kind, unsure.text) == (
        "unknown",
        "new_50% against base: no sure change in dino (one) (+0.115), clip (+0.005).",
    )
    assert why_apart(comparison, "new_50%") == [
        "new_50%: the 95 % interval of dino (one) excludes 0, but 3 subjects are too few for the test: its p is at "
        "least 0.500 after correction for 2 tests."
    ]
    note = differences_table(comparison).note
    assert "Of 3 subjects p can't fall below 0.250, 0.500 after Holm" in note
    sure = [replace(d, p_holm=0.01, low=0.001) for d in comparison.differences]
    assert verdict(replace(comparison, differences=sure), "new_50%").kind == "rose"
    fell = [replace(d, difference=-0.2, low=-0.3, high=-0.1) if d.column == "clip" else d for d in sure]
    mixed = verdict(replace(comparison, differences=fell), "new_50%")
    text = "new_50% against base: rose in dino (one) (+0.115); fell in clip (\N{MINUS SIGN}0.200)."
    assert (mixed.kind, mixed.text) == ("mixed", text)


def rows_of(gaps_by_prompt):
    """Two methods on 14 subjects; the gap of each is ``gaps_by_prompt``(subject's number)."""
    return [
        ScoreRow(method, f"s{n:02d}", 0, "a toy", 1, "dino", "one", 0.5 + gap, "", None)
        for n in range(14)
        for method, gap in (("base", 0.0), ("new", gaps_by_prompt(n)))
    ]


@pytest.mark.parametrize("count", [2, 3, 5, 8, 14])
@pytest.mark.parametrize("spread", [0.01, 0.1, 0.3, 3.0])
def test_a_verdict_and_its_test_agree_or_it_says_why(count, spread):
    """Whatever the data: sure is what the test says, and an interval that says otherwise is explained."""
    rng = random.Random(count)
    rows = rows_of(lambda n: 0.1 + spread * rng.gauss(0, 1) * (10 if n == 3 else 1))
    comparison = compare_methods([row for row in rows if int(row.subject[1:]) < count])
    (change,) = comparison.tested()
    text, why = verdict(comparison, "new").text, " ".join(why_apart(comparison, "new"))
    assert ("no sure change" not in text) == change.sure == (change.p_holm < 0.05)
    assert bool(why) == (change.sure != change.beyond_zero)
    assert ("too few for the test" in why) == (change.beyond_zero and count < 6)


def test_a_measure_that_is_neither_good_nor_bad_is_no_verdict():
    def row(method, subject, metric, protocol, value):
        return ScoreRow(method, subject, 0, "a toy", 1, metric, protocol, value, "", None)

    rows = []
    for number in range(12):
        for method, gain in (("base", 0.0), ("new", 0.1)):
            rows.append(row(method, f"s{number}", "brightness", "picture", 0.5 + gain))
            rows.append(row(method, f"s{number}", "dino", "one", 0.5 + gain))
    told = verdict(compare_methods(rows), "new")
    assert (told.kind, told.text) == ("rose", "new against base: rose in dino (one) (+0.100).")
    told = verdict(compare_methods([r for r in rows if r.metric == "brightness"]), "new")
    assert told.kind == "unknown" and "no score of identity or of the prompt that both have" in told.text


def test_methods_moved_with_their_folder_are_found_beside_the_scores(folder, tmp_path):
    (folder / "benchmark.json").unlink()
    for method in ("can", "cat"):
        (folder / "pictures" / "base" / method).rename(folder / method)
    data = Page(write_comparison(folder, "base", tmp_path / "out").read_text()).data
    assert [pair["m"][0] is None for pair in data["pairs"]] == [False] * 50 + [True] * 25
    assert all(pair["r"] is None for pair in data["pairs"])


def test_a_pair_of_subjects_shows_both_references_side_by_side(folder, tmp_path):
    write_scores(folder, [replace(row, subject="can+cat") for row in read_scores(folder)[:30]])
    data = Page(write_comparison(folder, None, tmp_path / "out").read_text()).data
    both = Image.open(io.BytesIO(base64.b64decode(data["pictures"][data["pairs"][0]["r"]])))
    assert both.size == (64, 64)  # two of 64 x 48, halved, on a white square
    assert both.getpixel((32, 4)) == (255, 255, 255) and both.getpixel((16, 32))[2] < 60 > both.getpixel((48, 32))[2]


def test_thumbnails_shrink_until_they_keep_the_budget(tmp_path):
    files = []
    for n in range(6):
        files.append((tmp_path / f"{n}.png",))
        Image.effect_noise((300, 300), 90).save(files[-1][0])
    sizes = {side: 6 * len(thumbnails.thumbnail(files[0], side) or "") for side in thumbnails.SIDES}
    assert thumbnails.choose_side(files, budget=10**9) == 256
    assert thumbnails.choose_side(files, budget=int(sizes[144] * 1.1)) == 144
    assert thumbnails.choose_side(files, budget=1) == thumbnails.SIDES[-1]
    tiny = Image.effect_noise((32, 32), 90).convert("RGB")
    tiny.save(tmp_path / "tiny.png")
    with Image.open(io.BytesIO(base64.b64decode(thumbnails.thumbnail([tmp_path / "tiny.png"], 256)))) as kept:
        assert kept.format == "PNG" and kept.tobytes() == tiny.tobytes()
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert thumbnails.thumbnail([tmp_path / "broken.png"], 64) is None
    assert thumbnails.thumbnail([tmp_path / "none.png"], 64) is None


def test_latex_escapes_names_and_closes_every_table(folder):
    comparison = compare_methods(read_scores(folder), "base")
    text = latex(comparison)
    assert r"new\_50\%" in text and "new_50%" not in text
    assert r"$-$0." in text and "\N{MINUS SIGN}" not in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == markdown(comparison).count("\n## ")
    for spec, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end", text, re.DOTALL):
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {line.count(" & ") + 1 for line in lines} == {len(spec)}


def test_one_method_alone_has_means_and_a_page_but_no_differences(folder, tmp_path):
    write_scores(folder, [row for row in read_scores(folder) if (row.method, row.metric) == ("base", "dino")])
    page = write_comparison(folder, None, tmp_path / "out")
    table = json.loads((page.parent / "comparison.json").read_text())
    assert table["differences"] == [] and table["tradeoffs"] == [] and len(table["means"]) == 8  # groups
    assert (page.parent / "tables.md").read_text().count("\n## ") == 1


def test_no_scores_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match=r"scores\.jsonl: no scores; run cgrpo evaluate"):
        write_comparison(tmp_path, None, tmp_path / "out")
