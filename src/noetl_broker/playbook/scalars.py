"""What a scalar of YAML means, by the core rules of YAML 1.2 without surprises.

Only true, false, null, integers, finite numbers and text exist: `no`, `on`, `12:30`, `2024-01-01`, `1_000` and `007`
stay strings, because whoever writes them means what stands there.
"""

from __future__ import annotations

import math
import re

from noetl_broker.template import number_of

MAX_INTEGER_BITS = 256
_MAX_DIGITS = 80  # no integer of 256 bits has more

TAGS = {f"tag:yaml.org,2002:{name}": name for name in ("str", "int", "float", "bool", "null", "map", "seq")}

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    "": None,
    **dict.fromkeys(("~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER_START = frozenset("+-.0123456789")
_NAMES = {type(None): "null", bool: "bool", int: "int", float: "float", str: "str"}


def resolve(text: str, *, tag: str | None, plain: bool) -> str | float | bool | None:
    """Give the value of a scalar; `plain` if it has neither quotes nor a tag. ValueError says what cannot be stored."""
    if plain:
        return _plain(text)
    if tag in (None, "!", "tag:yaml.org,2002:str"):
        return _storable(text)
    wanted = TAGS.get(str(tag))
    value = _plain(text)
    if _NAMES[type(value)] == wanted:
        return value
    if wanted == "float" and _NAMES[type(value)] == "int" and value is not None:
        return number_of(float(value))
    if wanted in ("int", "float", "bool", "null"):
        raise ValueError(f"{text!r} is not of the type {wanted} that its tag says")
    raise ValueError(f"the tag {tag} is not supported")


def _plain(text: str) -> str | float | bool | None:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_START:
        return _storable(text)
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise ValueError(f"the number {text} is too large")
        return number_of(number)
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is a number that JSON does not have")
    return _storable(text)


def _integer(text: str) -> int:
    number = int(text, 0) if len(text) <= _MAX_DIGITS else 1 << MAX_INTEGER_BITS
    if number.bit_length() > MAX_INTEGER_BITS:
        raise ValueError(f"the integer {text[:20]}… has more than {MAX_INTEGER_BITS} bits")
    return number


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("text with a NUL character cannot be stored")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("text with half of a surrogate pair cannot be stored") from None
    return text
