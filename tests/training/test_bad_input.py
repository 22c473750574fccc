"""A user's mistake is one clear line and exit code 2, and nothing already written is lost."""

import json
import math
import shutil

import pytest
from PIL import Image
from support.runs import one_line

from cgrpo.app.main import main
from cgrpo.app.run import train
from cgrpo.errors import UserError
from cgrpo.policies.flux.policy import FluxPolicy


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("training.iteratons=3", "did you mean training.iterations"),
        ("training.learning_rate=fast", "training.learning_rate"),
        ("training.group_size=1", "training.group_size"),
        ("training.updates_per_rollout=5", "must divide group_size"),
        ("sampling.steps=1", "sampling.steps"),
        ("training.micro_batch=0", "training.micro_batch"),
        ("training.micro_batch=fast", "training.micro_batch"),
        ("training={micro_batch='auto', parallel='fsdp2'}", "training.parallel = fsdp2"),
        ("sampling.batch=-1", "sampling.batch"),
        ("nonsense", "dotted.key=value"),
        ("data.source=absent.json", "absent.json"),
        ("policy.path=absent", "absent"),
        ("rewards.prompt.type=absent:function", "absent:function"),
        ("rewards.prompt.type=magic", "rewards.prompt.type"),
        ("rewards.prompt.path=absent", "absent"),
        ("weights.low=0.9", "low"),
        ("rewards.identity.type=none", "'identity' carries weight"),
    ],
)
def test_settings(capfd, tmp_path, setting, says):
    assert says in one_line(capfd, "train", "--set", setting, "--out", tmp_path / "run")


LOWEST = ("sampling.noise_level=1e-6", "sampling.shift=0.01", "training.betas=[0, 0]", "training.clamp=5e-324")
LOWEST += ("shaping.alpha=0", "training.max_grad_norm=5e-324", "sampling.window.fraction=5e-324", "weights.low=0")
HIGHEST = ("sampling.shift=100", "training.clamp=1e9", "shaping.alpha=1e9", "training.max_grad_norm=1e9")
HIGHEST += ("training.warmup=1000000000", "guard.patience=1000000000", "weights.others={extra=1e9}")
HIGHEST += ("rewards.extra.type=support.exact_rewards:redness",)


@pytest.mark.parametrize("settings", [LOWEST, HIGHEST], ids=["lowest", "highest"])
def test_numbers_at_the_ends_that_are_accepted_train(small, tmp_path, settings):
    run = train(small("training.iterations=1", *settings), tmp_path / "run")
    assert math.isfinite(json.loads((run / "metrics.jsonl").read_text())["gradient_norm"])


def test_a_tracker_that_is_not_installed(capfd, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    arguments = ("train", "--set", "logging.tracker=wandb", "--out", tmp_path / "run")
    assert "pip install wandb" in one_line(capfd, *arguments)


def test_recipe_and_folders(capfd, small, tmp_path):
    assert "no recipe 'absent'; cgrpo train --list" in one_line(capfd, "train", "absent")
    assert "did you mean klein?" in one_line(capfd, "train", "klien")
    (tmp_path / "file").write_text("")
    assert "can't be written" in one_line(capfd, "train", "--out", tmp_path / "file" / "run")
    assert "no run directory" in one_line(capfd, "train", "--resume", tmp_path)
    run = train(small("training.iterations=1"), tmp_path / "run")
    assert "already holds a run" in one_line(capfd, "train", "--out", run)


def write_manifest(tmp_path, rows) -> str:
    (tmp_path / "tasks.json").write_text(json.dumps(rows))
    return f"data.source={tmp_path / 'tasks.json'}"


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "no rows"),
        ([{"prompt": "", "references": ["a.png"]}], "row 1: prompt"),
        ([{"prompt": "a toy", "references": []}], "row 1: references"),
        ([{"prompt": "a toy", "references": ["absent.png"]}], "absent.png"),
        ([{"prompt": "a toy", "references": ["broken.png"]}], "broken.png"),
    ],
)
def test_manifests(capfd, small_arguments, monkeypatch, tmp_path, rows, says):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    setting = write_manifest(tmp_path, rows)
    assert says in one_line(capfd, "train", *small_arguments, "--set", setting, "--out", tmp_path / "run")


def test_a_manifest_trains(small, tmp_path):
    Image.new("P", (50, 40)).save(tmp_path / "palette.png")
    Image.new("CMYK", (40, 32)).save(tmp_path / "cmyk.jpg")
    rows = [
        {"prompt": "a toy at night", "references": [name], "subject": "toy"} for name in ("palette.png", "cmyk.jpg")
    ]
    run = train(small(write_manifest(tmp_path, rows), "training.iterations=1"), tmp_path / "run")
    assert (run / "report.html").exists()


@pytest.mark.parametrize("background", ["false", "true"])
def test_a_reward_that_raises(capfd, small_arguments, tmp_path, background):
    background = ("--set", f"rewards.prompt.background={background}")
    fault = ("--set", "rewards.prompt.type=support.exact_rewards:raises", *background, "--out", tmp_path / "run")
    assert "out of order" in one_line(capfd, "train", *small_arguments, *fault)


def test_ctrl_c_names_the_run_to_resume(capfd, small_arguments, tmp_path):
    fault = ("--set", "rewards.prompt.type=support.exact_rewards:interrupted", "--out", tmp_path / "my run")
    assert main(["train", *small_arguments, *map(str, fault)]) == 130
    assert f"interrupted; cgrpo train --resume '{tmp_path / 'my run'}' continues the run" in capfd.readouterr().err


def test_a_reward_that_is_nan_for_whole_groups_stops_with_everything_kept(capfd, small_arguments, tmp_path):
    fault = ("--set", "rewards.prompt.type=support.exact_rewards:never", "--set", "training.max_failed_groups=2")
    line = one_line(capfd, "train", *small_arguments, *fault, "--out", tmp_path / "run")
    assert "'prompt' was NaN" in line
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


def test_single_nans_are_masked_and_counted(small, tmp_path):
    run = train(small("rewards.prompt.type=support.exact_rewards:sometimes"), tmp_path / "run")
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert row["reward/prompt/failed"] == 1
    assert row["unscored_share"] == 1 / 8


def test_foreign_and_truncated_checkpoints(capfd, small, tmp_path):
    run = train(small("training.iterations=1"), tmp_path / "run")
    other = train(small("training.iterations=1", "training.seed=5"), tmp_path / "other")
    state = run / "checkpoints" / "step-1" / "state.safetensors"
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2])
    assert "truncated" in one_line(capfd, "train", "--resume", run)
    shutil.rmtree(run / "checkpoints" / "step-1")
    shutil.copytree(other / "checkpoints" / "step-1", run / "checkpoints" / "step-1")
    assert "training.seed was 5 and is 0 now" in one_line(capfd, "train", "--resume", run)


def test_a_run_whose_checkpoints_are_lost(capfd, small, tmp_path):
    """It would begin anew over what is there. Its grids of samples are nobody's input."""
    run = train(small("training.iterations=1"), tmp_path / "run", name="my-recipe")
    shutil.rmtree(run / "samples")
    assert main(["train", "--resume", str(run), "--set", "training.iterations=2"]) == 0
    printed = capfd.readouterr().err
    assert "my-recipe: Customized-GRPO" in printed and "my-recipe: 100%" in printed
    assert len(list((run / "samples").iterdir())) == 1
    kept = (run / "metrics.jsonl").read_text()
    shutil.rmtree(run / "checkpoints")
    assert "holds no checkpoint" in one_line(capfd, "train", "--resume", run)
    assert (run / "metrics.jsonl").read_text() == kept


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("training.iterations=2", "training.iterations was 1 and is 2 now.*cosine"),
        ("shaping.alpha=0.1", "shaping.alpha was 0.5 and is 0.1 now"),
        ("rewards.identity.type=none", "rewards.identity.type was"),
        ("training.micro_batch=3", ""),
        ("sampling.batch=4", ""),
    ],
)
def test_what_may_change_when_a_run_is_resumed(small, tmp_path, setting, says):
    cosine = ("training.iterations=1", "training.schedule=cosine", "weights.type=constant", "weights.prompt=1")
    run = train(small(*cosine), tmp_path / "run")
    changed = small(*cosine, setting)
    if not says:
        assert train(changed, resume=run) == run
        return
    with pytest.raises(UserError, match=says):
        train(changed, resume=run)


def test_a_judge_that_is_missing_ends_no_run_late(capfd, small_arguments, tmp_path):
    """Without a guard the judges score the end alone; they are loaded before the first iteration all the same."""
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    (tmp_path / "held.json").write_text(json.dumps([{"prompt": "a toy", "image": "a.png"}] * 2))
    settings = ("guard.every=0", "evaluation.enabled=true", f"evaluation.source={tmp_path / 'held.json'}")
    settings += ("guard.scorers.judge.type=support.exact_rewards:raises", "training.iterations=1")
    words = [word for setting in settings for word in ("--set", setting)]
    run = tmp_path / "run"
    line = one_line(capfd, "train", *small_arguments, *words, "--out", run)  # it fails when it scores
    assert f"the trained adapter is safe in {run / 'adapter'}" in line and f"--resume {run}" in line
    words += ["--set", "guard.scorers.judge.type=absent:function"]
    assert "absent" in one_line(capfd, "train", *small_arguments, *words, "--out", tmp_path / "other")
    assert not (tmp_path / "other" / "metrics.jsonl").exists()


def test_a_model_that_gives_nan_is_named_not_the_reward(capfd, small_arguments, monkeypatch, tmp_path):
    whole = FluxPolicy.velocity
    monkeypatch.setattr(FluxPolicy, "velocity", lambda self, x, sigma, cond: whole(self, x, sigma, cond) * math.nan)
    line = one_line(capfd, "train", *small_arguments, "--out", tmp_path / "run")
    assert "sampled pictures are NaN" in line and "reward" not in line
    prompt = ("--prompt", "a toy", "--steps", "2", "--out", tmp_path / "pictures")
    assert "4 of 4 sampled pictures are NaN" in one_line(capfd, "sample", *prompt)
    assert not list((tmp_path / "pictures").glob("*.png"))
