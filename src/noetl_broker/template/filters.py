"""The filters of templates: Jinja's own, metered and bounded, and those of playbooks.

Whatever a filter is given is weighed before it works, and what it gives is made a plain value: no generator, no tuple
of pairs, no Markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.utils import pass_context

from noetl_broker.template.fuel import Evaluation, bounded
from noetl_broker.template.guards import GUARDS
from noetl_broker.template.output import text
from noetl_broker.template.replaced import OWN_FILTERS, default, listed
from noetl_broker.template.values import drawn, solid

Function = Callable[..., Any]
CALL_COST: Final = 20
# These call another filter or test, or look up an attribute, for each element.
EACH: Final = frozenset({"map", "reject", "rejectattr", "select", "selectattr"})
EACH_COST: Final = 8
LOOKING_COST: Final = 6
LOOKING: Final = EACH | {"groupby", "join", "max", "min", "sort", "sum", "unique"}
# These compare texts in lower case, so that each is copied once more.
CASELESS: Final = frozenset({"dictsort", "groupby", "max", "min", "sort", "unique"})
# These work on the text of whatever they are given.
TEXTUAL: Final = frozenset(
    {
        *("capitalize", "center", "e", "escape", "forceescape", "format", "indent", "lower", "replace", "safe"),
        *("string", "striptags", "title", "trim", "truncate", "upper", "urlize", "wordcount", "wordwrap"),
    }
)
# These look at their input one element at a time, and pay as they draw; all other filters pay for all of it at once.
STREAMING: Final = frozenset(
    {
        *("batch", "count", "first", "from_json", "items", "last", "length", "list", "map", "reject", "rejectattr"),
        *("reverse", "select", "selectattr", "slice", "to_json", "tojson"),
    }
)
# Of Jinja's filters two are left out: `random` would make a replay differ, `attr` reads attributes of Python objects.
FROM_JINJA: Final = frozenset(
    {
        *("abs", "batch", "capitalize", "count", "dictsort", "e", "escape", "filesizeformat", "first", "float"),
        *("forceescape", "format", "groupby", "indent", "int", "last", "length", "lower", "map", "max", "min"),
        *("pprint", "reject", "rejectattr", "round", "select", "selectattr", "slice", "sort", "striptags", "title"),
        *("trim", "truncate", "upper", "urlencode", "urlize", "wordcount", "wordwrap", "xmlattr"),
    }
)


def _first_argument(function: Function) -> Callable[[Evaluation], tuple[Any, ...]]:
    wanted = getattr(getattr(function, "jinja_pass_arg", None), "name", None)
    if wanted == "context":
        return lambda run: (run,)
    if wanted == "eval_context":
        return lambda run: (run.eval_ctx,)
    if wanted == "environment":
        return lambda run: (run.environment,)
    return lambda _: ()


def _weighed(run: Evaluation, value: Any) -> Any:
    run.weigh(solid(value))
    return value


def _taken_in(run: Evaluation, value: Any, name: str) -> Any:
    """Pay for a filter's input, in the way of that filter."""
    value = solid(value)
    if name in TEXTUAL:
        return text(run, value)
    if name not in STREAMING:
        run.weigh(value)
        if name in CASELESS:
            run.weigh(value)
    elif isinstance(value, list | tuple | dict | str):
        run.spend(len(value) >> 2)
    return value


def _lookups(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Count the keys in attribute names such as `a.b,c`: each is one more look-up for each element."""
    names = (one for one in (*args, *kwargs.values()) if isinstance(one, str))
    return sum(1 + one.count(".") + one.count(",") for one in names)


def _given_out(run: Evaluation, result: Any) -> Any:
    """Bound what a filter gave, and make it plain."""
    if isinstance(result, str):
        run.room_for_text(len(result))
        return str(result)
    if isinstance(result, Iterator):
        return listed(run, result)
    return bounded(result)


def _metered(name: str, function: Function) -> Function:
    guard = GUARDS.get(name)
    first = (lambda run: (run,)) if name in OWN_FILTERS else _first_argument(function)

    @pass_context
    def metered(run: Evaluation, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        run.spend(CALL_COST)
        value = _taken_in(run, value, name)
        args = tuple(_weighed(run, one) for one in args)
        kwargs = {name: _weighed(run, one) for name, one in kwargs.items()}
        lookups = _lookups(args[name == "join" :], kwargs) if name in LOOKING else 0
        run.spend(lookups * 2)
        if name in EACH:
            value = drawn(run, value, EACH_COST * max(1, lookups))
        elif name in LOOKING and isinstance(value, list | tuple | dict | str | range):
            run.spend(len(value) * max(EACH_COST * lookups, LOOKING_COST))
        if guard is not None:
            guard(run, value, *args, **kwargs)
        return _given_out(run, function(*first(run), value, *args, **kwargs))

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
