"""Who can reach whom in a workflow: the questions that joins, loops and warnings ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

NOBODY: frozenset[str] = frozenset()
MOST_CLOSURES = 256  # sets of avoided steps whose answers are kept; one costs a bit for each pair of steps


class Graph:
    """The arcs of a workflow as bit masks, one bit a step in document order; answers are remembered.

    A step reaches itself only through a loop: every answer is about one arc or more.
    """

    __slots__ = ("_closures", "_incoming", "_index", "_names", "_successors")

    def __init__(self, steps: Sequence[str], arcs: Iterable[tuple[str, str]]) -> None:
        self._names = tuple(steps)
        self._index = {name: place for place, name in enumerate(self._names)}
        self._incoming = dict.fromkeys(self._names, 0)
        self._successors = [0] * len(self._names)
        for source, target in arcs:
            self._successors[self._index[source]] |= 1 << self._index[target]
            self._incoming[target] += 1
        self._closures: dict[frozenset[str], list[int]] = {}

    def incoming(self, step: str) -> int:
        """Count the arcs that lead into a step; two from one source are two."""
        return self._incoming[step]

    def can_reach(self, source: str, target: str, avoiding: frozenset[str] = NOBODY) -> bool:
        """Whether a token at `source` can come to `target` by one arc or more, not passing through steps of `avoiding`.

        `source` and `target` themselves may be among `avoiding`: only what lies between counts.
        """
        closure = self._closures.get(avoiding)
        if closure is None:
            if len(self._closures) >= MOST_CLOSURES:
                self._closures.clear()
            closure = self._closures[avoiding] = self._close(avoiding)
        return bool(closure[self._index[source]] >> self._index[target] & 1)

    def reached_from(self, source: str) -> frozenset[str]:
        """Give all steps that `source` can reach."""
        return frozenset(name for name in self._names if self.can_reach(source, name))

    def _close(self, avoiding: frozenset[str]) -> list[int]:
        """Give for each step the mask of what it reaches, all at once: each component after those that it leads to."""
        blocked = {self._index[name] for name in avoiding if name in self._index}
        following = [[] if place in blocked else _bits(mask) for place, mask in enumerate(self._successors)]
        passing = [0] * len(self._names)
        for component in _components(following):
            reached = 0
            for place in component:
                reached |= 0 if place in blocked else self._successors[place]
                for target in following[place]:
                    reached |= passing[target]
            for place in component:
                passing[place] = reached
        for place in blocked:  # a token that stands at a blocked step may leave it
            mask = self._successors[place]
            for target in _bits(mask):
                mask |= 0 if target in blocked else passing[target]
            passing[place] = mask
        return passing

    def cycle(self, step: str) -> tuple[str, ...]:
        """Give the steps of a shortest loop through a step, starting with it; empty if it lies on none."""
        before: dict[str, str] = {}
        layer = [step]
        while layer:
            following: list[str] = []
            for source in layer:
                for target in self.successors(source):
                    if target == step:
                        return _walk_back(before, source, step)
                    if target not in before:
                        before[target] = source
                        following.append(target)
            layer = following
        return ()

    def successors(self, step: str) -> tuple[str, ...]:
        """Give the steps that one arc leads to, in document order."""
        return tuple(self._names[place] for place in _bits(self._successors[self._index[step]]))


def _bits(mask: int) -> list[int]:
    """Give the places of the bits that are set, lowest first."""
    places = []
    while mask:
        lowest = mask & -mask
        places.append(lowest.bit_length() - 1)
        mask ^= lowest
    return places


def _components(following: list[list[int]]) -> Iterator[list[int]]:
    """Give the strongly connected components, each after all that it leads to (Tarjan's algorithm, no recursion)."""
    order: dict[int, int] = {}
    lowest: dict[int, int] = {}
    open_: list[int] = []
    is_open = [False] * len(following)
    for root in range(len(following)):
        walk: list[tuple[int, Iterator[int]]] = [] if root in order else [(root, iter(following[root]))]
        while walk:
            place, targets = walk[-1]
            if place not in order:
                order[place] = lowest[place] = len(order)
                open_.append(place)
                is_open[place] = True
            for target in targets:
                if target not in order:
                    walk.append((target, iter(following[target])))
                    break
                if is_open[target]:
                    lowest[place] = min(lowest[place], order[target])
            else:
                walk.pop()
                if walk:
                    above = walk[-1][0]
                    lowest[above] = min(lowest[above], lowest[place])
                if lowest[place] == order[place]:
                    yield _taken_down_to(place, open_, is_open)


def _taken_down_to(place: int, open_: list[int], is_open: list[bool]) -> list[int]:
    component = []
    while is_open[place]:
        component.append(open_.pop())
        is_open[component[-1]] = False
    return component


def _walk_back(before: dict[str, str], last: str, first: str) -> tuple[str, ...]:
    path = [last]
    while path[-1] != first:
        path.append(before[path[-1]])
    return tuple(reversed(path))
