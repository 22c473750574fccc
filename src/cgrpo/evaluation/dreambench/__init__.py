"""DreamBench: its lists, a policy's pictures of them, and scores as tidy rows that statistics start from."""

from cgrpo.evaluation.dreambench.generate import Generated, generate_dreambench, method_name
from cgrpo.evaluation.dreambench.items import (
    COPY,
    PROMPT_ONLY,
    REAL,
    RESERVED,
    Item,
    copy_items,
    method_items,
    real_items,
)
from cgrpo.evaluation.dreambench.lists import FIRST_SEED, Layout, Row, Which, official_list, picture_name
from cgrpo.evaluation.dreambench.photographs import check_photographs, photographs, subjects_of
from cgrpo.evaluation.dreambench.rows import Protocol, ScoreRow, collect_rows, read_rows
from cgrpo.evaluation.dreambench.score import score_dreambench
from cgrpo.evaluation.dreambench.summary import describe, join_description, short_summary, write_description

__all__ = [
    "COPY",
    "FIRST_SEED",
    "PROMPT_ONLY",
    "REAL",
    "RESERVED",
    "Generated",
    "Item",
    "Layout",
    "Protocol",
    "Row",
    "ScoreRow",
    "Which",
    "check_photographs",
    "collect_rows",
    "copy_items",
    "describe",
    "generate_dreambench",
    "join_description",
    "method_items",
    "method_name",
    "official_list",
    "photographs",
    "picture_name",
    "read_rows",
    "real_items",
    "score_dreambench",
    "short_summary",
    "subjects_of",
    "write_description",
]
