"""`cgrpo cite`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_verb

CITATION = """\
@inproceedings{huang2026customizedgrpo,
  title     = {From Competition to Synergy: Unlocking Reinforcement Learning for Subject-Driven Image Generation},
  author    = {Huang, Ziwei and Shu, Yin and Fang, Hao and Long, Quanyu and Wang, Wenya and Guo, Qiushi and
               Ge, Tiezheng and Gan, Leilei},
  booktitle = {Annual Meeting of the Association for Computational Linguistics (ACL)},
  year      = {2026},
  note      = {arXiv:2510.18263}
}"""

EXAMPLES = "cgrpo cite"


def add(verbs: argparse._SubParsersAction) -> None:
    add_verb(verbs, "cite", "how to cite the paper", run, EXAMPLES)


def run(options: argparse.Namespace) -> None:
    print(CITATION)
