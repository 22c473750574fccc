"""Method "sft": supervised fine-tuning on target pictures, the paper's baseline."""
