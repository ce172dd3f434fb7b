"""A Postgres-native workflow broker: events in, decisions out, one transaction."""

__version__ = "0.1.0"
