"""Benchmarks (DreamBench, the toy world, data of one's own): a policy's pictures of them or anyone's, scored as tidy
rows that statistics start from."""

from cgrpo.evaluation.benchmark.candidates import (
    FIRST_SEED,
    Candidate,
    copy_candidates,
    method_candidates,
    of_no_row,
    picture_name,
    real_candidates,
)
from cgrpo.evaluation.benchmark.dreambench import Which, dreambench_suite, official_list
from cgrpo.evaluation.benchmark.generate import Autoencoded, Generated, Maker, Sampled
from cgrpo.evaluation.benchmark.score import score_candidates
from cgrpo.evaluation.benchmark.suite import Suite, SuiteRow, describe, manifest_suite
from cgrpo.evaluation.benchmark.toybox import task_rows, toybox_suite

__all__ = [
    "FIRST_SEED",
    "Autoencoded",
    "Candidate",
    "Generated",
    "Maker",
    "Sampled",
    "Suite",
    "SuiteRow",
    "Which",
    "copy_candidates",
    "describe",
    "dreambench_suite",
    "manifest_suite",
    "method_candidates",
    "of_no_row",
    "official_list",
    "picture_name",
    "real_candidates",
    "score_candidates",
    "task_rows",
    "toybox_suite",
]
