"""The paper's tables by one command: tables are data (recipes/tables), runs are shared between them by content.

definition -> runs -> jobs -> results -> cells -> page.
"""

from cgrpo.reproduce.cells import Scoreboard, scoreboard
from cgrpo.reproduce.claims import every_claim, headlines
from cgrpo.reproduce.definition import SCALES, Table, load_table, tables, worlds
from cgrpo.reproduce.jobs import CLUSTERS, Cluster, Progress, run_jobs
from cgrpo.reproduce.page import board_page, board_tables
from cgrpo.reproduce.results import Results
from cgrpo.reproduce.runs import Job, jobs_of

__all__ = [
    "CLUSTERS",
    "SCALES",
    "Cluster",
    "Job",
    "Progress",
    "Results",
    "Scoreboard",
    "Table",
    "board_page",
    "board_tables",
    "every_claim",
    "headlines",
    "jobs_of",
    "load_table",
    "run_jobs",
    "scoreboard",
    "tables",
    "worlds",
]
