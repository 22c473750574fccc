"""The guard in a run: it changes no number of the training, keeps the best adapter, and stops a run where nothing gets
better. That it is the same for any number of processes and after a kill is in test_equivalence."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support import exact_rewards
from support.runs import GUARDED, JUDGED, adapter, distance, one_line

from cgrpo.app.main import main
from cgrpo.app.run import train
from cgrpo.app.sample import configuration
from cgrpo.config import load_config
from cgrpo.training.checkpoint import restore_best, save_checkpoint
from cgrpo.training.record import RunRecord

STILL = ("guard.scorers.still.type=support.exact_rewards:constant", "guard.patience=2")
TOLD = ("guard.scorers.told.type=support.exact_rewards:rise_and_fall",)


def given(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def text(folder: Path, name: str = "guard.jsonl") -> str:
    return (folder / name).read_text()


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in text(folder).splitlines()]


def trained_numbers(folder: Path) -> list[dict]:
    """metrics.jsonl without times and the guard's own."""
    lines = [json.loads(line) for line in text(folder, "metrics.jsonl").splitlines()]
    return [{k: v for k, v in line.items() if "seconds" not in k and not k.startswith("guard/")} for line in lines]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("method", ["grpo", "sft"])
def test_a_guarded_run_is_the_unguarded_one(small, small_sft, tmp_path, method):
    small = small if method == "grpo" else small_sft
    settings = ("rewards.prompt.type=support.exact_rewards:drawn",)
    off = train(small(*settings), tmp_path / "off")
    on = train(small(*settings, *GUARDED), tmp_path / "on")
    assert distance(off, on) == 0
    assert trained_numbers(off) == trained_numbers(on)
    assert not (off / "guard.jsonl").exists() and "guard" not in json.loads(text(off, "summary.json"))

    assert [row["iteration"] for row in rows(on)] == [1, 2, 3]
    for row in rows(on):
        assert {name: (m["role"], m["axis"]) for name, m in row["metrics"].items()} == {
            "identity": ("reward", "prompt"),  # a function of one's own says what it measures; these don't
            "prompt": ("reward", "prompt"),
            "identity_readback": ("judge", "identity"),
            "prompt_readback": ("judge", "prompt"),
            "copy_paste": ("guard", "identity"),
            "brightness": ("guard", "picture"),
            "edge_density": ("guard", "picture"),
            "saturation": ("guard", "picture"),
        }
        for m in row["metrics"].values():
            assert m["failed"] == 0 and m["spread"] > 0 and m["low"] <= m["difference"] <= m["high"]
            assert m["trained"] - m["base"] == pytest.approx(m["difference"], abs=1e-9)
    assert rows(on)[0]["metrics"]["brightness"]["base"] == rows(on)[2]["metrics"]["brightness"]["base"]
    summary = json.loads(text(on, "summary.json"))
    assert summary["guard"]["checks"] == 3 and summary["seconds"]["guard"] > 0
    assert "Held-out guard" in text(on, "report.html")


def test_a_checkpoint_takes_the_best_adapter_along(tmp_path):
    """Found better after the checkpoint, then killed: the run goes on with the best that the checkpoint knew."""
    parameter = torch.nn.Parameter(torch.zeros(2))
    state = ({"a": parameter}, torch.optim.AdamW([parameter]), {}, {"training.seed": 0})
    folder, best = tmp_path / "checkpoints", tmp_path / "best"
    save_checkpoint(folder, 1, *state, 5, best)
    best.mkdir()
    (best / "adapter").write_text("of iteration 2")
    save_checkpoint(folder, 2, *state, 5, best)
    (best / "new").write_text("of iteration 3")
    (best / "new").replace(best / "adapter")  # as adapters are written
    save_checkpoint(folder, 3, *state, 5, best)
    for iteration, content in ((2, "of iteration 2"), (3, "of iteration 3"), (1, None), (0, None)):
        restore_best(folder, iteration, best)
        assert ((best / "adapter").read_text() if best.exists() else None) == content


def test_a_manifest_is_checked_with_judges_of_ones_own(small, manifest, tmp_path):
    """References of two sizes; more tasks asked for than there are; two tasks with one reference are one cluster."""
    source = (f"guard.source={manifest}", "policy.several_size=16")
    settings = (*GUARDED, *JUDGED, *source, "guard.tasks=99", "training.iterations=1")
    (row,) = rows(train(small(*settings), tmp_path / "judged"))
    assert {name for name, m in row["metrics"].items() if m["role"] == "judge"} == {"light", "red"}
    (bare,) = rows(train(small(*GUARDED, *source, "guard.tasks=1", "training.iterations=1"), tmp_path / "bare"))
    assert {m["role"] for m in bare["metrics"].values()} == {"reward", "guard"}
    assert all(m["low"] is None and m["spread"] is None for m in bare["metrics"].values())  # of one task


def test_every_second_iteration_with_one_subject_and_a_judge_that_draws(small, tmp_path):
    """Of one subject the prompts are the sample; a random part of a score is drawn alike for base and policy."""
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    tasks = [{"prompt": prompt, "references": ["a.png"]} for prompt in ("a toy", "a large toy")]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    settings = (*GUARDED, "guard.every=2", "training.iterations=5", f"guard.source={tmp_path / 'tasks.json'}")
    checks = rows(
        train(small(*settings, *JUDGED, "guard.scorers.dice.type=support.exact_rewards:drawn"), tmp_path / "run")
    )
    assert [row["iteration"] for row in checks] == [2, 4]
    assert {row["unit"] for row in checks} == {"prompts"}
    for metrics in (row["metrics"] for row in checks):
        assert all(m["low"] is not None for m in metrics.values()) and metrics["brightness"]["spread"] > 0
        assert metrics["light"]["difference"] != 0
        assert metrics["dice"]["difference"] == pytest.approx(metrics["light"]["difference"], abs=1e-6)
    assert checks[0]["metrics"]["dice"]["base"] == checks[1]["metrics"]["dice"]["base"]


def test_the_best_adapter_is_kept(small, capfd, tmp_path, monkeypatch):
    monkeypatch.setattr(exact_rewards, "rise_and_fall", exact_rewards.Told(0.0, 0.1, 0.3, 0.2))  # the base's first
    made = train(small(*GUARDED, *TOLD), tmp_path / "run")
    assert [row["best"] for row in rows(made)] == [True, True, False]
    two = train(small("training.iterations=2"), tmp_path / "two")
    kept = RunRecord(made).best
    assert same(load_file(kept / "pytorch_lora_weights.safetensors"), adapter(two)) and distance(made, two) > 0
    assert json.loads(text(made, "summary.json"))["guard"]["best"] == 2

    Image.new("RGB", (32, 32), "red").save(tmp_path / "toy.png")
    ask = ["--reference", str(tmp_path / "toy.png"), "--prompt", "a toy", "--seeds", "1"]
    assert main(["sample", str(kept), *ask, "--out", str(tmp_path / "pictures")]) == 0
    cfg, found = configuration(kept, load_config())
    assert (cfg.sampling.steps, found) == (4, kept)  # the run's own, not the recipe's 10


def test_a_run_without_a_better_check_stops_as_if_it_had_been_that_long(small, small_arguments, capfd, tmp_path):
    guarded, length = (*GUARDED, "guard.tasks=2", *STILL), "training.iterations=5"
    stopped = tmp_path / "stopped"
    assert main(["train", *small_arguments, *given(*guarded, length), "--out", str(stopped)]) == 0
    said = capfd.readouterr()
    sentence = "stopped early at iteration 2: 2 checks in a row brought none better than the base"
    assert sentence in said.err and sentence in said.out and "no best adapter is kept" in said.out
    assert json.loads(text(stopped, "summary.json"))["guard"]["stopped"] == sentence
    assert sentence in text(stopped, "report.html")

    short = train(small(*guarded, "training.iterations=2"), tmp_path / "short")
    assert distance(stopped, short) == 0 and text(stopped) == text(short)
    assert json.loads(text(short, "summary.json"))["guard"]["stopped"] is None  # it ended where it was to end
    assert trained_numbers(stopped) == trained_numbers(short)
    names = [sorted(p.relative_to(f).as_posix() for p in f.rglob("*")) for f in (stopped, short)]
    assert names[0] == names[1]

    assert main(["train", "--resume", str(stopped)]) == 0
    assert len(rows(stopped)) == 2 and sentence in capfd.readouterr().err
    assert main(["train", "--resume", str(stopped), "--set", "guard.patience=0"]) == 0
    assert distance(stopped, train(small(length), tmp_path / "whole")) == 0
    assert [row["iteration"] for row in rows(stopped)] == [1, 2, 3, 4, 5]


def test_data_of_ones_own_without_held_out_tasks_is_not_guarded(small_arguments, manifest, capfd, tmp_path):
    arguments = given("guard.every=1", f"data.source={manifest}", "training.iterations=1", "policy.several_size=16")
    assert main(["train", *small_arguments, *arguments, "--out", str(tmp_path / "run")]) == 0
    line = "no held-out guard: guard.source names no manifest of held-out tasks"
    assert capfd.readouterr().err.count(line) == 1
    assert not (tmp_path / "run" / "guard.jsonl").exists()


def test_encodings_made_once_serve_the_guard_too(small_arguments, manifest, capfd, tmp_path):
    Image.new("RGB", (32, 32), "green").save(tmp_path / "green.png")
    own = {"prompt": "a green toy", "references": ["green.png"], "subject": "toy"}
    (tmp_path / "train.json").write_text(json.dumps([own, own]))
    settings = [
        *small_arguments,
        *given(f"data.source={tmp_path / 'train.json'}", f"guard.source={manifest}", *GUARDED),
    ]
    settings += given("training.iterations=1", "guard.tasks=3")
    cached = given(f"data.cache={tmp_path / 'store'}")
    for more, advised in (([], True), (cached, False)):
        assert main(["data", "encode", "toybox", *settings, *more, "--out", str(tmp_path / "store")]) == 0
        printed = capfd.readouterr().out
        assert f"prompts: {2 * advised} encoded" in printed and ("train with --set data.cache" in printed) == advised
    assert main(["train", *settings, *cached, "--out", str(tmp_path / "run")]) == 0
    assert len(rows(tmp_path / "run")) == 1


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("guard.every=-1", "guard.every"),
        ("guard.source=absent.json", "absent.json"),
        ("guard.scorers.identity.type=dino", "guard.scorers.identity: a reward has this name"),
        (
            "guard.scorers.brightness.type=support.exact_rewards:brightness",
            "'brightness' is what the guard itself measures",
        ),
        ("guard.scorers.judge.type=magic", "guard.scorers.judge.type"),
        ("guard.scorers.judge.type=absent:function", "absent:function"),
        ("guard.scorer.judge.type=dino", "unknown key guard.scorer"),
    ],
)
def test_bad_input(capfd, small_arguments, tmp_path, setting, says):
    arguments = given("guard.every=1", setting)
    assert says in one_line(capfd, "train", *small_arguments, *arguments, "--out", tmp_path / "run")
