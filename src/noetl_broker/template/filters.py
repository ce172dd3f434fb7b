"""The filters and tests of templates: Jinja's own, metered and bounded, and those of playbooks.

Jinja's filters were written for trusted templates: a width, an indent or a precision may ask for gigabytes. Each that
can is guarded here by what it would cost, before it starts.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from jinja2.exceptions import TemplateRuntimeError
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.tests import TESTS as JINJA_TESTS
from jinja2.utils import pass_context
from markupsafe import Markup

from noetl_broker.template.fuel import NODE_COST, Evaluation, bounded
from noetl_broker.template.guards import GUARDS, small
from noetl_broker.template.methods import TEXT_METHODS
from noetl_broker.template.values import Missing, as_json, drawn, kind_of, solid, text, whole

Function = Callable[..., Any]
CALL_COST: Final = 20
HTML_SAFE: Final = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "'": "\\u0027"})


def default(value: Any, default_value: Any = "", boolean: Any = False) -> Any:  # noqa: FBT002 - Jinja's own signature
    """Give the value, or the other one if it is undefined (or, with `boolean`, false)."""
    if type(value) is Missing or (boolean and not value):
        return default_value
    return value


def defined(value: Any) -> bool:
    """Tell whether a value is defined."""
    return type(value) is not Missing


def _json(value: Any, indent: int | None, *, sort_keys: bool, ensure_ascii: bool) -> str:
    return json.dumps(value, indent=indent, sort_keys=sort_keys, ensure_ascii=ensure_ascii, allow_nan=False)


def _tojson(run: Evaluation, value: Any, indent: int | None = None) -> str:
    """Give JSON as Jinja writes it: keys sorted, `< > & '` escaped, so that it may stand in HTML or an SQL literal."""
    small(indent or 0)
    return _json(as_json(run, value), indent, sort_keys=True, ensure_ascii=True).translate(HTML_SAFE)


def _to_json(run: Evaluation, value: Any, indent: int | None = None) -> str:
    """Give plain JSON: keys in their order, characters as they are."""
    small(indent or 0)
    return _json(as_json(run, value), indent, sort_keys=False, ensure_ascii=False)


def _from_json(run: Evaluation, value: Any) -> Any:
    if not isinstance(value, str):
        message = f"`from_json` reads a text, not a {kind_of(value)}"
        raise TemplateRuntimeError(message)
    run.spend(len(value) >> 2)
    return as_json(run, json.loads(value))


def _b64encode(run: Evaluation, value: Any) -> str:
    plain = text(run, value)
    run.spend(len(plain) >> 5)
    return base64.b64encode(plain.encode()).decode()


def _b64decode(run: Evaluation, value: Any) -> str:
    plain = text(run, value)
    return base64.b64decode(plain, validate=True).decode()


def _items(run: Evaluation, value: Any) -> list[list[Any]]:
    if not isinstance(value, Mapping):
        message = f"`items` takes a mapping, not a {kind_of(value)}"
        raise TemplateRuntimeError(message)
    run.room_for_list(len(value))
    return [[name, child] for name, child in value.items()]


def _reverse(run: Evaluation, value: Any) -> Any:
    if isinstance(value, str):
        return value[::-1]
    return list(drawn(run, value))[::-1]


def _list(run: Evaluation, value: Any) -> list[Any]:
    if isinstance(value, list | tuple | range | str):
        run.room_for_list(len(value))
        return list(value)
    return list(drawn(run, value))


def _safe(run: Evaluation, value: Any) -> str:
    return text(run, value)


def _sum(run: Evaluation, value: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    if isinstance(start, list | str | dict):
        message = f"`sum` adds numbers; its start is a {kind_of(start)}"
        raise TemplateRuntimeError(message)
    return JINJA_FILTERS["sum"](run.environment, value, attribute, start)


def _replace(run: Evaluation, value: Any, old: str, new: str, count: int | None = None) -> Any:
    times = -1 if count is None else count
    return TEXT_METHODS["replace"](run, text(run, value), text(run, old), text(run, new), times)


def _center(run: Evaluation, value: Any, width: int = 80) -> str:
    return str(TEXT_METHODS["center"](run, text(run, value), width))


# These call another filter or test, or look up an attribute, for each element.
EACH: Final = frozenset({"map", "reject", "rejectattr", "select", "selectattr"})
EACH_COST: Final = 8
LOOKING_COST: Final = 6
LOOKING: Final = EACH | {"groupby", "join", "max", "min", "sort", "sum", "unique"}
# These look at their input one element at a time, and pay as they draw; all other filters pay for all of it at once.
STREAMING: Final = frozenset(
    {
        *("batch", "count", "first", "from_json", "items", "last", "length", "list", "map", "reject", "rejectattr"),
        *("reverse", "select", "selectattr", "slice", "to_json", "tojson"),
    }
)
OWN_FILTERS: Final[dict[str, Function]] = {
    "b64decode": _b64decode,
    "b64encode": _b64encode,
    "center": _center,
    "from_json": _from_json,
    "items": _items,
    "list": _list,
    "replace": _replace,
    "reverse": _reverse,
    "safe": _safe,
    "sum": _sum,
    "to_json": _to_json,
    "tojson": _tojson,
}
# `random` would make a replay differ, `attr` reads attributes of Python objects.
LEFT_OUT_FILTERS: Final = frozenset({"random", "attr"})
LEFT_OUT_TESTS: Final = frozenset({"callable", "escaped", "filter", "test"})


def _first_argument(function: Function) -> Callable[[Evaluation], tuple[Any, ...]]:
    wanted = getattr(getattr(function, "jinja_pass_arg", None), "name", None)
    if wanted == "context":
        return lambda run: (run,)
    if wanted == "eval_context":
        return lambda run: (run.eval_ctx,)
    if wanted == "environment":
        return lambda run: (run.environment,)
    return lambda _: ()


def _prepared(run: Evaluation, value: Any, *, streaming: bool) -> Any:
    """Pay for a filter's input, and make what can be read only once readable."""
    value = whole(solid(value))
    if isinstance(value, Iterator):
        value = drawn(run, value)
        return value if streaming else list(value)
    if not streaming:
        run.weigh(value)
    elif isinstance(value, list | tuple | dict | str):
        run.spend(len(value) >> 2)
    return value


def _lookups(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Count the keys in attribute names such as `a.b,c`: each is one more look-up for each element."""
    names = (one for one in (*args, *kwargs.values()) if isinstance(one, str))
    return sum(1 + one.count(".") + one.count(",") for one in names)


def _checked(run: Evaluation, result: Any) -> Any:
    """Bound what a filter gave, and make it plain: no Markup, no dict view."""
    if isinstance(result, str):
        run.room_for_text(len(result))
        return str(result) if type(result) is Markup else result
    return bounded(result)


def _metered_filter(name: str, function: Function) -> Function:
    guard = GUARDS.get(name)
    streaming = name in STREAMING
    first = (lambda run: (run,)) if name in OWN_FILTERS else _first_argument(function)

    @pass_context
    def metered(run: Evaluation, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        run.spend(CALL_COST)
        value = _prepared(run, value, streaming=streaming)
        args = tuple(_prepared(run, one, streaming=False) for one in args)
        kwargs = {name: _prepared(run, one, streaming=False) for name, one in kwargs.items()}
        lookups = _lookups(args, kwargs) if name in LOOKING else 0
        if name in EACH:
            value = drawn(run, value, EACH_COST * max(1, lookups))
        elif name in LOOKING and isinstance(value, list | tuple | dict | str | range):
            run.spend(len(value) * max(EACH_COST * lookups, LOOKING_COST))
        if guard is not None:
            guard(run, value, *args, **kwargs)
        return _checked(run, function(*first(run), value, *args, **kwargs))

    return metered


def _metered_test(function: Function) -> Function:
    first = _first_argument(function)

    @pass_context
    def metered(run: Evaluation, value: Any, /, *args: Any) -> bool:
        run.spend(NODE_COST * 2)
        value = whole(solid(value))
        run.weigh(value, *args)
        return bool(function(*first(run), value, *args))

    return metered


def _same(value: Any, other: Any) -> bool:
    """Tell whether two values are alike in type and value: identity would depend on the interpreter's caches."""
    return type(value) is type(other) and bool(value == other)


@pass_context
def _default_of(_: Evaluation, value: Any, default_value: Any = "", boolean: Any = False) -> Any:  # noqa: FBT002
    return default(value, default_value, boolean)


ALL_TESTS: Final[dict[str, Any]] = {**JINJA_TESTS, "sameas": _same}
FILTERS: Final[dict[str, Function]] = {
    **{
        name: _metered_filter(name, function)
        for name, function in {**JINJA_FILTERS, **OWN_FILTERS}.items()
        if name not in LEFT_OUT_FILTERS
    },
    "default": _default_of,
    "d": _default_of,
}
TESTS: Final[dict[str, Function]] = {
    **{name: _metered_test(function) for name, function in ALL_TESTS.items() if name not in LEFT_OUT_TESTS},
    "defined": defined,
    "undefined": lambda value: not defined(value),
}
