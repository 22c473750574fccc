"""Held-out evaluation: pictures, scores, intervals, report."""
