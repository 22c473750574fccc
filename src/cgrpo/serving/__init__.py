"""A reward behind HTTP, so that it may run in another process, on another GPU or machine. See rewards/wire.py."""
