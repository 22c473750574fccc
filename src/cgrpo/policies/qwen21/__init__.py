"""Qwen-Image-2.1: text and references are a causal prefix of the picture, so their keys and values are shared."""
