"""Metrics of the broker: counted, collected, exported."""
