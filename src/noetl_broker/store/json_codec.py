"""JSON between Postgres and Python: fast where that is exact, exact everywhere.

orjson is 15 times as fast as the standard library. But it reads integers past 64 bits as floats, and cannot write them.
So the standard library reads texts that may hold such a number. It also reads floats that come back as integers
(`template/numbers.py` has the rule).

Reading never fails on valid JSON of Postgres: one event must not stop its whole batch. A value that Python cannot hold,
or could not write back, stays text. Writing refuses what jsonb cannot hold.
"""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import Any

import orjson

from noetl_broker.template import read_integer, read_real

# A value is written back inside another one, so more levels can be written than read. Python's recursion ends near
# 1,000 levels; orjson reads 1,024 and writes 254.
LEVELS_READ = 200
LEVELS_WRITTEN = 400
_LEVELS_OF_ORJSON = 254
NUL = "text with a NUL character (U+0000) cannot be stored in the database"
# An integer past 64 bits, a fraction behind 1e16 or more, an exponent. It begins with one class: four times as fast.
_LONG_NUMBER = re.compile(r"[0-9](?:[0-9]{18}|[0-9]{16}\.|[eE][+-]?[0-9])")
_SIGNED_ZERO = re.compile(r"-0(?:\.0+)?(?![0-9.eE])")
# Maps any digit to 0, E to e, and { to [. A plain search then rules most texts out. It is ten times as fast as the
# expression, which tries at every digit.
_SIGNS = bytes.maketrans(b"123456789E{", b"000000000e[")
_SHORT = 100  # characters; shorter texts are searched directly
_LONG, _WIDE, _WIDE_FRACTION, _EXPONENT, _OPENS = b"0" * 19, b"0" * 17, b"0" * 17 + b".", b"0e", b"["
_BRACKET_OR_STRING = re.compile(r'[\[\]{}]|"(?:[^"\\]++|\\.)*+"', re.DOTALL)  # possessive: a string costs no memory
# Only searched if `u0000` is found: a text may be full of backslashes.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def load_json(text: str) -> Any:
    """The value of a JSON text; a number that is too large, or a value that is too deep, stays text."""
    if len(text) <= _SHORT:
        return _load_slowly(text) if _has_long_number(text) else orjson.loads(text)
    signs = text.encode().translate(_SIGNS)
    long = _LONG in signs or _WIDE_FRACTION in signs or _EXPONENT in signs or "-0" in text
    return _load(text, perhaps_long=long, opening=signs.count(_OPENS))


def load_jsonb(text: str) -> Any:
    """As `load_json`, for the text of a jsonb, which has no exponents; on the hot path."""
    if len(text) < len(_LONG):
        return orjson.loads(text)
    signs = text.encode().translate(_SIGNS)
    long = _WIDE in signs and (_LONG in signs or _WIDE_FRACTION in signs)
    if long or (len(text) > LEVELS_READ and signs.count(_OPENS) > LEVELS_READ):
        return _load(text, perhaps_long=long, opening=signs.count(_OPENS))
    return orjson.loads(text)


def load_plainly(text: str) -> Any:
    """As `load_json`, with the standard library only: any depth that Python reads, and lone surrogates."""
    return _load_slowly(text) if _has_long_number(text) else json.loads(text)


def dump_json(value: Any) -> str:
    """The JSON text of a value with finite floats; raises TypeError or ValueError for what jsonb cannot hold."""
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        # It is too large or too deep for orjson, or has no JSON; the standard library is lenient about the latter.
        _refuse_what_is_no_json(value)
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    if "u0000" in text and _NUL.search(text):
        raise ValueError(NUL)
    return text


def _has_long_number(text: str) -> bool:
    return _LONG_NUMBER.search(text) is not None or ("-0" in text and _SIGNED_ZERO.search(text) is not None)


def _load_slowly(text: str) -> Any:
    return json.loads(text, parse_int=_whole, parse_float=_real)


def _load(text: str, *, perhaps_long: bool, opening: int) -> Any:
    """The value of a text that may hold a long number, and has so many opening brackets."""
    if perhaps_long and _has_long_number(text):
        if opening > LEVELS_READ and _levels(text) > LEVELS_READ:
            return text
        return _load_slowly(text)
    return _load_perhaps_deep(text) if opening > LEVELS_READ else orjson.loads(text)


def _load_perhaps_deep(text: str) -> Any:
    try:
        value = orjson.loads(text)
        # Writing it inside as many levels as still fit is the fastest test of its depth.
        probe = value
        for _ in range(_LEVELS_OF_ORJSON - LEVELS_READ):
            probe = [probe]
        orjson.dumps(probe)
    except (orjson.JSONDecodeError, TypeError):
        return text
    return value


def _levels(text: str) -> int:
    """How deep the brackets of a JSON text nest, outside its strings."""
    level = deepest = 0
    for bracket in _BRACKET_OR_STRING.findall(text):
        if bracket in "[{":
            level += 1
            deepest = max(deepest, level)
        elif bracket in "]}":
            level -= 1
    return deepest


def _refuse_what_is_no_json(value: Any) -> None:
    level = [value]
    for _ in range(LEVELS_WRITTEN + 1):
        for item in level:
            _refuse_one(item)
        level = list(chain.from_iterable(_inside(item) for item in level))
        if not level:
            return
    raise ValueError(f"a value of more than {LEVELS_WRITTEN} levels cannot be stored")


def _inside(item: Any) -> Any:
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, (list, tuple)) else ()


def _refuse_one(item: Any) -> None:
    for text in item if isinstance(item, dict) else (item,):
        if isinstance(item, dict) and not isinstance(text, str):
            raise TypeError(f"a key of a mapping must be text, {text!r:.80} is of type {type(text).__name__}")
        if isinstance(text, str) and not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
            raise ValueError(f"text with half a surrogate pair cannot be stored in the database: {text!a:.80}")


def _whole(digits: str) -> float | str:
    """Python refuses to read over 4,300 digits; such a number stays text."""
    try:
        return read_integer(digits)
    except ValueError:
        return digits


def _real(digits: str) -> float | str:
    """1e400 is a number for Postgres and infinity for Python, which could not write it back."""
    try:
        return read_real(digits)
    except ValueError:
        return digits
