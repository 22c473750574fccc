"""FLUX.1 with references: UNO, Kontext, and the toy world's policy."""
