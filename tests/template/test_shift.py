"""The filter `shift`: a moment that is earlier or later."""

from __future__ import annotations

import pytest

from noetl_broker.template.durations import DURATION_FORMS
from tests.template.evaluating import error_message_of, value_of

NAMES = {"at": "2026-03-01T09:00:00+02:00"}


@pytest.mark.parametrize(
    "by, expected",
    [
        ("'-1d'", "2026-02-28T07:00:00.000000Z"),
        ("'+2h30m'", "2026-03-01T09:30:00.000000Z"),
        ("'PT90S'", "2026-03-01T07:01:30.000000Z"),
        ("-0.5", "2026-03-01T06:59:59.500000Z"),
        ("60", "2026-03-01T07:01:00.000000Z"),
    ],
)
def test_a_moment_is_moved_by_a_duration(by: str, expected: str) -> None:
    """Earlier with a minus; in UTC."""
    assert value_of(f"{{{{ at | shift({by}) }}}}", inputs=NAMES) == expected


@pytest.mark.parametrize(
    "source, reason",
    [
        ("{{ 'today' | shift('1d') }}", "`shift` moves a moment (RFC 3339, such as 2026-03-01T09:00:00Z), not 'today'"),
        (
            "{{ at | shift('a day') }}",
            f"`shift` takes a duration such as -1d ({DURATION_FORMS}), not 'a day'",
        ),
        ("{{ '0001-01-01T00:00:00Z' | shift('-1s') }}", "`shift` by '-1s' leaves the years 1 to 9999"),
    ],
)
def test_anything_else_is_an_error(source: str, reason: str) -> None:
    """With the value, and what to write."""
    assert error_message_of(source, inputs=NAMES) == reason
