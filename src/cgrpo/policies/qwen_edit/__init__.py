"""Qwen-Image-Edit (2509, 2511): its checkpoint, its text encoder that reads references with the prompt, its policy."""
