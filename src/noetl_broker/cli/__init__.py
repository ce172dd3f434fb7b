"""The command line: it asks, and shows; deciding and remembering are done elsewhere."""

from noetl_broker.cli.group import main

__all__ = ["main"]
