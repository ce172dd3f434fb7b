"""The filters of playbooks, and those of Jinja's that are written anew because theirs cannot be bounded."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from jinja2.exceptions import TemplateRuntimeError
from jinja2.filters import ignore_case, make_attrgetter

from noetl_broker.template.fuel import MAX_LIST_ITEMS, NODE_COST, PLAIN, Evaluation
from noetl_broker.template.methods import ENTRY_COST, TEXT_METHODS, items_of
from noetl_broker.template.output import as_json, text
from noetl_broker.template.values import Missing, drawn, kind_of, solid

HTML_SAFE: Final = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "'": "\\u0027"})
MAX_INDENT: Final = 16
INDENTED_COST: Final = 4  # times what the same value costs on one line


def default(value: Any, default_value: Any = "", boolean: Any = False) -> Any:  # noqa: FBT002 - Jinja's own signature
    """Give the value, or the other one if it is undefined (or, with `boolean`, false)."""
    if type(value) is Missing or (boolean and not value):
        return default_value
    return value


def _json(run: Evaluation, value: Any, indent: Any, *, sort_keys: bool, ensure_ascii: bool) -> str:
    before = run.fuel
    value = as_json(run, value)
    if indent is not None:
        if not isinstance(indent, int) or not 0 <= indent <= MAX_INDENT:
            raise TemplateRuntimeError(f"the indent must be a number from 0 to {MAX_INDENT}")
        run.spend((before - run.fuel) * INDENTED_COST)
        run.room_for_text(_blanks(value, indent, 0))
    written = json.dumps(value, indent=indent, sort_keys=sort_keys, ensure_ascii=ensure_ascii, allow_nan=False)
    run.spend(len(written) >> 4)
    return written


def _blanks(value: Any, indent: int, depth: int) -> int:
    """Count the blanks that indented JSON has in front of its lines."""
    if not isinstance(value, dict | list):
        return 0
    children = value.values() if isinstance(value, dict) else value
    own = (depth + 1) * indent * len(children) + depth * indent
    return own + sum(_blanks(child, indent, depth + 1) for child in children)


def _tojson(run: Evaluation, value: Any, indent: int | None = None) -> str:
    """Give JSON as Jinja writes it: keys sorted, `< > & '` escaped, so that it may stand in HTML or an SQL literal."""
    return _json(run, value, indent, sort_keys=True, ensure_ascii=True).translate(HTML_SAFE)


def _to_json(run: Evaluation, value: Any, indent: int | None = None) -> str:
    """Give plain JSON: keys in their order, characters as they are."""
    return _json(run, value, indent, sort_keys=False, ensure_ascii=False)


def _from_json(run: Evaluation, value: Any) -> Any:
    if not isinstance(value, str):
        raise TemplateRuntimeError(f"`from_json` reads a text, not a {kind_of(value)}")
    run.spend(len(value) >> 1)
    return as_json(run, json.loads(value))


def _b64encode(run: Evaluation, value: Any) -> str:
    return base64.b64encode(text(run, value).encode()).decode()


def _b64decode(run: Evaluation, value: Any) -> str:
    return base64.b64decode(text(run, value), validate=True).decode()


def _items(run: Evaluation, value: Any) -> list[list[Any]]:
    if not isinstance(value, Mapping):
        raise TemplateRuntimeError(f"`items` takes a mapping, not a {kind_of(value)}")
    return items_of(run, value)


def _merge(run: Evaluation, value: Any, other: Any, /) -> dict[Any, Any]:
    """Lay a mapping over another, key by key and all the way down; what is no mapping replaces what was there."""
    for side, one in (("left", value), ("right", other)):
        if not isinstance(one, Mapping):
            raise TemplateRuntimeError(f"`merge` takes two mappings, the {side} one is a {kind_of(one)}")
    return _merged(run, value, other)


def _merged(run: Evaluation, left: Mapping[Any, Any], right: Mapping[Any, Any]) -> dict[Any, Any]:
    run.spend((len(left) + len(right)) * ENTRY_COST)
    merged = dict(left)
    for name, child in right.items():
        before: Any = merged.get(name)
        both = isinstance(before, Mapping) and isinstance(child, Mapping)
        merged[name] = _merged(run, before, child) if both else child
    return merged


def _reverse(run: Evaluation, value: Any) -> Any:
    if isinstance(value, str):
        return value[::-1]
    return list(drawn(run, value))[::-1]


def _list(run: Evaluation, value: Any) -> list[Any]:
    if isinstance(value, str | range):
        run.spend(len(value) >> 1)
    elif not isinstance(value, list | tuple):
        value = list(drawn(run, value))
    run.room_for_list(len(value))
    return list(value)


def listed(run: Evaluation, values: Any) -> list[Any]:
    """Give what a filter yields as a list, paid for one by one."""
    found = list(islice(drawn(run, values), MAX_LIST_ITEMS + 1))
    run.room_for_list(len(found))
    return found


def _join(run: Evaluation, value: Any, d: Any = "", attribute: str | int | None = None) -> str:
    between = text(run, d)
    getter = make_attrgetter(run.environment, attribute)
    texts = [text(run, getter(one)) for one in drawn(run, value)]
    run.room_for_text(sum(map(len, texts)) + len(between) * len(texts))
    return between.join(texts)


def _sum(run: Evaluation, value: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    if type(start) not in PLAIN or start is None:
        raise TemplateRuntimeError(f"`sum` adds numbers; its start is a {kind_of(start)}")
    getter = make_attrgetter(run.environment, attribute)
    return sum((getter(one) for one in drawn(run, value)), start)


def _unique(
    run: Evaluation,
    value: Any,
    case_sensitive: bool = False,  # noqa: FBT001, FBT002 - Jinja's own signature
    attribute: str | int | None = None,
) -> list[Any]:
    """Give each element once. Numbers are told apart by their texts: their hashes can be chosen to collide."""
    getter = make_attrgetter(run.environment, attribute, postprocess=None if case_sensitive else ignore_case)
    first: dict[Any, Any] = {}
    for one in drawn(run, value, NODE_COST * 2):
        first.setdefault(_mark(solid(getter(one))), one)
    return list(first.values())


def _mark(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    if not isinstance(value, int | float):
        raise TemplateRuntimeError(f"`unique` compares texts and numbers, not a {kind_of(value)}")
    whole = isinstance(value, int) or value.is_integer()
    return (str(int(value) if whole else value),)


def _replace(run: Evaluation, value: str, old: Any, new: Any, count: int | None = None) -> Any:
    return TEXT_METHODS["replace"](run, value, text(run, old), text(run, new), -1 if count is None else count)


def _center(run: Evaluation, value: str, width: int = 80) -> Any:
    return TEXT_METHODS["center"](run, value, width)


def _same_text(_: Evaluation, value: str) -> str:
    return value


OWN_FILTERS: Final[dict[str, Any]] = {
    "b64decode": _b64decode,
    "b64encode": _b64encode,
    "center": _center,
    "from_json": _from_json,
    "items": _items,
    "join": _join,
    "list": _list,
    "merge": _merge,
    "replace": _replace,
    "reverse": _reverse,
    "safe": _same_text,
    "string": _same_text,
    "sum": _sum,
    "to_json": _to_json,
    "tojson": _tojson,
    "unique": _unique,
}
