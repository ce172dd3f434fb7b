"""The filters of templates. A new filter is a function here and a row in `OWN_FILTERS`.

Jinja's filters are used if their costs can be bounded; all others are written here. Every call pays for its input and
its arguments before it works. Every result becomes a plain value: no generator, no tuple, no Markup. `filter_costs` has
the filters whose cost depends on their arguments.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from itertools import islice
from typing import Any, Final

from jinja2.exceptions import TemplateRuntimeError
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.filters import ignore_case, make_attrgetter
from jinja2.utils import pass_context

from noetl_broker.template.budget import MAX_LIST_ITEMS, NODE_COST, PLAIN, Evaluation, bounded
from noetl_broker.template.durations import DURATION_FORMS, MOMENT_FORMS, moment_text, parse_moment, parse_shift
from noetl_broker.template.filter_costs import COSTS
from noetl_broker.template.methods import ENTRY_COST, TEXT_METHODS, items_of
from noetl_broker.template.output import as_json, text
from noetl_broker.template.undefined import Missing, template_type_name
from noetl_broker.template.values import iterate, require_value

Function = Callable[..., Any]
CALL_COST: Final = 20
# They call a filter or test, or look up an attribute, for each element.
PER_ELEMENT: Final = frozenset({"map", "reject", "rejectattr", "select", "selectattr"})
PER_ELEMENT_COST: Final = 8
LOOKUP_COST: Final = 6
LOOKUP_FILTERS: Final = PER_ELEMENT | {"groupby", "join", "max", "min", "sort", "sum", "unique"}
# They compare texts in lower case: each text is copied once more.
CASELESS: Final = frozenset({"dictsort", "groupby", "max", "min", "sort", "unique"})
# They convert their input to text.
TEXTUAL: Final = frozenset(
    {
        *("capitalize", "center", "e", "escape", "forceescape", "format", "indent", "lower", "replace", "safe"),
        *("string", "striptags", "title", "trim", "truncate", "upper", "urlize", "wordcount", "wordwrap"),
    }
)
# They read their input element by element and pay for each; the other filters pay for all of it first.
STREAMING: Final = frozenset(
    {
        *("batch", "count", "first", "from_json", "items", "last", "length", "list", "map", "reject", "rejectattr"),
        *("reverse", "select", "selectattr", "slice", "to_json", "tojson"),
    }
)
# Not `random`: a replay would differ. Not `attr`: it reads attributes of Python objects.
FROM_JINJA: Final = frozenset(
    {
        *("abs", "batch", "capitalize", "count", "dictsort", "e", "escape", "filesizeformat", "first", "float"),
        *("forceescape", "format", "groupby", "indent", "int", "last", "length", "lower", "map", "max", "min"),
        *("pprint", "reject", "rejectattr", "round", "select", "selectattr", "slice", "sort", "striptags", "title"),
        *("trim", "truncate", "upper", "urlencode", "urlize", "wordcount", "wordwrap", "xmlattr"),
    }
)
HTML_SAFE: Final = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "'": "\\u0027"})
MAX_INDENT: Final = 16
INDENTED_COST: Final = 4  # times the cost of the same value on one line


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
    """Count the blanks of indented JSON."""
    if not isinstance(value, dict | list):
        return 0
    children = value.values() if isinstance(value, dict) else value
    own = (depth + 1) * indent * len(children) + depth * indent
    return own + sum(_blanks(child, indent, depth + 1) for child in children)


def _tojson(run: Evaluation, value: Any, indent: int | None = None) -> str:
    """Give JSON as Jinja writes it: keys sorted, `< > & '` escaped for HTML and SQL literals."""
    return _json(run, value, indent, sort_keys=True, ensure_ascii=True).translate(HTML_SAFE)


def _to_json(run: Evaluation, value: Any, indent: int | None = None) -> str:
    """Give plain JSON: keys in their order, characters as they are."""
    return _json(run, value, indent, sort_keys=False, ensure_ascii=False)


def _from_json(run: Evaluation, value: Any) -> Any:
    if not isinstance(value, str):
        raise TemplateRuntimeError(f"`from_json` reads a text, not a {template_type_name(value)}")
    run.spend(len(value) >> 1)
    return as_json(run, json.loads(value))


def _b64encode(run: Evaluation, value: Any) -> str:
    return base64.b64encode(text(run, value).encode()).decode()


def _b64decode(run: Evaluation, value: Any) -> str:
    return base64.b64decode(text(run, value), validate=True).decode()


def _items(run: Evaluation, value: Any) -> list[list[Any]]:
    if not isinstance(value, Mapping):
        raise TemplateRuntimeError(f"`items` takes a mapping, not a {template_type_name(value)}")
    return items_of(run, value)


def _merge(run: Evaluation, value: Any, other: Any, /) -> dict[Any, Any]:
    """Merge two mappings key by key, at every level; any other value replaces the left one."""
    for side, one in (("left", value), ("right", other)):
        if not isinstance(one, Mapping):
            raise TemplateRuntimeError(f"`merge` takes two mappings, the {side} one is a {template_type_name(one)}")
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
    return list(iterate(run, value))[::-1]


def _list(run: Evaluation, value: Any) -> list[Any]:
    if isinstance(value, str | range):
        run.spend(len(value) >> 1)
    elif not isinstance(value, list | tuple):
        value = list(iterate(run, value))
    run.room_for_list(len(value))
    return list(value)


def as_list(run: Evaluation, values: Any) -> list[Any]:
    """Give the elements of an iterator as a list; charges for each."""
    found = list(islice(iterate(run, values), MAX_LIST_ITEMS + 1))
    run.room_for_list(len(found))
    return found


def _join(run: Evaluation, value: Any, d: Any = "", attribute: str | int | None = None) -> str:
    between = text(run, d)
    getter = make_attrgetter(run.environment, attribute)
    texts = [text(run, getter(one)) for one in iterate(run, value)]
    run.room_for_text(sum(map(len, texts)) + len(between) * len(texts))
    return between.join(texts)


def _sum(run: Evaluation, value: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    if type(start) not in PLAIN or start is None:
        raise TemplateRuntimeError(f"`sum` adds numbers; its start is a {template_type_name(start)}")
    getter = make_attrgetter(run.environment, attribute)
    return sum((getter(one) for one in iterate(run, value)), start)


def _unique(
    run: Evaluation,
    value: Any,
    case_sensitive: bool = False,  # noqa: FBT001, FBT002 - Jinja's own signature
    attribute: str | int | None = None,
) -> list[Any]:
    """Give each element once. Numbers are compared by their texts: their hashes can be chosen to collide."""
    getter = make_attrgetter(run.environment, attribute, postprocess=None if case_sensitive else ignore_case)
    first: dict[Any, Any] = {}
    for one in iterate(run, value, NODE_COST * 2):
        first.setdefault(_identity(require_value(getter(one))), one)
    return list(first.values())


def _identity(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    if not isinstance(value, int | float):
        raise TemplateRuntimeError(f"`unique` compares texts and numbers, not a {template_type_name(value)}")
    whole = isinstance(value, int) or value.is_integer()
    return (str(int(value) if whole else value),)


def _replace(run: Evaluation, value: str, old: Any, new: Any, count: int | None = None) -> Any:
    return TEXT_METHODS["replace"](run, value, text(run, old), text(run, new), -1 if count is None else count)


def _center(run: Evaluation, value: str, width: int = 80) -> Any:
    return TEXT_METHODS["center"](run, value, width)


def _shift(_: Evaluation, value: Any, by: Any) -> str:
    """Give the moment that is so much later, or earlier with a minus, as RFC 3339 in UTC."""
    try:
        moment = parse_moment(value)
    except ValueError:
        raise TemplateRuntimeError(f"`shift` moves a moment ({MOMENT_FORMS}), not {value!r:.80}") from None
    try:
        seconds = parse_shift(by)
    except ValueError:
        raise TemplateRuntimeError(f"`shift` takes a duration such as -1d ({DURATION_FORMS}), not {by!r:.80}") from None
    try:
        return moment_text(moment + timedelta(seconds=seconds))
    except OverflowError:
        raise TemplateRuntimeError(f"`shift` by {by!r:.80} leaves the years 1 to 9999") from None


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
    "shift": _shift,
    "string": _same_text,
    "sum": _sum,
    "to_json": _to_json,
    "tojson": _tojson,
    "unique": _unique,
}


def _first_argument(function: Function) -> Callable[[Evaluation], tuple[Any, ...]]:
    wanted = getattr(getattr(function, "jinja_pass_arg", None), "name", None)
    if wanted == "context":
        return lambda run: (run,)
    if wanted == "eval_context":
        return lambda run: (run.eval_ctx,)
    if wanted == "environment":
        return lambda run: (run.environment,)
    return lambda _: ()


def _charged(run: Evaluation, value: Any) -> Any:
    run.charge(require_value(value))
    return value


def _charge_input(run: Evaluation, value: Any, name: str) -> Any:
    """Charge for a filter's input; gives the input as that filter takes it."""
    value = require_value(value)
    if name in TEXTUAL:
        return text(run, value)
    if name not in STREAMING:
        run.charge(value)
        if name in CASELESS:
            run.charge(value)
    elif isinstance(value, list | tuple | dict | str):
        run.spend(len(value) >> 2)
    return value


def _lookups(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Count the keys in attribute names such as `a.b,c`: each is a look-up for every element."""
    names = (one for one in (*args, *kwargs.values()) if isinstance(one, str))
    return sum(1 + one.count(".") + one.count(",") for one in names)


def _bounded_result(run: Evaluation, result: Any) -> Any:
    """Give a filter's result as a plain value within the limits."""
    if isinstance(result, str):
        run.room_for_text(len(result))
        return str(result)
    if isinstance(result, Iterator):
        return as_list(run, result)
    return bounded(result)


def _metered(name: str, function: Function) -> Function:
    guard = COSTS.get(name)
    first = (lambda run: (run,)) if name in OWN_FILTERS else _first_argument(function)

    @pass_context
    def metered(run: Evaluation, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        run.spend(CALL_COST)
        value = _charge_input(run, value, name)
        args = tuple(_charged(run, one) for one in args)
        kwargs = {name: _charged(run, one) for name, one in kwargs.items()}
        lookups = _lookups(args[name == "join" :], kwargs) if name in LOOKUP_FILTERS else 0
        run.spend(lookups * 2)
        if name in PER_ELEMENT:
            value = iterate(run, value, PER_ELEMENT_COST * max(1, lookups))
        elif name in LOOKUP_FILTERS and isinstance(value, list | tuple | dict | str | range):
            run.spend(len(value) * max(PER_ELEMENT_COST * lookups, LOOKUP_COST))
        if guard is not None:
            guard(run, value, *args, **kwargs)
        return _bounded_result(run, function(*first(run), value, *args, **kwargs))

    return metered


def _dictsort(*args: Any, **kwargs: Any) -> list[list[Any]]:
    return [list(pair) for pair in JINJA_FILTERS["dictsort"](*args, **kwargs)]


@pass_context
def _default_of(_: Evaluation, value: Any, default_value: Any = "", boolean: Any = False) -> Any:  # noqa: FBT002
    return default(value, default_value, boolean)


FILTERS: Final[dict[str, Function]] = {
    **{name: _metered(name, JINJA_FILTERS[name]) for name in sorted(FROM_JINJA)},
    **{name: _metered(name, function) for name, function in OWN_FILTERS.items()},
    "dictsort": _metered("dictsort", _dictsort),
    "default": _default_of,
    "d": _default_of,
}
