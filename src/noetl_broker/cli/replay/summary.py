"""Prints `replay`: the story of each execution, its differences as a diff, and the totals."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from noetl_broker.cli import output
from noetl_broker.cli.command import Call
from noetl_broker.errors import EXIT_FAILED, HistoryFault
from noetl_broker.history.differences import Differences, diff
from noetl_broker.history.record import HistoryPart, RecordedTurn
from noetl_broker.history.replay import Difference, ReplayedTurn
from noetl_broker.history.story import format_turn

MOST_KEPT = 1000  # executions in the JSON document; all are counted
MOST_LINES = 60  # of a diff
COLOURS = {"-": "red", "+": "green"}


class Summary:
    """Replays histories and prints what it finds; with --json all of it in one document at the end."""

    def __init__(self, call: Call, *, stories: bool) -> None:
        """`stories`: print the story of each execution up to its first difference, not only differences."""
        self._call, self._stories = call, stories and not call.as_json
        self._executions, self._turns, self._began = 0, 0, time.monotonic()
        self._count: Counter[str] = Counter()
        self._kept: dict[str, list[dict[str, Any]]] = {"different": [], "unreadable": []}
        self._current: Differences | None = None

    def take(self, part: HistoryPart) -> None:
        """Replay a history, or a part of one."""
        if part.first:
            self._current = Differences(part.history, in_parts=part.jobs is not None)
        execution = self._current
        if execution is None:
            return
        try:
            execution.take(part, lambda replayed: self._show_turn(execution, replayed))
        except HistoryFault as fault:
            self._keep("unreadable", execution, reason=fault.reason)
            if not self._call.as_json:
                output.say(str(fault))
        else:
            self._turns += len(part.turns)
            if not part.last:
                return
            if execution.found:
                self._keep("different", execution, count=execution.count, differences=execution.as_documents())
            if not self._call.as_json:
                _show_end(execution, self._call.with_schema, story=self._stories)
        self._executions += 1
        self._current = None

    def close(self, *, alone: bool, erased: int = 0) -> int:
        """Print the totals (not for one execution `alone`), with those `erased`; gives the exit code."""
        per_second = self._executions / max(time.monotonic() - self._began, 1e-6)
        different, unreadable = self._count["different"], self._count["unreadable"]
        document = {
            "executions": self._executions,
            "turns": self._turns,
            "executions_per_second": round(per_second, 1),
            "differing": different,
            "erased": erased,
            **self._kept,
        }
        if not self._call.printed(document) and not alone:
            failed = f", {unreadable} cannot be replayed" if unreadable else ""
            failed += f", {erased} erased" if erased else ""
            output.say(
                f"{output.executions(self._executions)}, {self._turns} turns, {different} different{failed} "
                f"({per_second:,.0f} executions/s)"
            )
        return EXIT_FAILED if different or unreadable else 0

    def _show_turn(self, execution: Differences, replayed: ReplayedTurn) -> None:
        """Print a turn of a story, up to the first difference."""
        if self._stories and not execution.found:
            for line in format_turn(replayed.recorded.event, replayed.decision):
                output.say(line)

    def _keep(self, kind: str, execution: Differences, **found: Any) -> None:
        """Count an execution, and keep what was found for the JSON document."""
        self._count[kind] += 1
        if self._call.as_json and len(self._kept[kind]) < MOST_KEPT:
            history = execution.history
            self._kept[kind].append({"execution_id": history.execution_id, "path": history.path, **found})


def _show_end(execution: Differences, with_schema: Callable[[str], str], *, story: bool) -> None:
    """Print the first difference, or (with `story`) that there is none."""
    history = execution.history
    name = f"execution {history.execution_id}"
    if execution.found:
        first = execution.found[0][0]
        where = f", the first in turn {first.turn}" if first.turn is not None else ""
        differences = "1 difference" if execution.count == 1 else f"{execution.count} differences{where}"
        output.say(f"{name}: {differences}")
        show_difference(*execution.found[0])
    elif story:
        so_far = " so far (it is running)" if execution.is_running else ""
        output.say(f"{name}: {execution.turns} turns{so_far}, no difference")
    if story and history.set_aside:
        events = "1 event of it was" if history.set_aside == 1 else f"{history.set_aside} events of it were"
        remedy = with_schema(f"noetl-broker status {history.execution_id}")
        output.say(f"{events} set aside and has no turn; {remedy} says why")


def show_difference(difference: Difference, recorded: RecordedTurn | None) -> None:
    """Print a difference as a diff: on a terminal, red is what was written and green what is decided now."""
    output.say(f"  {_heading(difference, recorded)}")
    lines = [*diff(difference.written, difference.decided)]
    for line in lines[:MOST_LINES]:
        output.say(output.Styled(f"    {line}", COLOURS.get(line[:1])))
    if len(lines) > MOST_LINES:
        output.say(f"    … and {len(lines) - MOST_LINES} more lines; --json has them all")


def _heading(difference: Difference, recorded: RecordedTurn | None) -> str:
    """Give the turn, the event that it read, and what differs."""
    if difference.turn is None:
        return difference.what
    if recorded is None or recorded.turn.number != difference.turn:
        return f"turn {difference.turn}: {difference.what}"
    event = recorded.event
    of_step = f" {event.step}" if event.step else ""
    return f"turn {difference.turn}, {event.type}{of_step} (event {recorded.event_id}): {difference.what}"
