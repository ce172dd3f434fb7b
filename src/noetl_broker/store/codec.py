"""JSON between Postgres and Python: fast where that is exact, exact everywhere.

orjson reads integers past 64 bits as floats and refuses to write them; the standard library does neither, at a
fifteenth of the speed. So a text that may hold such a number is left to the slow one.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

_LONG_NUMBER = re.compile(r"\d{16}|\d[eE][+-]?\d")


def load_json(text: str) -> Any:  # noqa: ANN401 - JSON has no narrower type
    """The value of a JSON text; numbers too large for a float are kept as the text they are written as."""
    if _LONG_NUMBER.search(text):
        return json.loads(text, parse_int=_whole, parse_float=_real)
    return orjson.loads(text)


def dump_json(value: Any) -> str:  # noqa: ANN401 - as above
    """The JSON text of a value; raises TypeError or ValueError for what JSON cannot hold."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _whole(digits: str) -> int | str:
    """Python refuses to read over 4,300 digits; such a number stays the text that it is."""
    try:
        return int(digits)
    except ValueError:
        return digits


def _real(digits: str) -> float | str:
    """1e400 is a number for Postgres and infinity for Python, which could not write it back."""
    value = float(digits)
    return digits if value in {float("inf"), float("-inf")} else value
