"""A series of adapters: found in trainers' folders, drawn once each, ranked, and told what is wrong."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.pages import Page

import cgrpo
from cgrpo.app.checkpoints import is_decline
from cgrpo.app.main import main
from cgrpo.errors import UserError
from cgrpo.evaluation.adapters.pictures import PLAIN, Diversity, FromBase
from cgrpo.evaluation.adapters.ranking import rank_adapters
from cgrpo.evaluation.adapters.series import Index, adapter_files, in_order, is_whole, missing_layers
from cgrpo.evaluation.sampling import follow, seed_noise
from cgrpo.policies.adapters.attached import Fit
from cgrpo.policies.adapters.files import read_split, write_adapter
from cgrpo.policies.adapters.keys import adapter_to_stock
from cgrpo.rewards.base import to_tensor
from cgrpo.scores import ScoreRow
from cgrpo.types import Batch

# -- files -----------------------------------------------------------------------------------------

# In the order of training, as the trainers' code names them.
TRAINERS = {
    "ai-toolkit": ["dog_000000250.safetensors", "dog_000001000.safetensors", "dog.safetensors"],
    "kohya, musubi-tuner": ["dog-step00000500.safetensors", "dog-step00001500.safetensors", "dog.safetensors"],
    "kohya's epochs": ["flux2-000002.safetensors", "flux2-000010.safetensors"],
    "OneTrainer": [f"2026-01-05_12-{m}-00-save-{s}-1-{s}.safetensors" for m, s in (("00", 90), ("10", 180))],
    "SimpleTuner": [f"checkpoint-{step}/pytorch_lora_weights.safetensors" for step in (90, 100, 1000)],
    "peft": [f"step-{step}/adapter_model.safetensors" for step in (1, 2, 10)],
}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_trainers_files_in_their_order(tmp_path: Path, trainer: str) -> None:
    files = TRAINERS[trainer]
    for name in random.Random(0).sample([*files, "dog-000002-state/model.safetensors", "optimizer.pt"], len(files) + 2):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = adapter_files([tmp_path])
    assert [str(file.relative_to(tmp_path)) for _, file in found] == files
    assert len({label for label, _ in found}) == len(files)


def test_numbers_are_not_letters() -> None:
    assert in_order(["step-10", "step-9", "step-1"]) == ["step-1", "step-9", "step-10"]
    for paths in ([Path("gone")], []):
        with pytest.raises(UserError, match="gone|no adapter"):
            adapter_files(paths)


def test_content_is_what_an_adapter_is_known_by(tmp_path: Path) -> None:
    index = Index(tmp_path / "out")
    (tmp_path / "a").write_bytes(b"")
    names = [index.add(name, tmp_path / name, content).name for name, content in (("a", "1"), ("b", "2"), ("c", "1"))]
    assert names == ["a", "b", "a"] and index.known["a"].file == tmp_path / "a"
    index.write()
    again = Index(tmp_path / "out")
    assert (
        again.add("moved", tmp_path / "moved", "2") == again.known["b"] and again.known["b"].file == tmp_path / "moved"
    )
    assert (
        again.add("b", tmp_path / "b", "overwritten").name == "b-overwr"
        and again.add("base", tmp_path, "3").name == "base-3"
    )


def test_a_half_written_file_is_not_whole(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(100)}, file := tmp_path / "a.safetensors")
    content = file.read_bytes()
    for end in (0, 5, 40, len(content) - 1):
        file.write_bytes(content[:end])
        assert not is_whole(file)
    file.write_bytes(content)
    assert is_whole(file) and not is_whole(tmp_path / "gone")


def test_layers_that_are_missing() -> None:
    fits = {name: Fit(("x", "y", "z"), ()) for name in "abc"} | {
        "half": Fit(("x",), ()),
        "other": Fit(("x", "y", "z"), ("q",)),
    }
    words = missing_layers(fits)
    assert words.keys() == {"half", "other"}
    assert "2 of the 3" in words["half"] and "1 of 4" in words["other"]
    assert missing_layers({"alone": Fit(("x",), ())}) == {}


# -- adapters on a base ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def policy():
    return cgrpo.load_policy()


@pytest.fixture(scope="module")
def adapter(policy, tmp_path_factory) -> Path:
    """Of the toy base, with a B that is not zero."""
    file = policy.save(tmp_path_factory.mktemp("adapter"))
    split, header = read_split(file)
    generator = torch.Generator().manual_seed(0)
    for key, value in split.items():
        if "lora_B" in key:
            split[key] = torch.randn(value.shape, generator=generator) / 30
    return write_adapter(file, adapter_to_stock(split), header)


def test_an_adapter_laid_over_its_base_is_the_adapter_loaded(policy, adapter: Path) -> None:
    task = Batch(("a",), ("a small toy on the left in the snow",), ((),), ("",))
    noise, sigmas = seed_noise(policy, [1]), policy.sigmas(2, 1.5)
    base = follow(policy, task, noise, sigmas)
    split, fit = policy.read_adapter(adapter)
    assert len(fit.layers) == len(split) / 2 and not fit.misfits
    with policy.attached(split):
        laid = follow(policy, task, noise, sigmas)
    assert torch.equal(laid, follow(cgrpo.load_policy(adapter=adapter), task, noise, sigmas)) and not torch.equal(
        laid, base
    )
    with policy.attached(split, 0.0):
        assert torch.equal(follow(policy, task, noise, sigmas), base)
    wide = {key: value.repeat(1, 2) if "lora_A" in key else value for key, value in split.items()}
    assert not policy.read_adapter(adapter)[1].misfits and torch.equal(follow(policy, task, noise, sigmas), base)
    write_adapter(adapter.with_name("wide.safetensors"), adapter_to_stock(wide), {})
    assert policy.read_adapter(adapter.with_name("wide.safetensors"))[1].layers == ()


def test_measures_of_a_series(tmp_path: Path) -> None:
    grey = [Image.new("RGB", (8, 8), (level,) * 3) for level in (0, 51, 102, 255)]
    batch = Batch(tuple(f"a/{task}_{seed}.png" for task in "xy" for seed in "12"), ("",) * 4, ((),) * 4, ("",) * 4)
    scores = Diversity()(to_tensor(grey), batch)
    assert scores.tolist() == pytest.approx([0.2, 0.2, 0.6, 0.6])
    assert Diversity()(to_tensor(grey[:1]), batch.select([0])).isnan().all()
    (tmp_path / "a").mkdir()
    for name in batch.ids:
        grey[1].save(tmp_path / name)
    assert FromBase(tmp_path)(to_tensor(grey), batch).tolist() == pytest.approx([0.2, 0, 0.2, 0.8])


# -- ranking ---------------------------------------------------------------------------------------

COLUMNS = {
    "identity": "one",
    "prompt": "prompt",
    "copy_paste": "picture",
    "diversity": "picture",
    "from_base": "picture",
}
ROLES = {"identity": "judge", "prompt": "judge"}
LEVELS = {"identity": 0.5, "prompt": 0.5, "copy_paste": 0.5, "diversity": 0.5, "from_base": 0.0}


def series(adapters: dict[str, dict[str, float]]) -> list[ScoreRow]:
    """Scores of 8 subjects x 2 prompts; ``shifts`` in SD of the base, and a little noise."""
    rows = []
    for metric, protocol in COLUMNS.items():
        for name, shifts in {"base": {}, **adapters}.items():
            for subject in range(8):
                for prompt in range(2):
                    rng, noise = (
                        random.Random(f"{metric} {subject} {prompt}"),
                        random.Random(f"{name} {metric} {subject}"),
                    )
                    score = LEVELS[metric] + rng.gauss(0, 0.1) * (metric != "from_base")
                    if name != "base":
                        score += 0.1 * (shifts.get(metric, 0) + noise.gauss(0, 0.1))
                    task = (f"s{subject}", prompt, f"prompt {prompt}", 1, metric, protocol)
                    rows.append(ScoreRow(name, *task, score, f"s{subject}/{prompt}_1.png", None))
    return rows


@pytest.mark.parametrize(
    ("shifts", "faults"),
    [
        ({"identity": 1, "prompt": 0.5, "from_base": 3}, []),
        ({"identity": 2, "prompt": -0.6, "from_base": 3}, ["prompt lost"]),
        ({"identity": -0.6, "prompt": 1, "from_base": 3}, ["subject lost"]),
        ({"identity": 1, "copy_paste": 2, "diversity": -2, "from_base": 3}, ["memorised"]),
        ({"identity": 1, "copy_paste": 2, "from_base": 3}, []),  # nearer to the photo, but seeds still differ
        ({"from_base": 0.2}, ["undertrained"]),
        ({"from_base": 4}, []),  # other pictures, of which nothing is sure
    ],
)
def test_what_is_wrong(shifts: dict[str, float], faults: list[str]) -> None:
    ranking = rank_adapters(series({"one": shifts}), ["one"], ROLES, {})
    assert [fault.kind for fault in ranking["one"].faults] == faults
    assert ranking.best == (None if set(faults) - {"undertrained"} else "one")


def test_the_best_and_its_equals() -> None:
    good = {"identity": 1.0, "prompt": 1.0, "from_base": 3}
    rows = series(
        {"low": {"from_base": 3}, "good": good, "same": good, "won": good | {"identity": 5, "prompt": -1}, "half": good}
    )
    ranking = rank_adapters(rows, ["low", "good", "same", "won", "half"], ROLES, {"half": "it lacks layers"})
    assert ranking.best in ("good", "same") and set(ranking.tied) == {"good", "same"}
    assert {one.name for one in ranking.adapters if not one.fit} == {"won", "half"}
    assert ranking["low"].behind.below() and ranking[ranking.best].behind is None
    assert (ranking.unit, ranking.clusters, ranking.tasks) == ("subjects", 8, 16)
    assert [is_decline(ranking, name) for name in ("low", "won", "good", "same")] == [True, True, False, False]
    assert json.loads(json.dumps(ranking.as_dict()))["tied"] == ranking.tied
    # The same numbers as the interval that everything else here has: no correction for a single pair.
    two = rank_adapters(rows, ["low", "good"], ROLES, {})
    assert two["low"].total.low < two["low"].total.value < two["low"].total.high
    with pytest.raises(UserError, match="--metric"):
        rank_adapters([row for row in rows if row.protocol == "picture"], ["low"], ROLES, {})


def test_a_leak_is_named() -> None:
    rows = series({"one": {"identity": 1, "from_base": 3}})
    for method, score in (("base", 0.1), ("one", 0.6)):
        for n in range(6):
            task = (
                "s0",
                90 + n,
                f"plain {n}",
                1,
                "identity",
                "one",
                score + n / 1000 * (method == "one"),
                f"s0/{90 + n}_1.png",
            )
            rows.append(ScoreRow(method, *task, None, prompt_kind=PLAIN))
    ranking = rank_adapters(rows, ["one"], ROLES, {})
    assert [fault.kind for fault in ranking["one"].faults] == ["leaked"] and ranking.tasks == 16


# -- the command -----------------------------------------------------------------------------------


def test_from_files_to_a_page(policy, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Drawn once each; what can't be read is a line; later ones join, also watched; the best is copied."""
    folder, out = tmp_path / "run", tmp_path / "out"
    folder.mkdir()
    split, header = read_split(adapter)
    weak = {key: value * 0.01 if "lora_B" in key else value for key, value in split.items()}
    write_adapter(folder / "toy-000001.safetensors", adapter_to_stock(weak), header)
    shutil.copy(adapter, folder / "toy-000002.safetensors")
    write_adapter(folder / "toy-000003.safetensors", adapter_to_stock(split), header | {"base_hash": "0" * 64})
    words = ["evaluate", "adapters", str(folder), "--out", str(out), "--limit", "3", "--set", "sampling.steps=2"]
    words += ["--metric", "identity_readback", "--metric", "prompt_readback"]
    code = main(words)
    said = capsys.readouterr()
    result = json.loads((out / "best.json").read_text())
    assert code == (0 if result["best"] else 1)
    assert [one["name"] for one in result["adapters"]] == ["toy-000001", "toy-000002"]
    assert result["adapters"][0]["changed"] < 0.1 < result["adapters"][1]["changed"]
    assert list(result["unread"]) == ["toy-000003"] and "not read" in said.err and "trained on" in said.err
    assert result["sentence"] in said.out and result["unit"] == "subjects"
    page = Page((out / "index.html").read_text())
    assert result["sentence"] in page.text and page.data["shown"] == ["base", "toy-000001", "toy-000002"]
    assert len(page.data["pairs"]) == 9 and not any(page.loads)
    if result["best"]:
        assert Path(result["file"]).read_bytes() == (folder / f"{result['best']}.safetensors").read_bytes()

    drawn = {file: file.stat().st_mtime_ns for file in out.rglob("*.png")}
    later = {key: value * 0.5 if "lora_B" in key else value for key, value in split.items()}
    write_adapter(folder / "toy-000004.safetensors", adapter_to_stock(later), header)
    half = (folder / "toy-000002.safetensors").read_bytes()
    (folder / "toy-000005.safetensors").write_bytes(half[: len(half) // 2])
    main([*words, "--watch", "0.01"])
    said = capsys.readouterr()
    assert "toy-000004: identity" in said.out and "toy-000005" not in said.out + said.err
    assert {file: file.stat().st_mtime_ns for file in drawn} == drawn
    assert (out / "pictures" / "toy-000004").is_dir() and not (out / "pictures" / "toy-000005").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["gone"], "gone"),
        (["empty"], "no adapter"),
        (["a.safetensors", "--seeds", "1"], "--seeds 1"),
        (["a.safetensors", "--data", "gone.json"], "gone.json"),
        (["a.safetensors", "--data", "photos", "--skip", "5"], "--skip 5"),
        (["a.safetensors", "--recipe", "gone"], "gone"),
        (["a.safetensors", "--metric", "gone"], "gone"),
    ],
)
def test_bad_input_is_a_line(tmp_path: Path, monkeypatch, capsys, words: list[str], named: str) -> None:
    """Before the base is loaded."""
    monkeypatch.setattr("cgrpo.app.checkpoints.make_policy", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.safetensors").write_bytes(b"")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "0.png")
    (tmp_path / "photos" / "0.txt").write_text("a dog")
    assert main(["evaluate", "adapters", *words, "--out", "out"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert named in said[-1] and said[-1].startswith("cgrpo: ")
