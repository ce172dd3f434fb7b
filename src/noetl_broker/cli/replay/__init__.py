"""The command `replay` and what it prints."""
