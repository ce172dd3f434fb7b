"""Two values side by side: the smallest parts of them that differ, by their places."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noetl_broker.broker.model import JSON
from noetl_broker.playbook.vocabulary import ENCODED_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from noetl_broker.playbook.model import Step

MOST_NAMED = 5  # things that are named where several differ

Place = tuple[str | int, ...]
Values = dict[str, list[JSON]]  # by place: [what it was, what it is]


def is_plain(step: Step, path: Place) -> bool:
    """Whether this part of an action is text that is handed on as it is written."""
    names: list[str | int] = [key for key, encoded in ENCODED_KEYS.items() if encoded == path[0]]
    return any(_reaches(step.plain, (name, *path[1:])) for name in names or [path[0]])


def _reaches(plain: JSON, path: Place) -> bool:
    for part in path:
        if not isinstance(plain, dict) or part not in plain:
            return False
        plain = plain[part]
        if not isinstance(plain, dict):
            return True
    return True


def differing(was: JSON, now: JSON, at: Place = ()) -> Iterator[tuple[Place, JSON, JSON]]:
    """The smallest parts of two values that differ, with their paths."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in {**was, **now}:
            yield from differing(was.get(key), now.get(key), (*at, key))
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for place, (before, after) in enumerate(zip(was, now, strict=True)):
            yield from differing(before, after, (*at, place))
    elif was != now:
        yield at, was, now


def values_of(was: JSON, now: JSON) -> Values:
    """The parts that differ, by their places as people write them."""
    return {place_of(path): [before, after] for path, before, after in differing(was, now)}


def place_of(path: Place) -> str:
    """A place as people write it: `args.cities[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def name_places(values: Values) -> str:
    """The places that differ, in a few words."""
    names = list(values)
    return ", ".join(names[:MOST_NAMED]) + (" …" if len(names) > MOST_NAMED else "")
