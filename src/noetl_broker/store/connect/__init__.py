"""Connections: to which database and schema, with which settings, and what an error means."""
