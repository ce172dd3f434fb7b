"""The fields of a task: one tree for each key, because `save` may leave more words to the worker than the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from noetl_broker.template import Leave, Path, Scope, Template, Tree


class Fields:
    """A mapping of a task's keys to trees, with the questions and the `render` of one tree.

    `names` and `results` are what the broker reads to render it; `worker_names` and `worker_results` what the strings
    left for the worker read. None for `results`: in a way that is not known beforehand. `left`: the paths of those
    strings in the rendered mapping.
    """

    __slots__ = (
        *("_fixed", "_moving", "at", "constant", "left", "names", "parts", "results"),
        *("worker_names", "worker_results"),
    )

    def __init__(self, parts: Mapping[str, Tree | Fields], at: str) -> None:
        trees = parts.values()
        self.at = at
        self.parts = parts
        self.constant: bool = all(tree.constant for tree in trees)
        self.names: frozenset[str] = frozenset().union(*(tree.names for tree in trees))
        self.results: frozenset[str] | None = union_of_results(tree.results for tree in trees)
        self.worker_names: frozenset[str] = frozenset().union(*(tree.worker_names for tree in trees))
        self.worker_results: frozenset[str] | None = union_of_results(tree.worker_results for tree in trees)
        self.left: tuple[Path, ...] = tuple((key, *path) for key, tree in parts.items() for path in tree.left)
        self._moving = tuple((key, tree) for key, tree in parts.items() if not tree.constant)
        nothing: Any = None  # a constant tree reads no scope
        self._fixed = {key: tree.render(nothing) if tree.constant else None for key, tree in parts.items()}

    @property
    def fixed(self) -> dict[str, Any]:
        """The values that no template makes, shared; None where one does."""
        return self._fixed

    def render(self, scope: Scope, leave: Leave | None = None) -> dict[str, Any]:
        """Give the fields rendered, in the author's order; constant values are shared, not copied.

        Templates that `leave` says so of are left for the worker as well: see `leaving`.
        """
        if not self._moving:
            return self._fixed
        rendered = dict(self._fixed)
        for key, tree in self._moving:
            rendered[key] = tree.render(scope, leave)
        return rendered

    def leaving(self, leave: Leave) -> Iterator[tuple[Path, Template]]:
        """Give the broker's templates that are left for the worker as well, with their paths."""
        for key, tree in self._moving:
            for path, template in tree.leaving(leave):
                yield (key, *path), template


def union_of_results(sets: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    """Join what several templates read of `results`; None (not known) swallows all."""
    union: frozenset[str] = frozenset()
    for names in sets:
        if names is None:
            return None
        union |= names
    return union


def with_plain(rendered: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """Merge what is never rendered (`code`) deeply over rendered fields; neither argument is changed."""
    merged = dict(rendered)
    for key, value in plain.items():
        under = merged.get(key)
        merged[key] = with_plain(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged
