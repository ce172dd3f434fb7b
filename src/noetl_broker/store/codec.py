"""JSON between Postgres and Python: fast where that is exact, exact everywhere.

orjson reads integers past 64 bits as floats and refuses to write them; the standard library does neither, at a
fifteenth of the speed. So a text that may hold such a number is left to the slow one, as is one with a float that would
come back as an integer (`template/numbers.py` has the rule).

Reading never fails on what Postgres takes for JSON: one stranger's event must not stop the whole batch that it came
with. What Python cannot hold, or could not write back, stays the text that it is written as. Writing refuses what jsonb
cannot hold.
"""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import Any

import orjson

from noetl_broker.template import read_integer, read_real

# What is read is written back within something else, so there is room between the two; Python's own recursion ends
# somewhere near 1,000. orjson reads 1,024 levels and writes 254.
LEVELS_READ = 200
LEVELS_WRITTEN = 400
_LEVELS_OF_ORJSON = 254
NUL = "text with a NUL character (U+0000) cannot be stored in the database"
# An integer past 64 bits, a fraction behind 1e16 or more, an exponent. It begins with one class: four times as fast.
_LONG_NUMBER = re.compile(r"[0-9](?:[0-9]{18}|[0-9]{16}\.|[eE][+-]?[0-9])")
_SIGNED_ZERO = re.compile(r"-0(?:\.0+)?(?![0-9.eE])")
# Any digit as 0, any e as e, whatever opens as [: a plain search says where the expression has nothing to find, which
# tries at every digit: in a text with many it takes ten times as long.
_SIGNS = bytes.maketrans(b"123456789E{", b"000000000e[")
_SHORT = 100  # characters, for which that is not worth its while
_LONG, _WIDE, _WIDE_FRACTION, _EXPONENT, _OPENS = b"0" * 19, b"0" * 17, b"0" * 17 + b".", b"0e", b"["
_BRACKET_OR_STRING = re.compile(r'[\[\]{}]|"(?:[^"\\]++|\\.)*+"', re.DOTALL)  # possessive: a string costs no memory
# Looked for where `u0000` is found: a text may be full of backslashes, which would hold a search for one of them up.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def load_json(text: str) -> Any:
    """The value of a JSON text; a number too large for Python, or all of a value too deep for it, as its text."""
    if len(text) <= _SHORT:
        return _load_slowly(text) if _has_long_number(text) else orjson.loads(text)
    signs = text.encode().translate(_SIGNS)
    long = _LONG in signs or _WIDE_FRACTION in signs or _EXPONENT in signs or "-0" in text
    return _load(text, perhaps_long=long, opening=signs.count(_OPENS))


def load_jsonb(text: str) -> Any:
    """As `load_json`, of what a jsonb gives: no number in it is written with an exponent. A hot path."""
    if len(text) < len(_LONG):
        return orjson.loads(text)
    signs = text.encode().translate(_SIGNS)
    long = _WIDE in signs and (_LONG in signs or _WIDE_FRACTION in signs)
    if long or (len(text) > LEVELS_READ and signs.count(_OPENS) > LEVELS_READ):
        return _load(text, perhaps_long=long, opening=signs.count(_OPENS))
    return orjson.loads(text)


def load_plainly(text: str) -> Any:
    """As `load_json`, by the standard library alone: of any depth that Python reads, and with half surrogate pairs."""
    return _load_slowly(text) if _has_long_number(text) else json.loads(text)


def dump_json(value: Any) -> str:
    """The JSON text of a value; raises TypeError or ValueError for what jsonb cannot hold. Floats must be finite."""
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        # Too large or too deep for orjson; or something that has no JSON, on which the standard library may be lenient.
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
        # The quickest way to find out whether it is: writing, within as much as still fits, costs less than reading.
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
    """Python refuses to read over 4,300 digits; such a number stays the text that it is."""
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
