"""The few methods of texts, mappings and lists that templates may call, each bounded before it works."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import LoopContext

from noetl_broker.template.fuel import Evaluation
from noetl_broker.template.values import Missing, drawn, key, kind_of, solid, whole


def _room_to_search(run: Evaluation, value: str, wanted: str) -> None:
    """Charge for a search, whose worst case is a product of the lengths for short texts."""
    run.spend((len(value) * (8 + min(len(wanted), 128))) >> 8)


def _searching(name: str) -> Callable[..., Any]:
    def search(run: Evaluation, value: str, wanted: str, *bounds: int) -> Any:
        _room_to_search(run, value, wanted)
        return getattr(value, name)(wanted, *bounds)

    return search


def _stripping(name: str) -> Callable[..., Any]:
    def strip(run: Evaluation, value: str, characters: str | None = None) -> str:
        run.spend((len(value) * (8 + len(characters or ""))) >> 8)
        return getattr(value, name)(characters)  # type: ignore[no-any-return]

    return strip


def _splitting(name: str) -> Callable[..., Any]:
    def split(run: Evaluation, value: str, *args: Any, **kwargs: Any) -> list[str]:
        separator = args[0] if args else kwargs.get("sep")
        run.spend(len(value) >> 2)
        if isinstance(separator, str):
            run.spend((len(value) * len(separator)) >> 8)
        parts: list[str] = getattr(value, name)(*args, **kwargs)
        run.room_for_list(len(parts))
        return parts

    return split


def _replace(run: Evaluation, value: str, old: str, new: str, count: int = -1) -> str:
    _room_to_search(run, value, old)
    found = value.count(old) if count < 0 else min(count, value.count(old))
    run.room_for_text(len(value) + found * max(0, len(new) - len(old)))
    return value.replace(old, new, count)


def _join(run: Evaluation, value: str, parts: Any) -> str:
    texts = list(drawn(run, parts))
    run.room_for_text(sum(len(solid(part)) for part in texts) + len(value) * len(texts))
    return value.join(texts)


def _padded(name: str) -> Callable[..., str]:
    def pad(run: Evaluation, value: str, width: int, *fill: str) -> str:
        run.room_for_text(max(width, len(value)))
        return getattr(value, name)(width, *fill)  # type: ignore[no-any-return]

    return pad


def _plain_method(name: str) -> Callable[..., Any]:
    def call(run: Evaluation, value: Any, *args: Any, **kwargs: Any) -> Any:
        run.weigh(value, *args)
        return getattr(value, name)(*args, **kwargs)

    return call


def _listed_method(name: str) -> Callable[..., Any]:
    def call(run: Evaluation, value: Any) -> list[Any]:
        run.room_for_list(len(value))
        return [list(one) if type(one) is tuple else one for one in getattr(value, name)()]

    return call


def _get(_: Evaluation, value: Any, name: Any, other: Any = None) -> Any:
    return value.get(key(name), other)


TEXT_METHODS: Final[dict[str, Callable[..., Any]]] = {
    **{
        name: _plain_method(name)
        for name in (
            *("capitalize", "casefold", "endswith", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit"),
            *("islower", "isnumeric", "isspace", "istitle", "isupper", "lower", "removeprefix", "removesuffix"),
            *("startswith", "swapcase", "title", "upper"),
        )
    },
    **{name: _padded(name) for name in ("center", "ljust", "rjust", "zfill")},
    **{name: _searching(name) for name in ("count", "find", "index", "partition")},
    **{name: _stripping(name) for name in ("lstrip", "rstrip", "strip")},
    **{name: _splitting(name) for name in ("rsplit", "split", "splitlines")},
    "replace": _replace,
    "join": _join,
}
MAPPING_METHODS: Final[dict[str, Callable[..., Any]]] = {
    "get": _get,
    **{name: _listed_method(name) for name in ("items", "keys", "values")},
}
LIST_METHODS: Final[dict[str, Callable[..., Any]]] = {name: _plain_method(name) for name in ("count", "index")}
LOOP_METHODS: Final[dict[str, Callable[..., Any]]] = {name: _plain_method(name) for name in ("cycle", "changed")}


def method(run: Evaluation, value: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method. With parentheses a name means the method even where a mapping has a key of that name."""
    if type(value) is Missing:
        return solid(value)
    value = whole(value)
    table: dict[str, Callable[..., Any]] = {}
    if isinstance(value, str):
        table = TEXT_METHODS
    elif isinstance(value, Mapping):
        table = MAPPING_METHODS
    elif isinstance(value, list | tuple):
        table = LIST_METHODS
    elif type(value) is LoopContext:
        table = LOOP_METHODS
    if name not in table:
        offered = f"; it has {', '.join(sorted(table))}" if table else ""
        message = f"a {kind_of(value)} has no method `{name}` in templates{offered}"
        raise TemplateRuntimeError(message)
    run.spend(5)
    return table[name](run, value, *args, **kwargs)


def call_range(run: Evaluation, *numbers: int) -> range:
    """Give a range of at most `Bounds.list_items` numbers."""
    numbers_wanted = range(*numbers)
    steps = numbers_wanted.step
    items = max(0, (numbers_wanted.stop - numbers_wanted.start + steps - (1 if steps > 0 else -1)) // steps)
    run.room_for_list(items)
    return numbers_wanted


def call_now(run: Evaluation) -> str:
    """Give the turn's time."""
    return run.scope.moment.now()


def call_uuid(run: Evaluation) -> str:
    """Give the turn's next id."""
    run.spend(40)
    return run.scope.moment.uuid()


def call_dict(run: Evaluation, **entries: Any) -> dict[str, Any]:
    """Give a mapping of the named arguments."""
    run.room_for_list(len(entries))
    return entries
