"""The filter on drawn pictures in SynCD's layout; what it should give was worked out beside it (expected.json)."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from cgrpo.data import Rules, Scorers, filter_syncd, read_tasks, write_manifest
from cgrpo.data.archives import open_picture
from cgrpo.data.syncd import percentile_ranks
from cgrpo.data.syncd_files import SyncdObject, choose_pair, object_of
from cgrpo.errors import UserError

MINI = Path(__file__).parent / "syncd_mini"
RELEASE = MINI / "release"
EXPECTED = json.loads((MINI / "expected.json").read_text())


def ids(manifest: dict) -> list[str]:
    return [record["id"] for record in manifest["records"]]


@pytest.mark.parametrize(
    ("rules", "key"),
    [
        (Rules(), "topk_text_filter_on"),
        (Rules(drop_chatter=False), "topk_text_filter_off"),
        (Rules(drop_chatter=False, near_duplicate=None), "topk_no_dup_guard_text_off"),
    ],
)
def test_order(rules: Rules, key: str) -> None:
    assert ids(filter_syncd(RELEASE, top=10, rules=rules)) == EXPECTED[key]
    assert ids(filter_syncd(RELEASE, top=1, rules=rules)) == EXPECTED[key][:1]


def test_records_and_parameters() -> None:
    manifest = filter_syncd(RELEASE, top=10)
    parameters, records = manifest["parameters"], manifest["records"]
    assert [[*record["references"], record["target"]] for record in records] == EXPECTED["pairs_seed0_text_on"]
    for record in records:
        assert record["meta"]["similarity"] == pytest.approx(EXPECTED["mean_dino"][record["id"]], abs=1e-6)
        assert record["meta"]["aesthetic"] == pytest.approx(EXPECTED["mean_aesthetic"][record["id"]], abs=1e-6)
        for name, digest in record["meta"]["sha256"].items():
            assert digest == hashlib.sha256((RELEASE / name).read_bytes()).hexdigest()
    assert [record["meta"]["score"] for record in records] == [1.0, 0.5]  # first of two in both; last in both
    assert parameters["metadata_sha256"] == {"metadata_with_scores.json": EXPECTED["metadata_with_scores_sha256"]}
    assert (parameters["objects"], parameters["candidates"], parameters["chatter_prompts"]) == (4, 2, 1)
    assert parameters["similarity_deciles"][0] == 0.716667 and parameters["similarity_deciles"][-1] == 0.83
    whole = json.dumps(records, sort_keys=True).encode()
    assert parameters["records_sha256"] == hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize("floors", EXPECTED["official_loader"])
def test_floors_keep_what_the_official_loader_keeps(floors: str) -> None:
    """Pictures that stay, by object; without a floor on similarity it has no cap either."""
    if floors.startswith("filter"):
        similarity = aesthetic = None
    else:
        similarity, aesthetic = (None if float(part) < 0 else float(part) for part in floors.split(","))
    rules = Rules(0.98 if similarity else None, similarity, aesthetic, drop_chatter=False)
    kept = {}
    for row in json.loads((RELEASE / "metadata_with_scores.json").read_text()):
        item = object_of(row, "here")
        assert item.similarity and item.aesthetics
        pairs = rules.pairs(item, item.similarity, item.aesthetics)
        if pairs:
            kept[item.folder] = len({k for pair in pairs for k in pair})
    assert kept == EXPECTED["official_loader"][floors]


def changed(folder: Path, change: Callable[[list[dict]], None]) -> Path:
    """The release with its metadata changed."""
    root = shutil.copytree(RELEASE, folder / "syncd")
    path = root / "metadata_with_scores.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))
    return root


def test_an_object_listed_twice_counts_once(tmp_path: Path) -> None:
    root = changed(tmp_path, lambda rows: rows.append(rows[0] | {"category": "other"}))
    manifest = filter_syncd(root, top=10)
    assert ids(manifest) == EXPECTED["topk_text_filter_on"]
    assert (manifest["parameters"]["objects"], manifest["parameters"]["repeated"]) == (4, 1)


def test_names_written_on_windows(tmp_path: Path) -> None:
    def change(rows: list[dict]) -> None:
        for row in rows:
            row["filenames"] = [name.replace("/", "\\") for name in row["filenames"]]

    assert filter_syncd(changed(tmp_path, change), top=10)["records"] == filter_syncd(RELEASE, top=10)["records"]


ODD = [
    ({"filenames": ["1/0.png"]}, "row 2: filenames"),
    ({"filenames": ["\ud800/0.png", "1.png"]}, "row 2: filenames"),
    ({"filenames": ["a\0b.png", "1.png"]}, "row 2: filenames"),
    ({"prompts": ["one"]}, "row 2: prompts"),
    ({"prompts": ["\ud800", "x"]}, "row 2: prompts"),
    ({"dino_scores": [[0]]}, "row 2: dino_scores must be a 2 x 2 table"),
    ({"dino_scores": [[0.0, None], [0.0, 0.0]]}, "row 2: dino_scores must be numbers"),
    ({"dino_scores": [[0, math.nan], [0, 0]]}, "row 2: dino_scores must be numbers"),
    ({"aesthetics_scores": {"0": 3}}, "row 2: aesthetics_scores"),
    ({"aesthetics_scores": {"0": math.inf, "1": 5}}, "row 2: aesthetics_scores"),
    ({"aesthetics_scores": {"0": "6", "1": 5}}, "row 2: aesthetics_scores"),
    ({"aesthetics_scores": None}, "folder 1: has no aesthetics_scores"),
]


@pytest.mark.parametrize(("change", "says"), ODD)
def test_odd_metadata_is_a_line(tmp_path: Path, change: dict, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        filter_syncd(changed(tmp_path, lambda rows: rows[1].update(change)), top=10)
    assert str(caught.value).isprintable()


def test_an_empty_picture_is_a_line(tmp_path: Path) -> None:
    root = changed(tmp_path, lambda rows: None)
    for path in (root / "0").glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"0/\d.png: is empty"):
        filter_syncd(root, top=10)


def test_shares() -> None:
    rules = Rules(drop_chatter=False)
    shares = {"rigid": 0.5, "deformable": 0.5}
    assert ids(filter_syncd(RELEASE, top=2, rules=rules)) == ["0", "2"]
    assert ids(filter_syncd(RELEASE, top=2, rules=rules, shares=shares)) == ["0", "50145"]
    with pytest.raises(UserError, match="'soft'"):
        filter_syncd(RELEASE, top=2, shares={"soft": 1.0})
    with pytest.raises(UserError, match="sum to at most 1"):
        filter_syncd(RELEASE, top=2, shares={"rigid": 1.5})


def test_pairs_are_the_same_everywhere() -> None:
    """sha256("0:0") begins ac72368a586a18c1."""
    item = SyncdObject("0", ("0.png", "1.png", "2.png", "3.png"), ("",) * 4)
    assert item.pairs == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert choose_pair(item, item.pairs, seed=0) == item.pairs[0xAC72368A586A18C1 % 6]


def test_folders_are_ordered_by_number() -> None:
    objects = [SyncdObject(folder, (), ()) for folder in ("10", "Parrot_0", "9", "Fox_0")]
    assert [item.folder for item in sorted(objects, key=lambda item: item.order)] == ["9", "10", "Fox_0", "Parrot_0"]


def test_percentile_ranks_share_ties() -> None:
    assert percentile_ranks([3.0, 1.0, 3.0, 2.0]) == [3.5 / 4, 1 / 4, 3.5 / 4, 2 / 4]


def test_the_written_manifest_is_read_back_from_anywhere(tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(RELEASE, root)
    manifest = filter_syncd(root, top=10)
    write_manifest(tmp_path / "lists/top.json", root, manifest)
    (tmp_path / "lists").rename(tmp_path / "moved")
    record = read_tasks(tmp_path / "moved/top.json")[0]
    assert record.references[0].resolve() == root / "0/0.png" and record.target and record.target.is_file()
    assert record.masks and record.masks[0] and record.masks[0].is_file() and record.mask_threshold == 8
    assert filter_syncd(RELEASE, top=10) == manifest  # nothing of the place is in it


def test_other_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no metadata.json"):
        filter_syncd(tmp_path, top=2)
    with pytest.raises(UserError, match="top must be"):
        filter_syncd(RELEASE, top=0)
    with pytest.raises(UserError, match="none of its 4 objects"):
        filter_syncd(RELEASE, top=1, rules=Rules(min_aesthetic=9))
    shutil.copy(RELEASE / "metadata_with_scores.json", tmp_path)
    with pytest.raises(UserError, match="0/0.png: no such picture"):
        filter_syncd(tmp_path, top=2)


ANGLES = {"0": (0.0, 0.5, 1.0), "1": (0.0, 0.1), "2": (0.0, 0.6), "50145": (0.0, 0.3, 0.8)}  # of the pictures' features


class Models:
    """Scores that can be worked out; counts the pictures, and is killed when it has seen ``most``."""

    def __init__(self, most: int = 1000):
        self.most, self.pictures, self.masks = most, 0, 0
        self.angles = {
            open_picture(RELEASE / folder / f"{k}.png").tobytes(): angle
            for folder, angles in ANGLES.items()
            for k, angle in enumerate(angles)
        }

    def features(self, pictures: list[Image.Image], masks: list[Image.Image | None]) -> torch.Tensor:
        if self.pictures >= self.most:
            raise KeyboardInterrupt
        self.pictures += len(pictures)
        self.masks += sum(mask is not None and mask.size == p.size for p, mask in zip(pictures, masks, strict=True))
        angles = torch.tensor([self.angles[picture.tobytes()] for picture in pictures])
        return torch.stack([angles.cos(), angles.sin()], 1)

    def aesthetic(self, pictures: list[Image.Image]) -> list[float]:
        return [5.0 + (picture.width > 512) for picture in pictures]

    def scorers(self, name: str = "one") -> Scorers:
        return Scorers(name, self.features, self.aesthetic)


@pytest.fixture
def unscored(tmp_path: Path) -> Path:
    """The set without scores."""
    shutil.copytree(RELEASE, tmp_path / "set")
    (tmp_path / "set/metadata_with_scores.json").unlink()
    return tmp_path / "set"


def test_scoring(unscored: Path) -> None:
    """cos 0.1 > 0.98 is too near, so the lantern goes, as the barrel does for its prompt; the fox wins both ranks."""
    with pytest.raises(UserError, match="has no dino_scores"):
        filter_syncd(unscored, top=10)
    models = Models()
    fox, mug = filter_syncd(unscored, top=10, scorers=models.scorers())["records"]
    assert (models.pictures, models.masks) == (10, 10)
    assert (fox["id"], fox["meta"]["score"], fox["meta"]["aesthetic"]) == ("50145", 1.0, 6.0)
    assert (mug["id"], mug["meta"]["score"], mug["meta"]["aesthetic"]) == ("0", 0.5, 5.0)
    assert fox["meta"]["similarity"] == pytest.approx((0.955336 + 0.696707 + 0.877583) / 3, abs=1e-6)
    assert mug["meta"]["similarity"] == pytest.approx((0.877583 + 0.540302 + 0.877583) / 3, abs=1e-6)


def test_scoring_goes_on_where_it_was_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unscored: Path) -> None:
    monkeypatch.setattr("cgrpo.data.syncd_scores.OBJECTS_PER_CALL", 1)
    cache, whole = tmp_path / "kept/scores.jsonl", filter_syncd(unscored, top=10, scorers=Models().scorers())
    with pytest.raises(KeyboardInterrupt):
        filter_syncd(unscored, top=10, scorers=Models(most=3).scorers(), cache=cache)
    with cache.open("a") as file:
        file.write('{"key": "torn')
    for name, pictures in (("one", 7), ("one", 0), ("two", 10)):
        models = Models()
        again = filter_syncd(unscored, top=10, scorers=models.scorers(name), cache=cache)
        assert models.pictures == pictures and again["records"] == whole["records"]


def test_an_object_that_cant_be_scored_is_left_out_and_named(unscored: Path) -> None:
    (unscored / "50145/1.png").write_bytes(b"no picture")
    manifest = filter_syncd(unscored, top=10, scorers=Models().scorers())
    assert ids(manifest) == ["0"]
    (line,) = manifest["parameters"]["unreadable"]
    assert line.startswith("50145: ") and "1.png: can't be read as a picture" in line
