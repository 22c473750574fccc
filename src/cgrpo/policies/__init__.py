"""Policies: what is trained. The only room that imports diffusers and peft; settings.py imports neither, nor torch."""
