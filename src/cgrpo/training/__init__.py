"""Algorithm 1, its supervised baseline, checkpoints and the run directory."""
