"""Durations and moments of a playbook, as templates write them, and time limits."""

from __future__ import annotations

from typing import Any

from noetl_broker.template.durations import (
    DURATION_FORMS,
    LONGEST_SECONDS,
    MOMENT_FORMS,
    after,
    moment_text,
    parse_duration,
    parse_moment,
    seconds_of,
)

__all__ = [
    "DURATION_FORMS",
    "LONGEST_SECONDS",
    "MOMENT_FORMS",
    "TIMEOUT_FORMS",
    "after",
    "moment_text",
    "parse_duration",
    "parse_moment",
    "parse_timeout",
]
TIMEOUT_FORMS = f"{DURATION_FORMS}, from 0.001 s to 365 days"
LEAST_TIMEOUT, LONGEST_TIMEOUT = 0.001, 365 * 86_400.0


def parse_timeout(value: Any) -> float:
    """The seconds of a time limit, from a millisecond to a year; raises ValueError for anything else."""
    seconds = seconds_of(value)
    if seconds is None or not LEAST_TIMEOUT <= seconds <= LONGEST_TIMEOUT:
        raise ValueError(f"a timeout is {TIMEOUT_FORMS}")
    return seconds
