"""The steps that each step of a workflow can reach: for joins, loops and warnings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from sys import getsizeof

NOBODY: frozenset[str] = frozenset()
MOST_BYTES = 16 << 20  # of cached answers


class Graph:
    """The arcs of a workflow, with cached answers about reachability.

    A path has at least one arc, so a step reaches itself only through a loop. An answer for one target is a bit for
    each source, found by a walk back from the target. `close` computes all pairs at once.
    """

    __slots__ = ("_bytes", "_closure", "_incoming", "_index", "_kept", "_names", "_predecessors", "_successors")

    def __init__(self, steps: Sequence[str], arcs: Iterable[tuple[str, str]]) -> None:
        self._names = tuple(steps)
        self._index = {name: index for index, name in enumerate(self._names)}
        self._incoming = dict.fromkeys(self._names, 0)
        distinct: dict[tuple[int, int], None] = {}
        for source, target in arcs:
            distinct[self._index[source], self._index[target]] = None
            self._incoming[target] += 1
        self._successors: list[list[int]] = [[] for _ in self._names]
        self._predecessors: list[list[int]] = [[] for _ in self._names]
        for before, after in sorted(distinct):
            self._successors[before].append(after)
            self._predecessors[after].append(before)
        self._closure: list[int] | None = None
        self._kept: dict[tuple[str, frozenset[str]], bytearray] = {}
        self._bytes = 0

    def incoming(self, step: str) -> int:
        """Give the number of arcs into a step; parallel arcs count each."""
        return self._incoming[step]

    def can_reach(self, source: str, target: str, avoiding: frozenset[str] = NOBODY) -> bool:
        """Whether a token at `source` can reach `target` by one arc or more, without passing steps of `avoiding`.

        Only the steps between them count: `source` and `target` may be in `avoiding`.
        """
        index = self._index[source]
        if self._closure is not None and not avoiding:
            return bool(self._closure[index] >> self._index[target] & 1)
        sources = self._kept.get((target, avoiding))
        if sources is None:
            sources = self._sources(target, avoiding)
            self._bytes += getsizeof(sources) + getsizeof(avoiding)
            if self._bytes > MOST_BYTES:
                self._kept.clear()
                self._bytes = 0
            self._kept[target, avoiding] = sources
        return bool(sources[index >> 3] >> (index & 7) & 1)

    def reached_from(self, source: str) -> frozenset[str]:
        """Give all steps that `source` can reach."""
        return frozenset(name for name in self._names if self.can_reach(source, name))

    def close(self) -> Graph:
        """Compute all pairs, at one bit each, and give the graph itself."""
        closure = [0] * len(self._names)
        for component in _components(self._successors):
            reached = 0
            for index in component:
                for target in self._successors[index]:
                    reached |= 1 << target | closure[target]
            for index in component:
                closure[index] = reached
        self._closure = closure
        return self

    def _sources(self, target: str, avoiding: frozenset[str]) -> bytearray:
        """Give a bit for each step: whether a token there can reach `target`."""
        found = bytearray(len(self._names) // 8 + 1)
        blocked = {self._index[name] for name in avoiding if name in self._index}
        ahead = [self._index[target]]
        while ahead:
            for index in self._predecessors[ahead.pop()]:
                if not found[index >> 3] >> (index & 7) & 1:
                    found[index >> 3] |= 1 << (index & 7)
                    if index not in blocked:
                        ahead.append(index)
        return found

    def cycle(self, step: str) -> tuple[str, ...]:
        """Give the steps of a shortest loop through a step, starting with it; empty if there is none."""
        before: dict[str, str] = {}
        layer = [step]
        while layer:
            following: list[str] = []
            for source in layer:
                for target in self.successors(source):
                    if target == step:
                        return _path_back(before, source, step)
                    if target not in before:
                        before[target] = source
                        following.append(target)
            layer = following
        return ()

    def successors(self, step: str) -> tuple[str, ...]:
        """Give the steps that one arc leads to, in document order."""
        return tuple(self._names[index] for index in self._successors[self._index[step]])


def _components(following: list[list[int]]) -> Iterator[list[int]]:
    """Give the strongly connected components, each after its successors (Tarjan, without recursion)."""
    order: dict[int, int] = {}
    lowest: dict[int, int] = {}
    open_: list[int] = []
    is_open = [False] * len(following)
    for root in range(len(following)):
        walk: list[tuple[int, Iterator[int]]] = [] if root in order else [(root, iter(following[root]))]
        while walk:
            index, targets = walk[-1]
            if index not in order:
                order[index] = lowest[index] = len(order)
                open_.append(index)
                is_open[index] = True
            for target in targets:
                if target not in order:
                    walk.append((target, iter(following[target])))
                    break
                if is_open[target]:
                    lowest[index] = min(lowest[index], order[target])
            else:
                walk.pop()
                if walk:
                    above = walk[-1][0]
                    lowest[above] = min(lowest[above], lowest[index])
                if lowest[index] == order[index]:
                    yield _pop_component(index, open_, is_open)


def _pop_component(index: int, open_: list[int], is_open: list[bool]) -> list[int]:
    component = []
    while is_open[index]:
        component.append(open_.pop())
        is_open[component[-1]] = False
    return component


def _path_back(before: dict[str, str], last: str, first: str) -> tuple[str, ...]:
    path = [last]
    while path[-1] != first:
        path.append(before[path[-1]])
    return tuple(reversed(path))
