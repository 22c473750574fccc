"""The report: everything in it, nothing fetched, and never in the way of a run that ended oddly."""

import html
import json
import math
import re

import pytest
import torch
from PIL import Image
from support.pages import Page

from cgrpo.config import Shaping, Weights
from cgrpo.evaluation.heldout import HeldOut, Tasks
from cgrpo.evaluation.pages.report import write_report
from cgrpo.evaluation.pages.report.heldout import tradeoff
from cgrpo.evaluation.pages.report.page import cautions, verdict
from cgrpo.evaluation.show.table import DASH, MINUS
from cgrpo.evaluation.statistics.paired import Clusters
from cgrpo.training.forward.settings import ForwardConfig
from cgrpo.training.grpo.settings import GrpoConfig
from cgrpo.training.sft.settings import SftConfig
from cgrpo.types import Batch

NAN = math.nan
SCRIPT = "<script>alert('x')</script> & a toy"
ROLES = {
    "identity": ("reward", "identity"),
    "prompt": ("reward", "prompt"),
    "identity_readback": ("judge", "identity"),
    "prompt_readback": ("judge", "prompt"),
    "copy_paste": ("guard", "identity"),
}


def metric(role, axis, difference=0.05, half=0.01, base=0.6):
    bounds = {"low": difference - half, "high": difference + half}
    return {"role": role, "axis": axis, "base": base, "trained": base + difference, "difference": difference} | bounds


def all_metrics(**differences):
    return {name: metric(*role, differences.get(name, 0.05)) for name, role in ROLES.items()}


def training_rows(count=30):
    return [
        {
            "iteration": i,
            "reward/identity/mean": 0.6 + 0.01 * i,
            "reward/identity/std": 0.1,
            "reward/identity/failed": 0,
            "reward/prompt/mean": None if i == 3 else 0.3,
            "reward/prompt/std": None,
            "conflict_share": 0.48,
            "reward_correlation": None,
            "ratio_drift": 1e-7 if i else 0.0,
            "clip_share": 0.2,
            "gradient_norm": 0.7,
            "seconds/total": 4.0,
        }
        for i in range(count)
    ]


def heldout_pictures(tasks=6, prompt=SCRIPT):
    picture = Image.new("RGB", (8, 8), "red")
    batch = Batch(tuple(map(str, range(tasks))), (prompt,) * tasks, ((picture,),) * tasks, ("toy",) * tasks)
    images_NHWC = torch.zeros(tasks, 8, 8, 3, dtype=torch.uint8)
    scores = {name: {arm: torch.rand(tasks) for arm in ("base", "trained")} for name in ROLES}
    told = Tasks(batch, [], Clusters(torch.arange(tasks) // 2, "subjects"), "Toybox", "test", {})
    return HeldOut(told, images_NHWC, images_NHWC + 9, scores)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "environment.json").write_text(json.dumps({"torch": "2.9.1"}))
    (folder / "samples").mkdir()
    for iteration in (0, 5):
        Image.new("RGB", (1500, 70), "red").save(folder / "samples" / f"{iteration:05d}.png")
    summary = {
        "heldout": {"source": "test", "over": "subjects"},
        "metrics": all_metrics(),
        "seconds": {"training": 120.0},
    }
    summary["by_prompt"] = {"plain": all_metrics(), "property": all_metrics(identity=-0.05)}
    path = write_report(folder, training_rows(), GrpoConfig(), summary, heldout_pictures())
    assert path == folder / "report.html"
    assert sorted(p.name for p in folder.iterdir()) == ["environment.json", "report.html", "samples"]
    source = path.read_text(encoding="utf-8")
    return source, Page(source)


def test_contains_every_metric_setting_and_picture(page):
    _, parsed = page
    for name in ROLES:
        assert parsed.text.count(name.replace("_", " ")) >= 3  # all, plain, property
    for text in ("+0.050", "+0.040 to +0.060", f"{MINUS}0.050", '"learning_rate"'):
        assert text in parsed.text
    for text in ("2.9.1", "2.0 minutes", "6 of test: 3 subjects"):  # environment and facts
        assert text in parsed.text
    assert parsed.tags.count("img") == 3 * 6 + 3 * 4 + 2  # the rule's tasks, four of them before, two sheets
    assert parsed.tags.count("svg") == 1 + 2 + 1 + 3  # trade-off, rewards, conflict (correlation is all None), health


def test_what_is_read_first_stands_first(page):
    """The verdict, four pairs, the main table; settings last and folded."""
    source, parsed = page
    places = [source.index(text) for text in ('class="verdict', 'class="gallery large"', "All 6 tasks", "<table>")]
    assert places == sorted(places)
    shown = re.sub(r"<details>.*?</details>", "", source, flags=re.DOTALL)
    assert shown.count("<img") == 3 * 4 + 2 and "learning_rate" not in shown and "2.9.1" not in shown
    assert "Iteration 0" in parsed.text and "Iteration 5" in parsed.text


def test_fetches_nothing(page):
    source, parsed = page
    assert not re.search(r"https?:|//[a-z]|@import|xmlns", source)
    for name, value in parsed.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#"))
    assert not {"link", "iframe", "object"} & set(parsed.tags)


def test_prompts_are_escaped(page):
    _, parsed = page
    assert parsed.tags.count("script") == 1  # the page's own
    assert SCRIPT in parsed.text
    assert ("alt", f"base: {SCRIPT}") in parsed.attributes


def test_ids_are_unique_and_every_reference_is_met(page):
    source, parsed = page
    assert len(parsed.ids) == len(set(parsed.ids))
    wanted = re.findall(r"url\(#([^)]+)\)", source) + [v[1:] for n, v in parsed.attributes if n == "href"]
    wanted += [value for name, value in parsed.attributes if name == "aria-labelledby"]
    assert set(wanted) <= set(parsed.ids)


@pytest.mark.parametrize("rows", [[], training_rows(1), [{"iteration": 0}], [{"iteration": 0, "clip_share": NAN}]])
def test_written_without_evaluation_and_whatever_the_rows(tmp_path, rows):
    for summary in ({}, {"metrics": {}, "by_prompt": {}}, {"seconds": {"training": None}}):
        parsed = Page(write_report(tmp_path, rows, GrpoConfig(), summary, None).read_text(encoding="utf-8"))
        assert not re.search(r"\bnan\b", parsed.text.lower())
        assert "img" not in parsed.tags


def test_unscored_metrics_read_as_a_dash(tmp_path):
    nothing = {"role": "judge", "axis": "prompt"} | dict.fromkeys(("base", "trained", "difference", "low", "high"), NAN)
    summary = {"metrics": {"prompt_readback": nothing, "other": nothing | {"base": None}}}
    parsed = Page(
        write_report(tmp_path, training_rows(2), GrpoConfig(), summary, heldout_pictures()).read_text("utf-8")
    )
    assert f"{DASH} to {DASH}" in parsed.text and "unclear" in parsed.text
    assert not re.search(r"\bnan\b", parsed.text.lower())


def test_names_from_the_configuration_are_taken_literally(tmp_path):
    rows = [{"iteration": i, "reward/a<b> & $x$/mean": 0.1 * i} for i in range(3)]
    source = write_report(tmp_path, rows, GrpoConfig(), {}, None).read_text("utf-8")
    assert "a<b>" not in source and "a<b> & $x$ reward" in html.unescape(source)


def test_the_same_run_gives_the_same_report(tmp_path):
    sources = {write_report(tmp_path, training_rows(), GrpoConfig(), {}, None).read_text("utf-8") for _ in range(2)}
    assert len(sources) == 1


@pytest.mark.parametrize(
    "differences, kind, words",
    [
        ({}, "rose", "both rewards rose (identity +0.050, prompt +0.050), and both judges rose"),
        (
            {"prompt": 0.005},
            "mixed",
            "the identity reward rose (+0.050) while the prompt reward did not change measurably (+0.005)",
        ),
        ({"identity": -0.05, "prompt": -0.05}, "mixed", "both rewards fell (identity -0.050, prompt -0.050)"),
        (
            {"prompt_readback": -0.05},
            "mixed",
            "the identity readback judge rose (+0.050) while the prompt readback judge fell (-0.050)",
        ),
        ({"copy_paste": -0.5}, "rose", "every 95 % interval lies above 0"),
    ],
)
def test_verdict(differences, kind, words):
    result = verdict(all_metrics(**differences), 10)
    assert result.kind == kind and words in result.text.replace(MINUS, "-")


def test_verdict_ignores_rewards_that_were_only_watched():
    metrics = all_metrics() | {"aesthetic": metric("reward", "prompt", -0.5)}
    assert verdict(metrics, 10).kind == "rose"


def test_no_verdict_without_training_or_evaluation():
    assert verdict(all_metrics(), 0).kind == "unknown"
    assert verdict({}, 10).kind == "unknown"


def test_a_rising_guard_is_pointed_out():
    assert cautions(all_metrics(copy_paste=0.001), {}) == []
    assert cautions(all_metrics(copy_paste=0.1), {"copy_paste": 0.25}) == []  # within half a standard deviation
    assert "copy paste rose too (+0.100)" in cautions(all_metrics(copy_paste=0.1), {"copy_paste": 0.15})[0]


@pytest.mark.parametrize(
    "shaping, weights, name",
    [
        ("tanh", "sigmoid", "Customized-GRPO: SARS + TDW"),
        ("none", "sigmoid", "Customized-GRPO: TDW"),
        ("tanh", "inverted", "Customized-GRPO: SARS + inverted TDW"),
        ("none", "constant", "Naive GRPO, weights prompt : identity = 0.4 : 0.6"),
        ("min", "sigmoid", "GRPO on the min of the advantages"),
    ],
)
def test_method_is_named(shaping, weights, name):
    config = GrpoConfig(shaping=Shaping(type=shaping), weights=Weights(type=weights, prompt=0.4))
    assert config.title() == name


def test_a_supervised_run_says_so_and_nothing_of_credit(tmp_path):
    rows = [{"iteration": i, "loss": 0.5, "gradient_norm": 0.1, "seconds/total": 1.0} for i in range(3)]
    parsed = Page(write_report(tmp_path, rows, SftConfig(), {}, None).read_text("utf-8"))
    assert "Supervised fine-tuning on target pictures" in parsed.text and "256 an iteration" in parsed.text
    assert not re.search(r"SARS|TDW|shaping|Customized-GRPO", parsed.text)


def test_a_run_on_the_forward_process_says_what_held_it_back(tmp_path):
    training = {"average": 0.9, "schedule": "cosine", "warmup": 3, "learning_rate": 1e-3}
    rows = [
        {"iteration": n, "gradient_norm": 0.1, "old_gap": 0.01, "updates_left_out": 2.0 * (n > 7)} for n in range(10)
    ]
    config = ForwardConfig.model_validate({"training": training})
    text = write_report(tmp_path, rows, config, {"stopped": "stopped: as the norm ran away"}, None).read_text("utf-8")
    assert "DiffusionNFT on the forward process: SARS + TDW" in text and "stopped: as the norm ran away" in text
    assert "0.001, rising over 3 iterations, falling to 0 (cosine)" in text and "decay 0.9 per iteration" in text
    parsed = Page(text).text
    assert re.search(r"Updates left out\s*4\b", parsed) and "rollout and replay" not in parsed


def test_tradeoff_needs_a_judge_of_both_axes():
    metrics = all_metrics()
    assert "identity 0.600 to 0.650, prompt 0.600 to 0.650" in tradeoff({"all": metrics})
    del metrics["prompt_readback"]
    assert tradeoff({"all": metrics}) == "" == tradeoff({"all": {}})
