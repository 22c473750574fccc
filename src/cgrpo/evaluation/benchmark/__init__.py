"""Benchmarks (DreamBench, the toy world, data of one's own): a policy's pictures of them or anyone's, scored as tidy
rows that statistics start from."""

from cgrpo.evaluation.benchmark.describe import describe
from cgrpo.evaluation.benchmark.dreambench import Which, dreambench_suite, official_list
from cgrpo.evaluation.benchmark.generate import Autoencoded, Generated, Maker, Sampled, method_name
from cgrpo.evaluation.benchmark.items import Item, copy_items, method_items, of_no_row, real_items
from cgrpo.evaluation.benchmark.layouts import FIRST_SEED, picture_name
from cgrpo.evaluation.benchmark.manifest import manifest_suite
from cgrpo.evaluation.benchmark.score import score_items
from cgrpo.evaluation.benchmark.suite import Row, Suite
from cgrpo.evaluation.benchmark.toybox import task_rows, toybox_suite

__all__ = [
    "FIRST_SEED",
    "Autoencoded",
    "Generated",
    "Item",
    "Maker",
    "Row",
    "Sampled",
    "Suite",
    "Which",
    "copy_items",
    "describe",
    "dreambench_suite",
    "manifest_suite",
    "method_items",
    "method_name",
    "of_no_row",
    "official_list",
    "picture_name",
    "real_items",
    "score_items",
    "task_rows",
    "toybox_suite",
]
