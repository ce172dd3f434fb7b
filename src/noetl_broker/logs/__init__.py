"""Logging: the setup, and a standard error that never blocks."""

from noetl_broker.logs.setup import configure

__all__ = ["configure"]
