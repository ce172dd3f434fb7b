"""Converts the values of rows to JSON types, or else to the text that Postgres prints.

Timestamps are ISO 8601. The raw numbers are converted here, because Python's types lack infinity, months, and years
before 1 or after 9999.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta, timezone
from datetime import time as clock_time
from decimal import Decimal
from typing import Any

import asyncpg
from asyncpg.types import BitString, Path

EPOCH = datetime(2000, 1, 1)  # noqa: DTZ001 - of Postgres, with a time zone and without
DAY = 86_400_000_000  # in microseconds, as are all times here
FOUR_CENTURIES = 146_097  # in days; the calendar repeats after them
INFINITY = {2**31 - 1: "infinity", -(2**31): "-infinity"}
LONG_INFINITY = {2**63 - 1: "infinity", -(2**63): "-infinity"}
CHARS = frozenset({18, 1002})  # "char" and its arrays, which the driver reads as bytes


async def set_codecs(connection: Any) -> None:
    """Set the codecs of a connection for the types that the driver reads with a loss."""
    for name, form, read in CODECS:  # these types are built in, so this sends no query
        await connection.set_type_codec(name, schema="pg_catalog", encoder=str, decoder=read, format=form)


async def reset_codecs(connection: Any) -> None:
    """Give a connection the driver's own codecs again."""
    for name, _, _ in CODECS:
        await connection.reset_type_codec(name, schema="pg_catalog")


def readers_of(attributes: Sequence[Any]) -> list[Callable[[Any], Any]]:
    """The function for each column that converts its values to JSON."""
    return [_chars if attribute.type.oid in CHARS else jsonable for attribute in attributes]


def jsonable(value: Any) -> Any:
    """Convert a value of asyncpg to JSON. Types that JSON does not have become text: timestamps ISO 8601, bytes hex."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    if isinstance(value, (dict, asyncpg.Record)):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return _text(value)


def _decimal(value: Decimal) -> int | float | str:
    """A number, because templates calculate with it; `::text` in the query keeps all digits."""
    if not value.is_finite():
        return str(value)
    if value == value.to_integral_value():
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else f"{value:f}"


def _text(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return f"\\x{bytes(value).hex()}"
    if isinstance(value, asyncpg.Range):
        return _range_text(value)
    if isinstance(value, BitString):
        return value.as_string().replace(" ", "")
    if isinstance(value, Path):
        return _path_text(value)
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)


def _range_text(value: Any) -> str:
    if value.isempty:
        return "empty"
    lower, upper = ("" if bound is None else _bound(bound) for bound in (value.lower, value.upper))
    return f"{'[' if value.lower_inc else '('}{lower},{upper}{']' if value.upper_inc else ')'}"


def _bound(value: Any) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(jsonable(value))


def _path_text(value: Any) -> str:
    """A path as text; a polygon is a closed path."""
    points = ",".join(
        f"({','.join(repr(number).removesuffix('.0') for number in (point.x, point.y))})" for point in value.points
    )
    return f"({points})" if value.is_closed else f"[{points}]"


def _chars(value: Any) -> Any:
    if isinstance(value, list):
        return [_chars(item) for item in value]
    if value is None or value == b"\x00":
        return None if value is None else ""
    return value.decode() if value.isascii() else f"\\{value[0]:o}"


def _date(value: tuple[int]) -> str:
    days = value[0]
    return INFINITY.get(days) or "".join(_day(days))


def _day(days: int) -> tuple[str, str]:
    """The date of a day, counted from the epoch, and its era."""
    cycles, day = divmod(days + EPOCH.toordinal() - 1, FOUR_CENTURIES)
    found = date.fromordinal(day + 1)
    year = found.year + 400 * cycles
    return f"{year if year > 0 else 1 - year:04}-{found.month:02}-{found.day:02}", "" if year > 0 else " BC"


def _moment(value: tuple[int], zone: str = "") -> str:
    if infinity := LONG_INFINITY.get(value[0]):
        return infinity
    try:
        return (EPOCH + timedelta(microseconds=value[0])).isoformat() + zone
    except OverflowError:
        days, rest = divmod(value[0], DAY)
        day, era = _day(days)
        return f"{day} {_clock(rest)}{zone[:3]}{era}"


def _time(value: tuple[int, ...]) -> str:
    """A time of day, with its zone if it has one; Postgres counts zones to the west."""
    zone = timezone(timedelta(seconds=-value[1])) if len(value) > 1 else None
    if value[0] == DAY:
        return f"24{clock_time(tzinfo=zone).isoformat()[2:]}"
    return (EPOCH + timedelta(microseconds=value[0])).time().replace(tzinfo=zone).isoformat()


def _clock(microseconds: int) -> str:
    seconds, fraction = divmod(microseconds, 1_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{fraction:06}".rstrip("0") if fraction else text


def _interval(value: tuple[int, int, int]) -> str:
    """An interval as Postgres prints it."""
    months, days, microseconds = value
    if months in INFINITY and INFINITY.get(days) == INFINITY[months]:
        return INFINITY[months]
    years, months = (part * (-1 if months < 0 else 1) for part in divmod(abs(months), 12))
    parts: list[str] = []
    sign = ""  # a positive part after a negative one has a plus
    for number, unit in ((years, "year"), (months, "mon"), (days, "day")):
        if number:
            parts.append(f"{sign if number > 0 else ''}{number} {unit}{'' if number == 1 else 's'}")
            sign = "+" if number < 0 else ""
    if microseconds or not parts:
        parts.append(("-" if microseconds < 0 else sign) + _clock(abs(microseconds)))
    return " ".join(parts)


# The types that the driver reads with a loss: the form of their values, and what reads them.
CODECS: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("json", "binary", json.loads),
    ("jsonb", "binary", lambda data: json.loads(data[1:])),  # after a version byte
    ("pg_lsn", "binary", lambda data: f"{int.from_bytes(data[:4]):X}/{int.from_bytes(data[4:]):X}"),
    ("date", "tuple", _date),
    ("timestamp", "tuple", _moment),
    ("timestamptz", "tuple", lambda value: _moment(value, "+00:00")),
    ("time", "tuple", _time),
    ("timetz", "tuple", _time),
    ("interval", "tuple", _interval),
)
