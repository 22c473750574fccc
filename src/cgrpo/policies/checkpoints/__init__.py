"""Checkpoints on disk: diffusers folders and BFL files, loaded strictly."""
