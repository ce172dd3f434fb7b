"""Look-ups in values: keys, elements, slices, loops.

A dot is a key of a mapping, never an attribute of a Python object. `methods` has what can be called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import LoopContext

from noetl_broker.template.budget import NODE_COST, PLAIN, Evaluation
from noetl_broker.template.scope import Results, StepResult
from noetl_broker.template.undefined import Missing, template_type_name

if TYPE_CHECKING:
    from collections.abc import Iterable

LOOP_WORDS: Final = frozenset(
    {"index", "index0", "first", "last", "length", "revindex", "revindex0", "previtem", "nextitem", "depth", "depth0"}
)
STEP_COST: Final = 10
RESULT_PARTS: Final = frozenset({"data", "result", "status", "error", "failed"})
# Larger integers can be chosen so that their hashes collide: a mapping of them takes hours.
KEY_LIMIT: Final = 1 << 60


class Namespace:
    """The object of `namespace()`: names that a loop may set. It is not a value: only its names can be used."""

    __slots__ = ("names",)

    def __init__(self, names: dict[str, Any]) -> None:
        """Take the first names."""
        self.names = names


# Objects that are no values: they cannot be elements, arguments or operands.
NO_VALUES: Final = frozenset({Missing, Namespace, LoopContext})


def require_value(value: Any) -> Any:
    """Give the value. Raises UndefinedError if it is undefined, TemplateRuntimeError if it is not a value."""
    if type(value) in NO_VALUES:
        if type(value) is Missing:
            value._fail_with_undefined_error()  # noqa: SLF001 - jinja2's documented hook for subclasses
        raise TemplateRuntimeError(f"a {template_type_name(value)} is no value: only its parts can be used")
    return value


def namespace_names(value: Any) -> dict[str, Any]:
    """Give the names of a namespace, to set one. Raises TemplateRuntimeError for anything else."""
    if type(value) is Namespace:
        return value.names
    raise TemplateRuntimeError(
        f"`set` changes names of a namespace only, not of a {template_type_name(require_value(value))}"
    )


def attribute(value: Any, name: str, path: str) -> Any:
    """Give the value of a mapping's key; `path` is the expression, for the message."""
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
    # The pairs of `groupby` have the fields `grouper` and `list`.
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
        raise TemplateRuntimeError(f"a {template_type_name(key)} cannot be a key or an index")
    if isinstance(value, list | tuple | str | range | Mapping):
        try:
            return value[key]
        except (LookupError, TypeError):
            return Missing(None, value, path)
    return Missing(None, value, path)


def result_part(run: Evaluation, value: Any, root: str, name: str, path: str) -> Any:
    """Give `step.data`, `.result`, `.status`, `.error` or `.failed`; a key of the data comes first.

    Only an iterator has `failed`.
    """
    if type(value) is dict and name in value:
        return value[name]
    if type(value) is not Missing:
        found = run.scope.find(root)
        if type(found) is StepResult and found.data is value and _has(found, name):
            return _of_result(found, name)
    return attribute(value, name, path)


def results_part(results: Any, key: Any, name: str, path: str) -> Any:
    """Give the same for `results[key]`."""
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


def results_as_mapping(run: Evaluation, value: Any) -> Any:
    """Give `results` as a mapping when a template uses it as a value."""
    if type(value) is not Results:
        return value
    run.spend(len(value) * STEP_COST)
    return value.as_mapping()


def cut(run: Evaluation, value: Any, start: Any, stop: Any, step: Any) -> Any:
    """Give a slice of a text or a list."""
    if type(value) is Missing:
        return value
    if not isinstance(value, list | tuple | str | range):
        raise TemplateRuntimeError(f"a {template_type_name(require_value(value))} cannot be sliced")
    wanted = slice(require_value(start), require_value(stop), require_value(step))
    length = len(range(*wanted.indices(len(value))))
    if isinstance(value, str):
        run.room_for_text(length)
        return value[wanted]
    run.room_for_list(length)
    return list(value[wanted])


def key(value: Any) -> Any:
    """Give a key of a mapping. Raises TemplateRuntimeError if it is not a text or a plain value below `KEY_LIMIT`."""
    if type(require_value(value)) is str or (
        type(value) in PLAIN and (type(value) is not int or abs(value) < KEY_LIMIT)
    ):
        return value
    shown = "number of more than 60 bits" if type(value) is int else template_type_name(value)
    raise TemplateRuntimeError(f"a {shown} cannot be a key of a mapping")


def iterate(run: Evaluation, value: Any, units: int = NODE_COST) -> Iterator[Any]:
    """Iterate over a value and charge for each element. Raises TemplateRuntimeError if it is not iterable."""
    if not isinstance(value, list | tuple | str | range | Mapping | Iterator) or type(value) is LoopContext:
        require_value(value)
        raise TemplateRuntimeError(f"a {template_type_name(value)} cannot be iterated over")
    return _iterate(run, value, units)


def _iterate(run: Evaluation, value: Iterable[Any], units: int) -> Iterator[Any]:
    for element in value:
        run.fuel -= units
        if run.fuel < 0:
            raise TemplateRuntimeError(run.limit_message())
        yield element


def loop_items(run: Evaluation, units: int, value: Any) -> Iterator[Any]:
    """Iterate for a `for` loop whose body costs so many steps a round."""
    return iterate(run, value, units)
