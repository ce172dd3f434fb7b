"""Reads values that are no templates: numbers with bounds, booleans, words from a list."""

from __future__ import annotations

import re
from contextlib import suppress
from math import inf
from typing import Any, NamedTuple

from noetl_broker.playbook.diagnostics import Location, json_type_name
from noetl_broker.playbook.durations import DURATION_FORMS, parse_duration
from noetl_broker.playbook.reader import Reading, TemplateSite, strings
from noetl_broker.template import Tree


class Range(NamedTuple):
    """The least and the greatest value allowed."""

    least: float
    most: float

    def __str__(self) -> str:
        """Give the range as an author reads it."""
        if self.most == inf:
            return f"of at least {_plain(self.least)}"
        return f"from {_plain(self.least)} to {_plain(self.most)}"


PRIORITIES = Range(-32_768, 32_767)  # a smallint of the queue
SECONDS = Range(0.001, 31_536_000)  # up to a year
LARGEST_VERSION = 2**31 - 1  # an int4
VERSIONS = Range(1, LARGEST_VERSION)
NAME_CHARS = 255  # names are in indexes, whose rows Postgres bounds
KEY_BYTES = 1024  # of a signal, a throttle or a slot: as names
QUOTED_VERSION = re.compile(r"[1-9][0-9]{0,9}")
DELAYS = Range(0, 31_536_000)  # seconds


def read_number(
    reading: Reading, value: Any, location: Location, allowed: Range, code: str = "bad-value"
) -> float | None:
    """Give a number in a range; None, and an error in the report, for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool) and allowed.least <= value <= allowed.most:
        return float(value)
    _refuse(reading, value, location, f"a number {allowed}", code)
    return None


def read_seconds(
    reading: Reading, value: Any, location: Location, allowed: Range, code: str = "bad-value"
) -> float | None:
    """Give the seconds of a duration in a range; None, and an error in the report, for anything else."""
    with suppress(ValueError):
        seconds = parse_duration(value)
        if allowed.least <= seconds <= allowed.most:
            return seconds
    message = f"`{location[-1]}` is {shown_value(value)}, not a duration {allowed} seconds"
    reading.report.error(code, location, message, f"write {DURATION_FORMS}")
    return None


def read_integer(
    reading: Reading, value: Any, location: Location, allowed: Range, code: str = "bad-value"
) -> int | None:
    """Give an integer in a range; None, and an error in the report, for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and allowed.least <= value <= allowed.most:
        return value
    _refuse(reading, value, location, f"an integer {allowed}", code)
    return None


def read_whole(
    reading: Reading, value: Any, location: Location, part: TemplateSite, allowed: Range, code: str = "bad-value"
) -> Tree:
    """Compile an integer in a range, or a template; report anything else as an error."""
    whole = isinstance(value, int) and not isinstance(value, bool) and allowed.least <= value <= allowed.most
    if not whole and not (isinstance(value, str) and any(strings(value, location))):
        message = f"`{location[-1]}` is {shown_value(value)}, not a whole number {allowed}"
        reading.report.error(code, location, message, "write it without quotes, or a template that gives one")
    return reading.tree(value, location, part)


def as_version(value: Any) -> Any:
    """Give a version such as "1" as a number; anything else unchanged."""
    return int(value) if isinstance(value, str) and QUOTED_VERSION.fullmatch(value) else value


def read_boolean(reading: Reading, value: Any, location: Location, code: str = "bad-value") -> bool | None:
    """Give a boolean; None, and an error in the report, for anything else."""
    if isinstance(value, bool):
        return value
    _refuse(reading, value, location, "true or false", code)
    return None


def read_word(
    reading: Reading, value: Any, location: Location, words: tuple[str, ...], code: str = "bad-value"
) -> str | None:
    """Give one of the words; None, and an error in the report, for anything else."""
    if isinstance(value, str) and value in words:
        return value
    what = value if isinstance(value, str) else json_type_name(value)
    reading.report.error(
        code, location, f"`{location[-1]}` is {what}, not one of {', '.join(words)}", f"the default is {words[0]}"
    )
    return None


def _refuse(reading: Reading, value: Any, location: Location, wanted: str, code: str) -> None:
    what = shown_value(value)
    hint = "write it without quotes or template" if isinstance(value, str) else f"write {wanted}"
    reading.report.error(code, location, f"`{location[-1]}` is {what}, not {wanted}", hint)


def shown_value(value: Any) -> str:
    """Give a value as an error shows it."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, str | int | float) else json_type_name(value)


def _plain(bound: float) -> str:
    return f"{bound:g}" if bound != int(bound) else str(int(bound))
