"""The inputs of a visit, as they were given: their values, and which of these only a worker can finish."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

    from noetl_broker.broker.model import JSON
    from noetl_broker.template import Path


class Given(NamedTuple):
    """Rendered inputs; `left` are the paths of the strings that are still templates. All others are data.

    `levels`, where something is left: which inputs see others, lowest first. Those of a level see, where they are
    finished, all that stands in none and in those before it.
    """

    values: dict[str, JSON]
    left: tuple[Path, ...] = ()
    levels: tuple[tuple[str, ...], ...] = ()


NOTHING_GIVEN = Given({})


def lay_over(under: Given, over: Given) -> Given:
    """One level over another: a key that the upper one gives is a template or data as it says."""
    if not under.values:
        return over
    left = tuple(path for path in under.left if path[0] not in over.values) + over.left if under.left else over.left
    return Given({**under.values, **over.values}, left)


def lay_own(own: Given, arrived: Given) -> Given:
    """A step's own inputs under those that arrived, which they have seen."""
    given = lay_over(own, arrived)
    return given._replace(levels=(tuple(own.values),)) if given.left else given


def lay_task(step: Given, task: Given) -> Given:
    """The inputs of a task over those of its step, which they have seen."""
    given = lay_over(step, task)
    return given._replace(levels=(*step.levels, tuple(task.values))) if given.left else given


def without(given: Given, keys: Collection[str]) -> Given:
    """The inputs but those of these names."""
    if not keys:
        return given
    values = {key: item for key, item in given.values.items() if key not in keys}
    return Given(values, tuple(path for path in given.left if path[0] in values))
