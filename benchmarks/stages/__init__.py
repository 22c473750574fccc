"""What a GPU benchmark measures: a file a stage, each ``python -m stages.NAME LINES [--tiny]``."""
