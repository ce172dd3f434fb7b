"""The SQL of a step: split, run, and its values as JSON."""
