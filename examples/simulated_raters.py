"""A dress rehearsal of a study: raters who look through judges answer its pages over HTTP, as people would.

    cgrpo study serve study &
    python examples/simulated_raters.py study --scores scores --identity identity_readback --prompt prompt_readback

They see a picture's score by a judge, plus noise of their own; a small difference is a tie. Careless ones answer at
random once the tutorial is passed, which the hidden checks should find out. What the pages show is read from the pages;
the study's folder says whose picture it is.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np

from cgrpo.scores import read_scores
from cgrpo.study.manifest import Item, Study, read_study

Scores = dict[tuple[str, str, int | None, int | None, str], float]
FIELDS = ("attempt", "position", "revision")


class SimulatedRater:
    """``metrics``: the judge by question; ``noise``: of a score, in the judge's unit; None: answers at random."""

    def __init__(self, study: Study, scores: Scores, metrics: dict[str, str], noise: float | None, seed: int):
        self.study, self.scores, self.metrics, self.noise = study, scores, metrics, noise
        self.by_picture = {picture: item for item in study.items for picture in item.pictures}
        self.rng = np.random.default_rng(seed)

    def run(self, link: str) -> int:
        """From consent to the end; returns the number of pages answered."""
        page, count = urlopen(link, data=urlencode({"consent": "yes"}).encode()), 0
        while True:
            text, here = page.read().decode(), page.geturl()
            if here.endswith("/done"):
                return count
            if "<form" not in text:  # an explanation of the tutorial
                page = urlopen(here.rsplit("/tutorial", 1)[0] + "/next")
                continue
            hidden = {name: found[1] for name in FIELDS if (found := re.search(rf'name="{name}" value="(\d+)"', text))}
            shown = re.findall(r'pictures/(\w+)\.png" alt="Picture', text)
            page = urlopen(here, data=urlencode(self.answer(shown) | hidden).encode())
            count += "/items/" in here

    def answer(self, shown: list[str]) -> dict[str, str]:
        item = self.by_picture[shown[0]]
        first_on_left = shown[0] == item.pictures[0]
        return {question.id: self.choose(item, question.id, first_on_left) for question in self.study.questions}

    def choose(self, item: Item, question: str, first_on_left: bool) -> str:
        choices = self.study.choices
        if self.noise is None and item.kind != "tutorial":
            return str(self.rng.choice(choices))
        gold = [choice for choice in choices if item.is_right(question, choice, first_on_left)]
        if gold:  # the reference beside another subject: anyone who looks sees it
            return gold[0]
        if item.kind != "item":
            return choices[len(choices) // 2]
        seen = [self.see(item, place, question) for place in range(len(item.pictures))]
        if len(seen) == 1:
            return str(int(np.clip(round(5 * seen[0]), 0, 5)))
        left, right = seen if first_on_left else seen[::-1]
        return "tie" if abs(left - right) < (self.noise or 0) else "left" if left > right else "right"

    def see(self, item: Item, place: int, question: str) -> float:
        arm = item.arms[place]
        score = self.scores[arm.method, item.subject, item.prompt_index, arm.seed, self.metrics[question]]
        return score + self.rng.normal(0, self.noise or 0)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("study", type=Path)
    options.add_argument("--scores", type=Path, required=True, help="the --out of cgrpo evaluate")
    options.add_argument("--identity", required=True, metavar="METRIC")
    options.add_argument("--prompt", required=True, metavar="METRIC")
    options.add_argument("--noise", type=float, default=0.05)
    options.add_argument("--careless", type=int, default=0, metavar="N", help="the last N raters")
    ask = options.parse_args()
    study = read_study(ask.study)
    scores = {
        (row.method, row.subject, row.prompt_index, row.seed, row.metric): row.score
        for row in read_scores(ask.scores)
        if row.score is not None
    }
    links = re.findall(r"^rater \d+: (\S+)$", (ask.study / "links.txt").read_text(encoding="utf-8"), re.MULTILINE)
    metrics = {"identity": ask.identity, "prompt": ask.prompt}
    for number, link in enumerate(links):
        noise = None if number >= len(links) - ask.careless else ask.noise
        pages = SimulatedRater(study, scores, metrics, noise, number).run(link)
        print(f"rater {number + 1}: {pages} pages" + (", at random" if noise is None else ""), flush=True)


if __name__ == "__main__":
    main()
