"""Helpers of the rooms' tests import under any of pytest's import modes."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / room) for room in ("evaluation", "policies", "rewards", "training")]
