"""Benchmarks (DreamBench, the toy world, data of one's own): a policy's pictures of them or anyone's, scored as tidy
rows that statistics start from."""

from cgrpo.evaluation.benchmark.dreambench import Which, dreambench_suite, official_list
from cgrpo.evaluation.benchmark.generate import Generated, autoencode_targets, generate_pictures, method_name
from cgrpo.evaluation.benchmark.items import (
    AUTOENCODED,
    COPY,
    PROMPT_ONLY,
    REAL,
    RESERVED,
    Item,
    copy_items,
    method_items,
    real_items,
)
from cgrpo.evaluation.benchmark.layouts import FIRST_SEED, picture_name
from cgrpo.evaluation.benchmark.manifest import manifest_suite
from cgrpo.evaluation.benchmark.rows import Protocol, ScoreRow, collect_rows, read_scores
from cgrpo.evaluation.benchmark.score import score_items
from cgrpo.evaluation.benchmark.suite import PROPERTY, Row, Suite
from cgrpo.evaluation.benchmark.summary import (
    describe,
    join_description,
    read_description,
    short_summary,
    write_description,
)
from cgrpo.evaluation.benchmark.toybox import toybox_suite

__all__ = [
    "AUTOENCODED",
    "COPY",
    "FIRST_SEED",
    "PROMPT_ONLY",
    "PROPERTY",
    "REAL",
    "RESERVED",
    "Generated",
    "Item",
    "Protocol",
    "Row",
    "ScoreRow",
    "Suite",
    "Which",
    "autoencode_targets",
    "collect_rows",
    "copy_items",
    "describe",
    "dreambench_suite",
    "generate_pictures",
    "join_description",
    "manifest_suite",
    "method_items",
    "method_name",
    "official_list",
    "picture_name",
    "read_description",
    "read_scores",
    "real_items",
    "score_items",
    "short_summary",
    "toybox_suite",
    "write_description",
]
