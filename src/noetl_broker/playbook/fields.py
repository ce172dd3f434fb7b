"""The fields of a task: one tree for each key, because `save` has more worker-side words than the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from noetl_broker.template import Path, Scope, Tree


class Fields:
    """The trees of a task's keys, with the attributes and the `render` of one tree (see `Tree`).

    `names` and `results` are what the broker reads to render them, `worker_names` and `worker_results` what the
    deferred strings read. `results` is None if it is not known beforehand. `deferred` are paths.
    """

    __slots__ = (
        *("_fixed", "_moving", "at", "constant", "deferred", "names", "parts", "results"),
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
        self.deferred: tuple[Path, ...] = tuple((key, *path) for key, tree in parts.items() for path in tree.deferred)
        self._moving = tuple((key, tree) for key, tree in parts.items() if not tree.constant)
        self._fixed = {key: tree.fixed if tree.constant else None for key, tree in parts.items()}

    @property
    def fixed(self) -> dict[str, Any]:
        """The constant values, shared; None for the others."""
        return self._fixed

    def render(self, scope: Scope) -> dict[str, Any]:
        """Give the fields rendered, in the author's order; constant values are shared, not copied."""
        if not self._moving:
            return self._fixed
        rendered = dict(self._fixed)
        for key, tree in self._moving:
            rendered[key] = tree.render(scope)
        return rendered


def union_of_results(sets: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    """Unite what several templates read of `results`; None (not known) if any is None."""
    union: frozenset[str] = frozenset()
    for names in sets:
        if names is None:
            return None
        union |= names
    return union


def with_plain(rendered: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """Merge values that are never rendered (`code`) deeply over rendered fields; no argument is changed."""
    merged = dict(rendered)
    for key, value in plain.items():
        under = merged.get(key)
        merged[key] = with_plain(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged
