"""The methods and functions that templates may call; each charges and checks its limits before it works."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import LoopContext

from noetl_broker.template.budget import Evaluation
from noetl_broker.template.undefined import Missing, template_type_name
from noetl_broker.template.values import Namespace, iterate, key, require_value

ENTRY_COST: Final = 2  # of a copied entry of a mapping, or a pair made of it
PAIR_COST: Final = 6  # of an entry made of a pair


def room_to_search(run: Evaluation, value: str, wanted: str) -> None:
    """Charge for a search; the worst case of short texts is the product of their lengths."""
    run.spend((len(value) * (8 + min(len(wanted), 256))) >> 8)


def _searching(name: str) -> Callable[..., Any]:
    def search(run: Evaluation, value: str, wanted: str, *bounds: int) -> Any:
        room_to_search(run, value, wanted)
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
    room_to_search(run, value, old)
    found = value.count(old) if count < 0 else min(count, value.count(old))
    run.room_for_text(len(value) + found * max(0, len(new) - len(old)))
    return value.replace(old, new, count)


def _join(run: Evaluation, value: str, parts: Any) -> str:
    texts = list(iterate(run, parts))
    run.room_for_text(sum(len(require_value(part)) for part in texts) + len(value) * len(texts))
    return value.join(texts)


def _padded(name: str) -> Callable[..., str]:
    def pad(run: Evaluation, value: str, width: int, *fill: str) -> str:
        run.room_for_text(max(width, len(value)))
        return getattr(value, name)(width, *fill)  # type: ignore[no-any-return]

    return pad


def _plain_method(name: str) -> Callable[..., Any]:
    def call(run: Evaluation, value: Any, *args: Any) -> Any:
        run.charge(value, *args)
        return getattr(value, name)(*args)

    return call


def _loop_method(name: str) -> Callable[..., Any]:
    def call(run: Evaluation, loop: LoopContext, *args: Any) -> Any:
        run.charge(*args)
        return getattr(loop, name)(*args)

    return call


def _cased_method(name: str) -> Callable[..., str]:
    def call(run: Evaluation, value: str) -> str:
        run.spend(len(value) >> 3)
        changed: str = getattr(value, name)()
        run.room_for_text(len(changed))  # "ß" becomes "SS"
        return changed

    return call


def _listed_method(name: str) -> Callable[..., Any]:
    def call(run: Evaluation, value: Any) -> list[Any]:
        run.room_for_list(len(value))
        return list(getattr(value, name)())

    return call


def items_of(run: Evaluation, value: Mapping[str, Any]) -> list[list[Any]]:
    """Give the entries of a mapping as pairs."""
    run.room_for_list(len(value))
    run.spend(len(value) * ENTRY_COST)
    return [[name, child] for name, child in value.items()]


def _get(_: Evaluation, value: Any, name: Any, other: Any = None) -> Any:
    return value.get(key(name), other)


def _index(run: Evaluation, value: list[Any] | tuple[Any, ...], wanted: Any) -> int:
    run.charge(value, wanted)
    if wanted not in value:  # Python's message would show the whole element
        raise TemplateRuntimeError("`index` finds no such element in the list")
    return value.index(wanted)


TEXT_METHODS: Final[dict[str, Callable[..., Any]]] = {
    **{
        name: _plain_method(name)
        for name in (
            *("endswith", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "islower", "isnumeric", "isspace"),
            *("istitle", "isupper", "removeprefix", "removesuffix", "startswith"),
        )
    },
    **{name: _cased_method(name) for name in ("capitalize", "casefold", "lower", "swapcase", "title", "upper")},
    **{name: _padded(name) for name in ("center", "ljust", "rjust", "zfill")},
    **{name: _searching(name) for name in ("count", "find", "index", "partition")},
    **{name: _stripping(name) for name in ("lstrip", "rstrip", "strip")},
    **{name: _splitting(name) for name in ("rsplit", "split", "splitlines")},
    "replace": _replace,
    "join": _join,
}
MAPPING_METHODS: Final[dict[str, Callable[..., Any]]] = {
    "get": _get,
    "items": items_of,
    **{name: _listed_method(name) for name in ("keys", "values")},
}
LIST_METHODS: Final[dict[str, Callable[..., Any]]] = {"count": _plain_method("count"), "index": _index}
LOOP_METHODS: Final[dict[str, Callable[..., Any]]] = {name: _loop_method(name) for name in ("changed", "cycle")}


def method(run: Evaluation, value: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call a method. With parentheses, a name is the method even if a mapping has such a key."""
    if type(value) is Missing:
        return require_value(value)
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
        raise TemplateRuntimeError(f"a {template_type_name(value)} has no method `{name:.80}` in templates{offered}")
    run.spend(5)
    found = table[name](run, value, *args, **kwargs)
    return list(found) if type(found) is tuple else found


def call_range(run: Evaluation, /, *numbers: int) -> range:
    """Give a range of at most `MAX_LIST_ITEMS` numbers."""
    wanted = range(*numbers)
    items = max(0, (wanted.stop - wanted.start + wanted.step - (1 if wanted.step > 0 else -1)) // wanted.step)
    run.room_for_list(items)
    return wanted


def call_now(run: Evaluation, /) -> str:
    """Give the turn's time."""
    return run.scope.moment.now()


def call_uuid(run: Evaluation, /) -> str:
    """Give the turn's next id."""
    run.spend(40)
    return run.scope.moment.uuid()


def call_dict(run: Evaluation, /, *given: Any, **named: Any) -> dict[Any, Any]:
    """Give a mapping: a copy of one, or one made of pairs, with the named values on top."""
    if not given:
        return named
    if len(given) > 1:
        here = f"here are {len(given)}: write `a | merge(b)` to merge mappings"
        raise TemplateRuntimeError(f"`dict` takes one mapping or one list of pairs, {here}")
    entries = given[0]
    if not isinstance(entries, Mapping):
        return {**_of_pairs(run, entries), **named}
    run.spend(len(entries) * ENTRY_COST)
    return {**entries, **named}


def _of_pairs(run: Evaluation, pairs: Any) -> dict[Any, Any]:
    if not isinstance(pairs, list | tuple):
        raise TemplateRuntimeError(f"`dict` takes a mapping or a list of pairs, not a {template_type_name(pairs)}")
    entries: dict[Any, Any] = {}
    for pair in iterate(run, pairs, PAIR_COST):
        if not isinstance(pair, list | tuple) or len(pair) != len(("key", "value")):
            found = f"list of {len(pair)}" if isinstance(pair, list | tuple) else template_type_name(pair)
            wanted = "each element must be a list of a key and a value"
            raise TemplateRuntimeError(f"`dict` takes pairs: {wanted}, one is a {found}")
        entries[key(pair[0])] = pair[1]
    return entries


def call_namespace(_: Evaluation, /, **names: Any) -> Namespace:
    """Give a namespace: names that a loop may set."""
    return Namespace(names)
