"""`cgrpo data check` and `cgrpo data syncd` through the command line; a training run reads what they leave."""

import json
import shutil
from pathlib import Path

from PIL import Image
from safetensors.torch import save_file
from support import golden_models, tiny_rewards
from support.datasets import png, put

from cgrpo.app.main import main
from cgrpo.build import make_source
from cgrpo.config import load_config
from cgrpo.data import read_tasks
from cgrpo.data.readers import scan
from cgrpo.types import Task

SYNCD = Path(__file__).parent / "syncd_mini"


def test_check_lists_every_problem_and_tells_by_its_exit_code(tmp_path: Path, capsys) -> None:
    Image.effect_noise((32, 32), 90).convert("RGB").save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    rows = [
        {"id": "one", "prompt": "a cat", "references": ["good.png"]},
        {"id": "two", "prompt": "a dog", "references": ["absent.png"]},
        {"id": "three", "prompt": "a bird", "references": ["broken.png"]},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    assert main(["data", "check", str(tmp_path / "rows.json"), "--json", str(tmp_path / "problems.json")]) == 1
    told = json.loads((tmp_path / "problems.json").read_text())
    assert {problem["id"] for problem in told["problems"]} == {"two", "three"}
    assert "3 rows" in capsys.readouterr().out
    (tmp_path / "rows.json").write_text(json.dumps(rows[:1]))
    assert main(["data", "check", str(tmp_path / "rows.json")]) == 0


def test_names_that_are_no_unicode_are_printed(tmp_path: Path, capsys) -> None:
    names = {"\udce9.png": png(), "\udce9.txt": "a toy", "caf\udce9": "?", "b.\udcff": "?"}
    folder = put(tmp_path / "b", names)
    put(folder, {"\udcfe.png": png("blue")})
    assert main(["data", "check", str(folder), "--json", str(tmp_path / "x.json")]) == 1
    out = capsys.readouterr().out
    assert "\\udcfe: " in out and "has no prompt" in out and "caf\\udce9 (1)" in out
    assert json.loads((tmp_path / "x.json").read_text())["rows"] == 2
    assert [task.id for task in scan(folder) if isinstance(task, Task)] == ["\\udce9"]


def test_syncd_leaves_a_manifest_that_reads(tmp_path: Path, capsys) -> None:
    out = tmp_path / "made" / "train.json"
    root = next(path.parent for path in sorted(SYNCD.rglob("*metadata_with_scores.json")))
    assert main(["data", "syncd", str(root), "--top", "2", "--out", str(out)]) == 0
    records = read_tasks(out)
    assert len(records) == 2 and all(path.is_file() for record in records for path in record.references)
    assert '"scores": "metadata"' in capsys.readouterr().out
    assert main(["data", "syncd", str(root), "--top", "1", "--held-out", "1", "--out", str(out)]) == 0
    assert f"guard.source={out.with_suffix('.heldout.json')}" in capsys.readouterr().out
    apart = [read_tasks(file) for file in (out, out.with_suffix(".heldout.json"))]
    assert [row for part in apart for row in part] in (records, records[::-1]) and all(map(len, apart))
    assert main(["data", "syncd", str(root), "--top", "1", "--held-out", "9", "--out", str(out)]) == 2
    assert "can't spare 9 held-out ones" in capsys.readouterr().err
    assert main(["data", "syncd", str(root), "--out", str(out), "--share", "rigid"]) == 2
    assert main(["data", "syncd", str(root), "--out", str(out), "--dino", "x"]) == 2
    assert "go together" in capsys.readouterr().err


def test_syncd_computes_scores_once(tmp_path: Path) -> None:
    """With models given, into a file beside the manifest that a second run takes them from."""
    expected = tiny_rewards.golden("clip_io")
    head = {"weight": expected["aesthetic_weight"], "bias": expected["aesthetic_bias"]}
    save_file(head, tmp_path / "head.safetensors")
    models = ["--dino", str(tiny_rewards.build_dinov2(tmp_path / "dino"))]
    models += ["--clip", str(golden_models.build_openai_clip(tmp_path / "clip"))]
    models += ["--head", str(tmp_path / "head.safetensors")]
    root = next(path.parent for path in sorted(SYNCD.rglob("*metadata_with_scores.json")))
    out = tmp_path / "train.json"
    assert main(["data", "syncd", str(root), "--top", "2", "--out", str(out), *models]) == 0
    first, cache = json.loads(out.read_text()), (tmp_path / "train.scores.jsonl").read_text()
    assert first["parameters"]["scores"] != "metadata" and cache.count("\n") > 2
    assert main(["data", "syncd", str(root), "--top", "2", "--out", str(out), *models]) == 0
    assert json.loads(out.read_text()) == first
    assert (tmp_path / "train.scores.jsonl").read_text().split() == cache.split()  # nothing was scored again


def test_a_runs_data_may_be_limited(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    rows = [{"prompt": f"toy {n}", "references": ["a.png"]} for n in range(3)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    for source, limit, size in (("rows.json", 0, 3), ("rows.json", 2, 2), ("rows.json", 9, 3)):
        cfg = load_config("toybox", [f"data.source={tmp_path / source}", f"data.limit={limit}"])
        assert make_source(cfg).size == size
    assert make_source(load_config("toybox", ["data.limit=5"])).size == 5
    assert make_source(load_config("toybox")).size is None


def test_a_run_says_what_its_data_set_leaves_out(tmp_path: Path, capsys) -> None:
    pair = {"img_path1": "a.png", "img_path2": "b.png", "caption": {"img_path2": "a cup in snow"}}
    rows = [pair | {"vlm_filter_cot": {"score_final": score}} for score in (4.0, 1.0, 2.0)]
    (tmp_path / "labels.json").write_text(json.dumps(rows))
    assert make_source(load_config("toybox", [f"data.source={tmp_path / 'labels.json'}"])).size == 1
    assert "2 rows are left out by the data set's own quality filter" in capsys.readouterr().err


def test_the_pictures_of_a_runs_data_may_lie_elsewhere(tmp_path: Path) -> None:
    """The release's subset file, with SynCD's folder named."""
    shutil.copy(SYNCD / "subset" / "train_mini_syncd_embedding.json", tmp_path / "subset.json")
    settings = [f"data.source={tmp_path / 'subset.json'}", f"data.root={SYNCD / 'release'}"]
    batch = make_source(load_config("toybox", settings)).batch([0])
    assert batch.prompts == ("a red mug with a yellow stripe on a sandy beach.",)
    assert batch.references[0][0].size == Image.open(SYNCD / "release" / "0" / "0.png").size
