"""The results of evaluations: JSON or text, checked and within the limits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import orjson
from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import LoopContext

from noetl_broker.template.budget import PLAIN, Evaluation, bounded
from noetl_broker.template.numbers import WHOLE_FROM, number_of
from noetl_broker.template.undefined import template_type_name
from noetl_broker.template.values import require_value

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_DEPTH: Final = 100
MAX_LEVELS: Final = 190  # of a value that the turn writes: the job around it has at most 200 (in the store)
_LEVELS_OF_ORJSON: Final = 254
LEAF_COST: Final = 3
BRANCH_COST: Final = 14
LONG_INTEGER_COST: Final = 10
INT64: Final = 1 << 63


def as_json(run: Evaluation, value: Any) -> Any:
    """Give the value as JSON: tuples, ranges and generators become lists, numbers are as the database keeps them.

    Raises TemplateRuntimeError for values that JSON cannot hold: non-finite numbers, keys that are no text, NUL and
    lone surrogates in text, other objects. Its texts together are limited like one text.
    """
    run.chars = run.allowance.output_chars
    return _json(run, value, 0)


def _json(run: Evaluation, value: Any, depth: int) -> Any:
    run.spend(LEAF_COST)
    kind = type(value)
    if kind is str:
        return _checked_text(run, value)
    if kind in PLAIN:
        return _checked_number(run, value)
    if depth >= MAX_DEPTH:
        raise TemplateRuntimeError(f"the value is nested deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        run.spend(BRANCH_COST)
        return {_json_key(run, name): _json(run, child, depth + 1) for name, child in value.items()}
    if isinstance(value, list | tuple | range):
        return list(value) if only_integers(run, value) else [_json(run, child, depth + 1) for child in value]
    return _from_object(run, value, depth)


def only_integers(run: Evaluation, value: list[Any] | tuple[Any, ...] | range) -> bool:
    """Tell whether there are only integers of at most 64 bits, faster than by looking at each."""
    run.spend(BRANCH_COST + len(value))
    return set(map(type, value)) == {int} and -INT64 <= min(value) <= max(value) < INT64


def _checked_number(run: Evaluation, value: Any) -> Any:
    if type(value) is float:
        return value or 0.0 if -WHOLE_FROM < value < WHOLE_FROM else number_of(bounded(value))
    if type(value) is int and not -INT64 <= value < INT64:
        run.spend(LONG_INTEGER_COST)
    return bounded(value)


def _from_object(run: Evaluation, value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _checked_text(run, str(value))
    if isinstance(value, Iterator) and type(value) is not LoopContext:
        return [_json(run, child, depth + 1) for child in value]
    require_value(value)
    raise TemplateRuntimeError(f"the value is a {type(value).__name__}, which is not JSON")


def _json_key(run: Evaluation, name: Any) -> str:
    if type(name) is not str:
        raise TemplateRuntimeError(f"a mapping's key is {name!r}, a {template_type_name(name)}; in JSON keys are texts")
    return _checked_text(run, name)


def _checked_text(run: Evaluation, value: str) -> str:
    length = len(value)
    run.chars -= length
    if run.chars < 0:
        limit = run.allowance.output_chars
        raise TemplateRuntimeError(
            f"the value would hold texts of more than the allowed {limit:,} characters (template_max_output_chars)"
        )
    run.spend(length >> 5)
    if "\x00" in value:
        raise TemplateRuntimeError("the text holds a NUL character, which the database cannot keep")
    if not value.isascii():
        value.encode()  # raises ValueError on a lone surrogate
    return value


def text(run: Evaluation, value: Any) -> str:
    """Give a value as it stands in a text."""
    if type(value) is not str:
        if type(value) in PLAIN:
            return str(bounded(value))
        value = str(as_json(run, value))
    run.room_for_text(len(value))
    return value  # type: ignore[no-any-return]


def size_of(value: Any) -> int:
    """Give the approximate length of a value as JSON; writes it once."""
    if type(value) is str:
        return len(value)
    if type(value) not in {list, dict} or not value:
        return 0
    try:
        return len(orjson.dumps(value))
    except TypeError:  # an integer of more than 64 bits
        return len(json.dumps(value))


def output_size(value: Any) -> int:
    """Give the length of a value that the turn writes. Raises TemplateRuntimeError if it is too deep."""
    if type(value) is str:
        return len(value)
    try:
        text = orjson.dumps(value)
        if text.count(b"[") + text.count(b"{") > MAX_LEVELS:
            probe = value  # wrapped until orjson refuses it: the quickest check of its depth
            for _ in range(_LEVELS_OF_ORJSON - MAX_LEVELS):
                probe = [probe]
            orjson.dumps(probe)
    except TypeError:  # too deep, or an integer of more than 64 bits
        if _is_deep(value):
            raise TemplateRuntimeError(f"the value is nested deeper than {MAX_LEVELS}") from None
        return size_of(value)
    return len(text)


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_LEVELS + 1):
        inside = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = list(chain.from_iterable(inside))
    return bool(level)


def join_texts(run: Evaluation, texts: Iterable[str]) -> str:
    """Join texts. Raises TemplateRuntimeError before the result is too long."""
    remaining = limit = run.allowance.output_chars
    parts: list[str] = []
    for part in texts:
        remaining -= len(part)
        if remaining < 0:
            run.room_for_text(limit - remaining)
        parts.append(part)
    run.spend(1 + ((limit - remaining) >> 5))
    return "".join(parts)
