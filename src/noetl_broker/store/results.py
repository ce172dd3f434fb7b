"""Makes what a statement gives JSON values: JSON's own type where it has one, else the text that Postgres prints.

The driver's own moments and spans know no infinity, no month, and no year before 1 or after 9999, so their numbers are
read here. Moments that it knows are written as ISO 8601.
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

EPOCH = datetime(2000, 1, 1)  # noqa: DTZ001 - Postgres counts from here, with a zone and without
DAY = 86_400_000_000  # in microseconds, as are all times here
FOUR_CENTURIES = 146_097  # in days: after so many the calendar is the same
INFINITY = {2**31 - 1: "infinity", -(2**31): "-infinity"}
LONG_INFINITY = {2**63 - 1: "infinity", -(2**63): "-infinity"}
CHARS = frozenset({18, 1002})  # "char" and its arrays, which the driver takes for bytes


async def set_codecs(connection: Any) -> None:
    """Have a connection give JSON values for the types of which the driver's own values lose something."""
    readers: list[tuple[str, str, Callable[[Any], Any]]] = [
        ("json", "binary", json.loads),
        ("jsonb", "binary", lambda data: json.loads(data[1:])),  # behind a version
        ("pg_lsn", "binary", lambda data: f"{int.from_bytes(data[:4]):X}/{int.from_bytes(data[4:]):X}"),
        ("date", "tuple", _date),
        ("timestamp", "tuple", _moment),
        ("timestamptz", "tuple", lambda value: _moment(value, "+00:00")),
        ("time", "tuple", _time),
        ("timetz", "tuple", _time),
        ("interval", "tuple", _interval),
    ]
    for name, form, read in readers:  # the driver knows these types: nothing is asked of the server
        await connection.set_type_codec(name, schema="pg_catalog", encoder=str, decoder=read, format=form)


def readers_of(attributes: Sequence[Any]) -> list[Callable[[Any], Any]]:
    """Give for each column what makes its values JSON values."""
    return [_chars if attribute.type.oid in CHARS else jsonable for attribute in attributes]


def jsonable(value: Any) -> Any:
    """Make a value of asyncpg's a JSON value; what JSON has no type for becomes text: moments ISO 8601, bytes hex."""
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
    """A number, whatever its digits: templates calculate with it, and `::text` keeps all of them."""
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
    """Write a path; a polygon is a closed one."""
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
    """Write a day, counted from the epoch, and its era."""
    cycles, day = divmod(days + EPOCH.toordinal() - 1, FOUR_CENTURIES)
    found = date.fromordinal(day + 1)
    year = found.year + 400 * cycles
    return f"{year if year > 0 else 1 - year:04}-{found.month:02}-{found.day:02}", "" if year > 0 else " BC"


def _moment(value: tuple[int], zone: str = "") -> str:
    if told := LONG_INFINITY.get(value[0]):
        return told
    try:
        return (EPOCH + timedelta(microseconds=value[0])).isoformat() + zone
    except OverflowError:
        days, rest = divmod(value[0], DAY)
        day, era = _day(days)
        return f"{day} {_clock(rest)}{zone[:3]}{era}"


def _time(value: tuple[int, ...]) -> str:
    """Write a time of day, with the zone if it has one, which Postgres counts to the west."""
    zone = timezone(timedelta(seconds=-value[1])) if len(value) > 1 else None
    if value[0] == DAY:
        return f"24{clock_time(tzinfo=zone).isoformat()[2:]}"
    return (EPOCH + timedelta(microseconds=value[0])).time().replace(tzinfo=zone).isoformat()


def _clock(microseconds: int) -> str:
    seconds, fraction = divmod(microseconds, 1_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{fraction:06}".rstrip("0") if fraction else text


def _interval(value: tuple[int, int, int]) -> str:
    """Write a span as Postgres does, so that it is the same span where it is read again."""
    months, days, microseconds = value
    if months in INFINITY and INFINITY.get(days) == INFINITY[months]:
        return INFINITY[months]
    years, months = (part * (-1 if months < 0 else 1) for part in divmod(abs(months), 12))
    parts: list[str] = []
    sign = ""  # what is not negative after something that is has a plus
    for number, unit in ((years, "year"), (months, "mon"), (days, "day")):
        if number:
            parts.append(f"{sign if number > 0 else ''}{number} {unit}{'' if number == 1 else 's'}")
            sign = "+" if number < 0 else ""
    if microseconds or not parts:
        parts.append(("-" if microseconds < 0 else sign) + _clock(abs(microseconds)))
    return " ".join(parts)
