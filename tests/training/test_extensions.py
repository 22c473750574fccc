"""A package that adds a method and a credit function: both are chosen by name, trained with and refused like ours."""

import json
import sys

import pytest
from support.packages import install

from cgrpo.app.run import train
from cgrpo.config import load_config
from cgrpo.errors import UserError

SETTINGS = '''
from typing import Literal
from cgrpo.config import Config, Section

class Distillation(Section):
    batch: int = 2
    """Pictures per iteration."""

class Distil(Config):
    """Learn from the references themselves."""
    loop = "mine.loop:Distiller"
    method: Literal["distil"] = "distil"
    distillation: Distillation = Distillation()

    def share(self):
        return self.distillation.batch, "distillation.batch"

    def title(self):
        return "Distillation"

    def facts(self):
        return {"Pictures": f"{self.distillation.batch} per iteration"}
'''
LOOP = """
from cgrpo.algorithm import flow_matching_loss, noised
from cgrpo.training.loop import PairLoop

class Distiller(PairLoop):
    def run(self, first):
        for number in self.iterations(first):
            with self.timer("update"):
                batch = self.source.batch(self.tasks(number))
                pictures = [references[0].convert("RGB") for references in batch.references]
                x0 = self.policy.encode_targets(pictures)
                noise, sigma = self.noise_and_levels("distil", number, x0)
                velocity = self.policy.velocity(noised(x0, noise, sigma), sigma, self.policy.encode(batch))
                loss = flow_matching_loss(velocity, x0, noise).mean()
                loss.backward()
                numbers = self.unscored() | {"loss": loss.item(), "gradient_norm": self.step()}
            yield self.ended(number, numbers, batch, self.shown(pictures))
"""
CREDITS = """
from cgrpo.algorithm import combine, group_advantages

def product(scores_PGR, weights_KR, settings):
    adv_PGR = group_advantages(scores_PGR)
    bonus_PG = settings.alpha * adv_PGR.prod(-1)
    return combine(weights_KR, adv_PGR, bonus_PG), bonus_PG
"""


@pytest.fixture
def methods(tmp_path, monkeypatch):
    """An installed package with a method."""
    (tmp_path / "mine").mkdir()
    for name, text in {"__init__": "", "settings": SETTINGS, "loop": LOOP}.items():
        (tmp_path / "mine" / f"{name}.py").write_text(text)
    install(tmp_path, monkeypatch, "cgrpo.methods", {"distil": "mine.settings:Distil"})
    yield
    for name in ("mine", "mine.settings", "mine.loop"):
        sys.modules.pop(name, None)


@pytest.fixture
def credits(tmp_path, monkeypatch):
    """An installed package with a credit function."""
    (tmp_path / "my_credits.py").write_text(CREDITS)
    install(tmp_path, monkeypatch, "cgrpo.credits", {"product": "my_credits:product"})
    yield
    sys.modules.pop("my_credits", None)


def test_a_method_of_another_package_trains(methods, small_pairs, tmp_path):
    cfg = small_pairs("method=distil", "distillation.batch=3")
    assert cfg.method == "distil" and "mine.loop" not in sys.modules
    folder = train(cfg, tmp_path / "run")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(row["loss"] > 0 and row["gradient_norm"] > 0 for row in rows)
    assert "Distillation" in (folder / "report.html").read_text()
    assert train(small_pairs("method=distil", "distillation.batch=3", "training.iterations=4"), resume=folder) == folder
    with pytest.raises(UserError, match=r"distillation\.batch belongs to method distil"):
        load_config("toybox", ["distillation.batch=3"])
    with pytest.raises(UserError, match="there is no method 'distill'; did you mean 'distil'"):
        load_config("toybox", ["method=distill"])


def test_a_credit_function_of_another_package_trains(credits, small, tmp_path):
    cfg = small("shaping.type=product", "shaping.alpha=0.25", "training.iterations=1")
    assert cfg.title() == "GRPO: product + TDW"
    folder = train(cfg, tmp_path / "run")
    (row,) = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert row["gradient_norm"] > 0 and row["bonus_shift"] != 0
    with pytest.raises(UserError, match="did you mean 'product'"):
        load_config("toybox", ["shaping.type=produkt"])
