"""A Postgres of our own for the demo, tests and development."""

from noetl_broker.embedded_postgres.leftover import end_leftover
from noetl_broker.embedded_postgres.server import EmbeddedPostgres, start

__all__ = ["EmbeddedPostgres", "end_leftover", "start"]
