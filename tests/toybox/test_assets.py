"""The committed checkpoints: small, complete, and good enough to be trained against."""

import pytest
import torch

from cgrpo.build import make_policy
from cgrpo.config import load_config, override
from cgrpo.data import ToyboxSource, toy_source
from cgrpo.evaluation.heldout import heldout_tasks
from cgrpo.evaluation.metrics import make_scorers
from cgrpo.evaluation.pair_check import FAULTS, pair_ranking
from cgrpo.evaluation.sampling import ALONE, sample_tasks
from cgrpo.evaluation.toybox_check import CORRUPTIONS, ranking, segmenter_iou
from cgrpo.hub import asset
from cgrpo.policies.adapters.layers import reference_policy
from cgrpo.rewards import make_rewards
from cgrpo.rewards.measures import Copies
from cgrpo.rewards.segmenters import load_segmenter
from cgrpo.rewards.several import per_subject
from cgrpo.toybox.build import build_toybox
from cgrpo.toybox.build.copying import build_copying
from cgrpo.toybox.judges import make_judges

ASSETS = asset("policy").parent


@pytest.fixture(scope="module")
def policy():
    return make_policy(load_config())


def test_they_are_small():
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) <= 25e6


def test_rewards_and_judges_rank_corruptions(policy):
    scorers = make_scorers(make_rewards(load_config().rewards), make_judges())
    table = ranking(ToyboxSource(0, "validation", 0.35, 4), 96, scorers, policy)
    assert table.keys() == CORRUPTIONS.keys()
    for name, row in table.items():
        assert len(row) == 2, name  # the axis's reward and its judge
        assert min(row.values()) > (0.7 if "near-miss" in name else 0.85), (name, row)


def test_the_segmenter_finds_the_subject(policy):
    source = ToyboxSource(0, "validation", 0.35, 4)
    sigmas = torch.linspace(1, 0, 6)
    with reference_policy(policy.transformer):
        iou = segmenter_iou(source, 48, load_segmenter(asset("segmenter")), policy, sigmas)
    assert iou["real"] > 0.75 and iou["base"] > 0.55, iou


def test_the_builder_makes_every_part_in_the_same_layout(tmp_path):
    said = []
    build_toybox(tmp_path, seed=1, share=1e-4, say=said.append)
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    shipped = {str(path.relative_to(ASSETS)) for path in ASSETS.rglob("*") if path.is_file()}
    assert made == {name for name in shipped if not any(end in name for end in ("-copy/", "-pair/"))}
    cfg = load_config("toybox", [f"policy.path={tmp_path / 'policy'}"])
    make_policy(cfg)
    build_toybox(tmp_path, seed=1, share=1e-4, say=said.append)  # nothing is made twice
    assert sum("already there" in line for line in said) == 6


def test_the_copy_worlds_base_is_built_from_the_packages(tmp_path):
    """The toy world's base copies nothing, the shipped one now and then; one built by two steps is where it began."""
    built = build_copying("copy-majority", tmp_path / "policy", seed=0, share=1e-3, say=print)
    cfg = load_config("copy", ["evaluation.subjects=12"])
    _, tasks = heldout_tasks(cfg)
    shares = {}
    for path in ("toybox", "toybox-copy", str(built)):
        policy = make_policy(override(cfg, [f"policy.path={path}"]))
        images = sample_tasks(policy, policy.sigmas(10, 1.5), tasks.batch, 96, ALONE)
        shares[path] = Copies(cfg.evaluation.copies)(images, tasks.batch).mean().item()
    assert shares["toybox"] == 0 and 0.08 < shares["toybox-copy"] < 0.3
    assert abs(shares[str(built)] - shares["toybox-copy"]) < 0.1


def test_the_pair_worlds_rewards_and_judges_rank_faults():
    """Of single subjects, and of the relation; the subjects' own rewards can't tell exchanged looks as surely, nor
    the CLIP exchanged places."""
    cfg = load_config("pair")
    source = toy_source("toybox-pair", 0, "validation", per_subject=2)
    rewards = per_subject(make_rewards(cfg.rewards), "identity", 2)
    table = pair_ranking(source, 16, make_scorers(rewards, make_judges(source.cases([0]))), make_policy(cfg))
    weak = {"looks swapped": ("_readback", 0.65), "places swapped": ("prompt", 0.75)}  # known to fall short of 0.95
    for name in FAULTS:
        for key, score in table[name].items():
            short, bound = weak.get(name, ("", 0.95))
            assert key in ("both_right", "identity") or score > (bound if key.endswith(short) else 0.95), (name, key)
