"""FLUX.2-klein with references."""
