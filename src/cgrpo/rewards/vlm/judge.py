"""VlmJudge: a vision-language model behind an OpenAI-compatible endpoint, as a reward."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.launch import launched
from cgrpo.rewards.base import Axis, Reward, to_pictures
from cgrpo.rewards.network import read_secret
from cgrpo.rewards.vlm import VlmSettings
from cgrpo.rewards.vlm.cache import Judgement, JudgementCache, fingerprint_of
from cgrpo.rewards.vlm.rounds import Ledger, Round
from cgrpo.rewards.vlm.rubrics import Part, fitted, question
from cgrpo.types import Batch

# Settings that a judgement depends on.
ABOUT_REPLIES = ("model", "base_url", "format", "scoring", "temperature", "seed", "max_tokens")
log = logging.getLogger(__name__)


class VlmJudge(Reward):
    """The score that a judge gives by our rubric, 0 to 4. NaN: it refused, or the attempts ran out.

    Whole pictures go out as PNG, at their own size up to ``picture_side``: the references and the generated one
    ("identity"), or the generated one and the prompt ("prompt"). Equal questions are asked once. Raises UserError where
    no attempt can help (key, model, quota) and at the end of the budget, which torchrun's processes share; judgements
    finished by then are in the cache.
    """

    unit = "0 to 4 by our rubric"
    background = True

    def __init__(self, settings: VlmSettings):
        self.settings = settings
        self.axis: Axis = settings.task
        self._key()  # fails now rather than after hours; not kept
        self.cache = JudgementCache(_folder(settings.cache))
        _, processes = launched()
        self.ledger = Ledger(
            settings.input_price,
            settings.output_price,
            settings.budget / processes,
            math.ceil(settings.token_budget / processes),
        )
        self._dropped: set[str] = set()
        self._proven = False
        self._counts = dict.fromkeys(("rows", "given_up", "refused", "cached"), 0)
        self._reported = (0, 0, 0.0)

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        questions = self._questions(images_NHWC, batch)
        settings = {name: getattr(self.settings, name) for name in ABOUT_REPLIES}
        keys = [None if parts is None else fingerprint_of(parts, settings) for parts in questions]
        by_key = {key: parts for key, parts in zip(keys, questions, strict=True) if key is not None and parts}
        cached = {key: judgement for key in by_key if (judgement := self.cache.get(key)) is not None}
        missing = {key: parts for key, parts in by_key.items() if key not in cached}
        judgements: dict[str | None, Judgement | None] = {None: None, **cached, **self._ask(missing)}
        scores = []
        for key in keys:
            judgement = judgements[key]
            self._counts["rows"] += 1
            self._counts["cached"] += key in cached
            self._counts["given_up"] += judgement is None
            self._counts["refused"] += judgement is not None and judgement.refused
            scores.append(math.nan if judgement is None else judgement.score)
        return torch.tensor(scores, dtype=torch.float32)

    def report(self) -> dict[str, float]:
        """Since the last report: shares of samples given up, refused and found in the cache; tokens and their cost."""
        counts, self._counts = self._counts, dict.fromkeys(self._counts, 0)
        before, self._reported = self._reported, (self.ledger.input, self.ledger.output, self.ledger.cost)
        if not counts["rows"]:
            return {}
        shares = {name: counts[name] / counts["rows"] for name in ("given_up", "refused", "cached")}
        used = [now - then for now, then in zip(self._reported, before, strict=True)]
        return shares | {"input_tokens": used[0], "output_tokens": used[1], "cost": used[2]}

    def _questions(self, images_NHWC: Tensor, batch: Batch) -> list[tuple[Part, ...] | None]:
        """The question of each row; None for an identity without a reference."""
        task, form = self.settings.task, self.settings.format
        side = self.settings.picture_side
        pictures = [fitted(picture, side) for picture in to_pictures(images_NHWC)]
        if task == "prompt":
            pairs = zip(pictures, batch.prompts, strict=True)
            return [question(task, form, picture, prompt=prompt) for picture, prompt in pairs]
        small = {id(one): fitted(one, side) for references in batch.references for one in references}
        shown = [tuple(small[id(one)] for one in references) for references in batch.references]
        rows = zip(pictures, shown, batch.subjects, strict=True)
        return [
            question(task, form, picture, references=references, subject=subject) if references else None
            for picture, references, subject in rows
        ]

    def _key(self) -> str:
        variable = self.settings.key_variable
        otherwise = ", or set key_variable = '' for an endpoint without a key"
        return read_secret("vlm judge", variable, otherwise, ascii_only=True) if variable else ""

    def _ask(self, questions: Mapping[str, tuple[Part, ...]]) -> dict[str, Judgement | None]:
        if not questions:
            return {}
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self._ask_all(questions))
        with ThreadPoolExecutor(1) as thread:  # called from a loop, such as a notebook's: run beside it
            return thread.submit(asyncio.run, self._ask_all(questions)).result()

    async def _ask_all(self, questions: Mapping[str, tuple[Part, ...]]) -> dict[str, Judgement | None]:
        from cgrpo.rewards.vlm.client import Endpoint  # openai is an extra

        async with Endpoint(self.settings, self._key(), self._dropped) as endpoint:
            round_ = Round(endpoint, self.settings, self.ledger, self._keep, self._proven)
            try:
                return await round_.judge(questions)
            finally:
                self._proven = round_.proven
                if reasons := round_.reasons:
                    counts = f"{len(reasons)} of {len(questions)} judgements given up"
                    log.warning("vlm judge %s: %s; the last: %s", self.settings.model, counts, reasons[-1])

    def _keep(self, key: str, judgement: Judgement) -> None:
        self.cache.put(key, judgement, {"task": self.settings.task, "model": self.settings.model})


def _folder(cache: str) -> Path | None:
    """Raises UserError where ~ is nobody's, as in a container whose user has no home."""
    folder = os.path.expanduser(cache)
    if folder.startswith("~"):
        raise UserError(f"vlm cache {cache}: no such home folder is known here; set cache to another folder")
    return Path(folder) if folder else None
