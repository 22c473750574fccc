"""Paired differences with intervals over clusters, tests, trade-offs, and methods compared by them."""
