"""From prompts and pictures to what the transformer takes, and back."""
