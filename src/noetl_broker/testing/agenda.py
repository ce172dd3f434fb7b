"""The virtual clock of a simulation: what happens later, and the jumps of the clock to it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import NamedTuple

from noetl_broker.history.record import Node
from noetl_broker.history.story import STORY_START
from noetl_broker.node_ids import UNDO_SUFFIX

Key = tuple[int, Node]  # of an execution and a visit or an item
NO_NODE: Node = ("", 0, None)


class AgendaEntry(NamedTuple):
    """Something that happens later; equal moments keep their order."""

    moment: datetime
    ordinal: int
    key: Key | None
    act: Callable[[], None]


class Agenda:
    """What happens later in a simulation. A turn takes one second; with nothing else to do the clock jumps ahead."""

    def __init__(self) -> None:
        """Nothing to come; the clock stands at `STORY_START`."""
        self.now = STORY_START  # the time of the latest turn, or of the latest jump
        self.jumped = timedelta()  # in all
        self._floor = STORY_START  # no turn comes before the latest jump
        self._entries: list[AgendaEntry] = []
        self._ordinals = itertools.count()

    def next_turn(self, last: datetime) -> datetime:
        """The time of the next turn of an execution whose last turn was at `last`."""
        at = max(last + timedelta(seconds=1), self._floor)
        self.now = max(self.now, at)
        return at

    def add(
        self, moment: datetime, act: Callable[[], None], *, execution: int | None = None, node: Node = NO_NODE
    ) -> None:
        """Do something at this moment, unless `drop` names its execution or visit before."""
        key = None if execution is None else (execution, node)
        self._entries.append(AgendaEntry(moment, next(self._ordinals), key, act))

    def drop(self, execution: int, visit: tuple[str, int] | None = None, index: int | None = None) -> None:
        """Forget what would happen to an execution, to one of its visits, or to an item."""

        def is_dropped(key: Key | None) -> bool:
            if key is None or key[0] != execution:
                return False
            return visit is None or (key[1][:2] == visit and index in {None, key[1][2]})

        self._entries = [entry for entry in self._entries if not is_dropped(entry.key)]

    def keep(self, execution: int, visits: Collection[tuple[str, int]]) -> None:
        """Forget what would happen to an execution, but for these visits and for undos."""

        def is_kept(key: Key | None) -> bool:
            return key is None or key[0] != execution or key[1][:2] in visits or key[1][0].endswith(UNDO_SUFFIX)

        self._entries = [entry for entry in self._entries if is_kept(entry.key)]

    def advance(self) -> bool:
        """Jump to the next moment and do what happens then; False if there is nothing to come."""
        if not self._entries:
            return False
        first = min(self._entries, key=lambda entry: entry[:2])
        self._entries.remove(first)
        if first.moment > self.now:
            self.jumped += first.moment - self.now
            self.now = first.moment
        self._floor = max(self._floor, first.moment)
        first.act()
        return True
