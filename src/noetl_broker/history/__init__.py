"""Recorded executions, read and replayed. Pure, like the core."""
