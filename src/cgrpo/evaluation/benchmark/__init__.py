"""Benchmarks: a policy's pictures of them, or anyone's, scored as tidy rows that statistics start from."""
