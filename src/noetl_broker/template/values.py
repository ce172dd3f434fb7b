"""How templates reach into values, and what may leave an evaluation: only JSON.

No attribute of a Python object is ever read: a dot is a key of a mapping. (What may be called is in `methods`.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from jinja2 import StrictUndefined
from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import LoopContext
from jinja2.utils import Namespace, missing
from markupsafe import Markup

from noetl_broker.template.fuel import NODE_COST, PLAIN, Evaluation, bounded
from noetl_broker.template.scope import Results, StepResult

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_DEPTH: Final = 100
LEAF_COST: Final = 3
BRANCH_COST: Final = 14
SHORT_TEXT: Final = 64
LOOP_WORDS: Final = frozenset(
    {"index", "index0", "first", "last", "length", "revindex", "revindex0", "previtem", "nextitem", "depth", "depth0"}
)
FACETS: Final = frozenset({"data", "result", "status", "error"})


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
    names = {bool: "boolean", int: "number", float: "number", str: "text", type(None): "null"}
    if isinstance(value, Mapping | Results | Namespace):
        return "mapping"
    if isinstance(value, list | tuple | range | Iterator):
        return "list"
    return names.get(type(value), type(value).__name__)


def solid(value: Any) -> Any:
    """Give the value back. Raises UndefinedError if it is undefined."""
    if type(value) is Missing:
        value._fail_with_undefined_error()  # noqa: SLF001 - jinja2's documented hook for subclasses
    return value


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
    if type(value) is Namespace and not name.startswith("__"):
        return getattr(value, name, Missing(None, value, path))
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
        message = f"a {kind_of(key)} cannot be a key or an index"
        raise TemplateRuntimeError(message)
    if isinstance(value, list | tuple | str | range | Mapping):
        try:
            return value[key]
        except (LookupError, TypeError):
            return Missing(None, value, path)
    return Missing(None, value, path)


def facet(run: Evaluation, value: Any, root: str, name: str, path: str) -> Any:
    """Give `step.data`, `step.result`, `step.status` or `step.error`: the data's own key of that name comes first."""
    if type(value) is dict and name in value:
        return value[name]
    if type(value) is not Missing:
        found = run.scope.find(root)
        if type(found) is StepResult and found.data is value:
            return _of_result(found, name)
    return attribute(value, name, path)


def result_facet(results: Any, key: Any, name: str, path: str) -> Any:
    """Give the same of `results[key]`."""
    if type(results) is Results:
        found = results.find(key)
        if found is not None and not (type(found.data) is dict and name in found.data):
            return _of_result(found, name)
    return attribute(item(results, key, path.rpartition(".")[0]), name, path)


def _of_result(result: StepResult, name: str) -> Any:
    if name == "status":
        return result.status
    return result.error if name == "error" else result.data


def whole(value: Any) -> Any:
    """Give `results` as a mapping when a template uses it as a value of its own."""
    return value.whole() if type(value) is Results else value


def cut(run: Evaluation, value: Any, start: Any, stop: Any, step: Any) -> Any:
    """Give a slice of a text or a list."""
    if type(value) is Missing:
        return value
    if not isinstance(value, list | tuple | str | range):
        message = f"a {kind_of(value)} cannot be sliced"
        raise TemplateRuntimeError(message)
    run.spend(1 + (len(value) >> 4))
    part = value[slice(solid(start), solid(stop), solid(step))]
    return list(part) if type(part) is range else part


def key(value: Any) -> Any:
    """Give the key of a mapping back. Raises TemplateRuntimeError if it is not a text or a plain value."""
    if type(solid(value)) is not str and type(value) not in PLAIN:
        message = f"a {kind_of(value)} cannot be a key of a mapping"
        raise TemplateRuntimeError(message)
    return value


def drawn(run: Evaluation, value: Any, units: int = NODE_COST) -> Iterator[Any]:
    """Iterate over a value, paying for each turn. Raises TemplateRuntimeError if it is not iterable."""
    if not isinstance(value, list | tuple | str | range | Mapping | Iterator) or type(value) is LoopContext:
        solid(value)
        message = f"a {kind_of(value)} cannot be iterated over"
        raise TemplateRuntimeError(message)
    return _draw(run, value, units)


def _draw(run: Evaluation, value: Iterable[Any], units: int) -> Iterator[Any]:
    for element in value:
        run.fuel -= units
        if run.fuel < 0:
            raise TemplateRuntimeError(run.too_much())
        yield element


def turns(run: Evaluation, units: int, value: Any) -> Iterator[Any]:
    """Iterate for a `for` loop whose body costs that many units a turn."""
    return drawn(run, whole(value), units)


def as_json(run: Evaluation, value: Any, depth: int = 0) -> Any:
    """Give the value as JSON: tuples, ranges and generators become lists.

    Raises TemplateRuntimeError naming the type for what JSON cannot hold: a non-finite number, a key that is no text,
    a NUL or a lone surrogate in a text, any other object.
    """
    run.spend(LEAF_COST)
    kind = type(value)
    if kind is str:
        return _sound_text(run, value)
    if kind in PLAIN:
        if kind is float and not isfinite(value):
            message = f"{value} is not a number that JSON can hold"
            raise TemplateRuntimeError(message)
        return bounded(value)
    if depth >= MAX_DEPTH:
        message = f"the value is nested deeper than {MAX_DEPTH}"
        raise TemplateRuntimeError(message)
    if isinstance(value, Mapping):
        run.spend(BRANCH_COST)
        return {_json_key(run, name): as_json(run, child, depth + 1) for name, child in value.items()}
    if isinstance(value, list | tuple | range):
        return list(value) if only_integers(run, value) else [as_json(run, child, depth + 1) for child in value]
    return _from_object(run, value, depth)


def only_integers(run: Evaluation, value: list[Any] | tuple[Any, ...] | range) -> bool:
    """Tell, at a fraction of the cost of looking at each, whether there are only integers of a bounded size."""
    run.spend(BRANCH_COST + len(value))
    if set(map(type, value)) != {int}:
        return False
    return bounded(min(value)) is not None and bounded(max(value)) is not None


def _from_object(run: Evaluation, value: Any, depth: int) -> Any:
    if type(value) is Markup:
        return _sound_text(run, str(value))
    if isinstance(value, Iterator) and type(value) is not LoopContext:
        return [as_json(run, child, depth + 1) for child in value]
    if type(value) is Results:
        return as_json(run, value.whole(), depth)
    solid(value)
    message = f"the value is a {type(value).__name__}, which is not JSON"
    raise TemplateRuntimeError(message)


def _json_key(run: Evaluation, name: Any) -> str:
    if type(name) is not str:
        message = f"a mapping's key is {name!r}, a {kind_of(name)}; in JSON keys are texts"
        raise TemplateRuntimeError(message)
    return _sound_text(run, name)


def _sound_text(run: Evaluation, value: str) -> str:
    if len(value) > SHORT_TEXT:
        run.room_for_text(len(value))
    if "\x00" in value:
        message = "the text holds a NUL character, which the database cannot keep"
        raise TemplateRuntimeError(message)
    if not value.isascii():
        value.encode()  # raises ValueError on a lone surrogate
    return value


def text(run: Evaluation, value: Any) -> str:
    """Give what a value looks like inside a text."""
    if type(value) is not str:
        if type(value) in PLAIN:
            return str(bounded(value))
        value = str(as_json(run, whole(value)))
    run.room_for_text(len(value))
    return value  # type: ignore[no-any-return]
