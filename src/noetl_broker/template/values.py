"""How templates reach into values.

No attribute of a Python object is ever read: a dot is a key of a mapping. (What may be called is in `methods`.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from jinja2 import StrictUndefined
from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import LoopContext
from jinja2.utils import missing

from noetl_broker.template.fuel import NODE_COST, PLAIN, Evaluation
from noetl_broker.template.scope import Results, StepResult

if TYPE_CHECKING:
    from collections.abc import Iterable

LOOP_WORDS: Final = frozenset(
    {"index", "index0", "first", "last", "length", "revindex", "revindex0", "previtem", "nextitem", "depth", "depth0"}
)
STEP_COST: Final = 10
FACETS: Final = frozenset({"data", "result", "status", "error", "failed"})
# Integers below this have hashes of their own; larger ones can be chosen to collide, and a mapping of them takes hours.
KEY_LIMIT: Final = 1 << 60


class Namespace:
    """What `namespace()` gives: names that a loop may set. It is no value: it can only be read and set by its names."""

    __slots__ = ("names",)

    def __init__(self, names: dict[str, Any]) -> None:
        """Take the first names."""
        self.names = names


class Missing(StrictUndefined):
    """An undefined value: it may be chained on, defaulted and tested for being defined; every other use raises."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return self._undefined_hint
        if self._undefined_obj is missing:
            return f"`{self._undefined_name}` is undefined: no input, step with a result or workload key has that name"
        return f"`{self._undefined_name}` is undefined: there is no such key in a {kind_of(self._undefined_obj)}"


def kind_of(value: object) -> str:
    """Name the type of a value in the words of a playbook's author."""
    names = {bool: "boolean", int: "number", float: "number", str: "text", type(None): "null", LoopContext: "loop"}
    if type(value) in names:
        return names[type(value)]
    if isinstance(value, Mapping | Results):
        return "mapping"
    if isinstance(value, list | tuple | range | Iterator):
        return "list"
    return type(value).__name__.lower()


# What a name may stand for without being a value: it cannot be an element, an argument or an operand.
NO_VALUES: Final = frozenset({Missing, Namespace, LoopContext})


def solid(value: Any) -> Any:
    """Give the value back. Raises UndefinedError if it is undefined, TemplateRuntimeError if it is no value at all."""
    if type(value) in NO_VALUES:
        if type(value) is Missing:
            value._fail_with_undefined_error()  # noqa: SLF001 - jinja2's documented hook for subclasses
        raise TemplateRuntimeError(f"a {kind_of(value)} is no value: only its parts can be used")
    return value


def owned(value: Any) -> dict[str, Any]:
    """Give the names of a namespace, to set one. Whatever else has names belongs to the scope and is never changed."""
    if type(value) is Namespace:
        return value.names
    raise TemplateRuntimeError(f"`set` changes names of a namespace only, not of a {kind_of(solid(value))}")


def attribute(value: Any, name: str, path: str) -> Any:
    """Give the value of a mapping's key; `path` is how the template writes it, for the message."""
    if type(value) is dict:
        try:
            return value[name]
        except KeyError:
            return Missing(None, value, path)
    if type(value) is Missing:
        return value
    return _attribute_of_object(value, name, path)


def _attribute_of_object(value: Any, name: str, path: str) -> Any:
    if type(value) is Results:
        found = value.find(name)
        return Missing(f"`{path}` is undefined: no step of that name has a result") if found is None else found.data
    if isinstance(value, Mapping) and name in value:
        return value[name]
    if type(value) is LoopContext and name in LOOP_WORDS:
        return getattr(value, name)
    if type(value) is Namespace:
        return value.names[name] if name in value.names else Missing(None, value, path)
    # What `groupby` gives: pairs whose halves are called `grouper` and `list`.
    if isinstance(value, tuple) and name in getattr(value, "_fields", ()):
        return getattr(value, name)
    return Missing(None, value, path)


def item(value: Any, key: Any, path: str) -> Any:
    """Give an element by key or index."""
    if type(key) is str:
        return attribute(value, key, path)
    if type(value) is Missing:
        return value
    if type(key) not in PLAIN:
        raise TemplateRuntimeError(f"a {kind_of(key)} cannot be a key or an index")
    if isinstance(value, list | tuple | str | range | Mapping):
        try:
            return value[key]
        except (LookupError, TypeError):
            return Missing(None, value, path)
    return Missing(None, value, path)


def facet(run: Evaluation, value: Any, root: str, name: str, path: str) -> Any:
    """Give `step.data`, `.result`, `.status`, `.error` or `.failed`: the data's own key of that name comes first.

    Only an iterator has `failed`.
    """
    if type(value) is dict and name in value:
        return value[name]
    if type(value) is not Missing:
        found = run.scope.find(root)
        if type(found) is StepResult and found.data is value and _has(found, name):
            return _of_result(found, name)
    return attribute(value, name, path)


def result_facet(results: Any, key: Any, name: str, path: str) -> Any:
    """Give the same of `results[key]`."""
    if type(results) is Results:
        found = results.find(key)
        if found is not None and not (type(found.data) is dict and name in found.data) and _has(found, name):
            return _of_result(found, name)
    return attribute(item(results, key, path.rpartition(".")[0]), name, path)


def _has(result: StepResult, name: str) -> bool:
    return name != "failed" or result.failed is not None


def _of_result(result: StepResult, name: str) -> Any:
    if name == "status":
        return result.status
    if name == "failed":
        return result.failed_items
    return result.error if name == "error" else result.data


def whole(run: Evaluation, value: Any) -> Any:
    """Give `results` as a mapping when a template uses it as a value of its own."""
    if type(value) is not Results:
        return value
    run.spend(len(value) * STEP_COST)
    return value.whole()


def cut(run: Evaluation, value: Any, start: Any, stop: Any, step: Any) -> Any:
    """Give a slice of a text or a list."""
    if type(value) is Missing:
        return value
    if not isinstance(value, list | tuple | str | range):
        raise TemplateRuntimeError(f"a {kind_of(solid(value))} cannot be sliced")
    wanted = slice(solid(start), solid(stop), solid(step))
    length = len(range(*wanted.indices(len(value))))
    if isinstance(value, str):
        run.room_for_text(length)
        return value[wanted]
    run.room_for_list(length)
    return list(value[wanted])


def key(value: Any) -> Any:
    """Give the key of a mapping back. Raises TemplateRuntimeError if it is not a text or a plain, smaller value."""
    if type(solid(value)) is str or (type(value) in PLAIN and (type(value) is not int or abs(value) < KEY_LIMIT)):
        return value
    shown = "number of more than 60 bits" if type(value) is int else kind_of(value)
    raise TemplateRuntimeError(f"a {shown} cannot be a key of a mapping")


def drawn(run: Evaluation, value: Any, units: int = NODE_COST) -> Iterator[Any]:
    """Iterate over a value, paying for each turn. Raises TemplateRuntimeError if it is not iterable."""
    if not isinstance(value, list | tuple | str | range | Mapping | Iterator) or type(value) is LoopContext:
        solid(value)
        raise TemplateRuntimeError(f"a {kind_of(value)} cannot be iterated over")
    return _draw(run, value, units)


def _draw(run: Evaluation, value: Iterable[Any], units: int) -> Iterator[Any]:
    for element in value:
        run.fuel -= units
        if run.fuel < 0:
            raise TemplateRuntimeError(run.too_much())
        yield element


def turns(run: Evaluation, units: int, value: Any) -> Iterator[Any]:
    """Iterate for a `for` loop whose body costs that many units a turn."""
    return drawn(run, value, units)
