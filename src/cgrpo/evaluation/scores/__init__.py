"""Scores as tidy rows: one schema, whoever made the pictures. Reading and writing, and what they are of."""

from cgrpo.evaluation.scores.description import join_description, read_description, write_description
from cgrpo.evaluation.scores.files import collect_rows, last_scored, open_part, read_scores, write_row, write_scores
from cgrpo.evaluation.scores.rows import (
    AUTOENCODED,
    COPY,
    PROMPT_ONLY,
    PROPERTY,
    REAL,
    RESERVED,
    Key,
    Protocol,
    ScoreRow,
    protocol_of,
)
from cgrpo.evaluation.scores.scorer import Role, Scorer

__all__ = [
    "AUTOENCODED",
    "COPY",
    "PROMPT_ONLY",
    "PROPERTY",
    "REAL",
    "RESERVED",
    "Key",
    "Protocol",
    "Role",
    "ScoreRow",
    "Scorer",
    "collect_rows",
    "join_description",
    "last_scored",
    "open_part",
    "protocol_of",
    "read_description",
    "read_scores",
    "write_description",
    "write_row",
    "write_scores",
]
