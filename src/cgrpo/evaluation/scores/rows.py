"""A row of scores: what a metric says of a picture. One schema, of a benchmark and of a run alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Protocol = Literal["one", "all", "prompt", "picture"]
PROPERTY = "property"  # the kind of prompts that ask for what the subject is not ("a red ...")
# Rows that stand beside every method, and so no method may be called.
REAL, COPY, PROMPT_ONLY, AUTOENCODED = "real-vs-real", "copy-paste", "prompt-only", "autoencoded"
RESERVED = (REAL, AUTOENCODED, COPY, PROMPT_ONLY)
Key = tuple[str, str, int | None, int | None, str, str, str, int | None]


@dataclass(frozen=True)
class ScoreRow:
    """What a metric says of a picture.

    method        who made the picture; in a run "base" and "trained"
    subject       "cat", or "cat+dog" for a pair
    prompt_index  counts the subject's prompts from 0; None for real photographs, as prompt is
    subject_kind  "live", "object", or "mixed" for a pair of both; "" for none
    prompt_kind   "background", "property", ...; "" for none
    seed          None where nothing was generated
    metric        the name it was asked for by; benchmark.json says its unit, axis and checkpoint
    protocol      what an identity metric compares with: the "one" reference of a subject, or the mean over "all" its
                  photographs; "prompt" for metrics of the prompt, "picture" for measures that are neither
                  good nor bad (rewards/measures.py), beside all photographs
    score         None: could not be scored, ``error`` says why
    picture       path in the method's folder (benchmark.json: methods), of photographs in the benchmark's; "" where
                  none was kept
    reference     which of the task's references an identity score is against, from 0; None: what the protocol says
    """

    method: str
    subject: str
    prompt_index: int | None
    prompt: str | None
    seed: int | None
    metric: str
    protocol: Protocol
    score: float | None
    picture: str
    error: str | None
    subject_kind: str = ""
    prompt_kind: str = ""
    reference: int | None = None

    @property
    def key(self) -> Key:
        task = (self.method, self.subject, self.prompt_index, self.seed)
        return (*task, self.metric, self.protocol, self.picture, self.reference)


def protocol_of(role: str, axis: str, identity: Protocol = "one") -> Protocol:
    """What a metric is compared with: ``identity`` says it for identity's, where it is no guard."""
    if axis == "prompt":
        return "prompt"
    return identity if axis == "identity" and role != "guard" else "picture"
