"""A series of adapters, such as the checkpoints of one run: which is best, and what is wrong with the others."""
