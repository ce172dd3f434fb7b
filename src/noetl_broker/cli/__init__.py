"""The command line: one module for each group of commands."""

from noetl_broker.cli.main import main

__all__ = ["main"]
