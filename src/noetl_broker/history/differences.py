"""The differences of one execution: its turns decided again, compared with what was written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from difflib import unified_diff
from typing import Any

from noetl_broker.broker.state.state import is_live
from noetl_broker.history.record import History, HistoryPart, RecordedTurn
from noetl_broker.history.replay import Difference, Replay, ReplayedTurn

MOST_KEPT = 1000  # differences of one execution; all are counted
CONTEXT_LINES = 2


class Differences:
    """The replay of one execution: `turns`, and what differs. `count` has all differences, `found` the first ones."""

    def __init__(self, history: History, *, in_parts: bool) -> None:
        self.history = history
        self.turns = 0
        self.count = 0
        self.found: list[tuple[Difference, RecordedTurn | None]] = []
        self._in_parts = in_parts
        self._replay: Replay | None = None

    @property
    def is_running(self) -> bool:
        """Whether the execution runs on after the last turn."""
        return self._replay is not None and is_live(self._replay.state.status)

    def take(self, part: HistoryPart, on_each: Callable[[ReplayedTurn], None] = lambda _turn: None) -> None:
        """Replay some of its turns, or all; raises HistoryFault where that is impossible. `on_each` gets each turn."""
        if self._replay is None:
            self._replay = Replay(self.history, in_parts=self._in_parts)
        replay = self._replay
        if part.jobs is not None:
            replay.add_jobs(part.jobs)
        for recorded in part.readable_turns():
            replayed = replay.apply(recorded)
            self.turns += 1
            on_each(replayed)
            for difference in replayed.differences:
                self._add(difference, recorded)
        if part.last:
            for difference in replay.finish(part.unlinked):
                self._add(difference, None)

    def as_documents(self) -> list[dict[str, Any]]:
        """The differences as JSON objects."""
        return [difference_as_document(*one) for one in self.found]

    def _add(self, difference: Difference, recorded: RecordedTurn | None) -> None:
        self.count += 1
        if len(self.found) < MOST_KEPT:
            self.found.append((difference, recorded))


def diff(written: Any, decided: Any) -> Iterator[str]:
    """Give the lines of a unified diff of two values as JSON; none where both are None."""
    before, after = _json_lines(written), _json_lines(decided)
    found = unified_diff(before, after, "written", "decided", n=CONTEXT_LINES, lineterm="")
    return (line for line in found if not line.startswith("@@"))


def difference_as_document(difference: Difference, recorded: RecordedTurn | None) -> dict[str, Any]:
    """Give a difference as one JSON object."""
    event = recorded.event if recorded is not None and difference.turn is not None else None
    return {
        "turn": difference.turn,
        "event_id": recorded.event_id if recorded is not None and event is not None else None,
        "event_type": event.type if event is not None else None,
        "step": event.step if event is not None else None,
        "what": difference.what,
        "written": difference.written,
        "decided": difference.decided,
    }


def _json_lines(value: Any) -> list[str]:
    if value is None:
        return []
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True, default=str).splitlines()
