"""LoRA: on the transformer, in files, and between programs."""
