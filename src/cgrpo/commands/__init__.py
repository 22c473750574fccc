"""What the commands do. Python users call the same functions."""
