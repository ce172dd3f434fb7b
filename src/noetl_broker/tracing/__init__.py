"""Traces of executions, sent to OpenTelemetry."""
