"""What `replay` tells while it takes turns again: the story of an execution, or where it first differs."""

from __future__ import annotations

from typing import Any

from noetl_broker.broker.history import History, RecordedTurn
from noetl_broker.broker.replay import Difference, Retaking
from noetl_broker.broker.state import RUNNING
from noetl_broker.broker.story import tell_turn
from noetl_broker.cli import output
from noetl_broker.cli.differences import as_json, show_difference
from noetl_broker.cli.walking import Pace
from noetl_broker.errors import EXIT_FAILED, HistoryFault
from noetl_broker.store.histories import Part

MOST_TOLD = 1000  # executions that are named, and differences of one of them; all are counted


class Retold:
    """All that is replayed in one call; with `as_json` the findings wait for the one document at the end."""

    def __init__(self, *, as_json: bool, stories: bool) -> None:
        """`stories`: of each execution, up to its first difference; else only differences are told."""
        self._as_json = as_json
        self._stories = stories and not as_json
        self._pace = Pace()
        self._turns = 0
        self._count = {"different": 0, "unreadable": 0}
        self._told: dict[str, list[dict[str, Any]]] = {"different": [], "unreadable": []}
        self._now: _Execution | None = None

    def take(self, part: Part) -> None:
        """Take the turns of a history, or of a part of one."""
        if part.first:
            self._now = _Execution(part.history, in_parts=part.jobs is not None, story=self._stories)
        execution = self._now
        if execution is None:
            return
        try:
            execution.take(part)
        except HistoryFault as fault:
            self._pace.executions += 1
            self._tell_unreadable(execution, fault)
            self._now = None
            return
        self._turns += len(part.turns)
        if part.last:
            self._pace.executions += 1
            self._tell_end(execution)
            self._now = None

    def close(self, *, alone: bool) -> int:
        """Tell the sum (not of one execution `alone`); gives the exit code."""
        different, unreadable = self._count["different"], self._count["unreadable"]
        if self._as_json:
            output.show_json(
                {
                    "executions": self._pace.executions,
                    "turns": self._turns,
                    "executions_per_second": round(self._pace.per_second, 1),
                    "differing": different,
                    **self._told,
                }
            )
        elif not alone:
            failed = f", {unreadable} cannot be replayed" if unreadable else ""
            output.say(
                f"{self._pace.executions} executions, {self._turns} turns, {different} different{failed} "
                f"({self._pace.per_second:,.0f} executions/s)"
            )
        return EXIT_FAILED if different or unreadable else 0

    def _tell_end(self, execution: _Execution) -> None:
        history, found = execution.history, execution.found
        if found:
            self._count["different"] += 1
            if self._as_json and len(self._told["different"]) < MOST_TOLD:
                told = [as_json(*one) for one in found[:MOST_TOLD]]
                entry = {"execution_id": history.execution_id, "path": history.path}
                self._told["different"].append({**entry, "count": execution.count, "differences": told})
        if not self._as_json:
            execution.tell_end()

    def _tell_unreadable(self, execution: _Execution, fault: HistoryFault) -> None:
        self._count["unreadable"] += 1
        history = execution.history
        if not self._as_json:
            output.say(str(fault))
        elif len(self._told["unreadable"]) < MOST_TOLD:
            entry = {"execution_id": history.execution_id, "path": history.path, "reason": fault.reason}
            self._told["unreadable"].append(entry)


class _Execution:
    """One execution: its turns taken again, and what differs."""

    def __init__(self, history: History, *, in_parts: bool, story: bool) -> None:
        self.history = history
        self.count = 0
        self.found: list[tuple[Difference, RecordedTurn | None]] = []
        self._in_parts = in_parts
        self._story = story
        self._turns = 0
        self._retaking: Retaking | None = None

    def take(self, part: Part) -> None:
        """Some of its turns, or all; raises HistoryFault where they cannot be taken again."""
        if self._retaking is None:
            self._retaking = Retaking(self.history, in_parts=self._in_parts)
        retaking = self._retaking
        if part.jobs is not None:
            retaking.tell_jobs(part.jobs)
        for recorded in part.readable_turns():
            taken = retaking.take(recorded)
            self._turns += 1
            if self._story and not self.found:
                for line in tell_turn(recorded.event, taken.decision):
                    output.say(line)
            for difference in taken.found:
                self._find(difference, recorded)
        if part.last:
            for difference in (*(Difference(None, stray, None, None) for stray in part.strays), *retaking.end()):
                self._find(difference, None)

    def tell_end(self) -> None:
        """The first difference, or (where stories are told) that there is none."""
        name = f"execution {self.history.execution_id}"
        if self.found:
            first = self.found[0][0]
            where = f", the first in turn {first.turn}" if first.turn is not None else ""
            things = "1 difference" if self.count == 1 else f"{self.count} differences{where}"
            output.say(f"{name}: {things}")
            show_difference(*self.found[0])
        elif self._story:
            running = self._retaking is not None and self._retaking.state.status == RUNNING
            so_far = " so far (it is running)" if running else ""
            output.say(f"{name}: {self._turns} turns{so_far}, no difference")
        if self._story and self.history.set_aside:
            one = self.history.set_aside == 1
            events = "1 event of it was" if one else f"{self.history.set_aside} events of it were"
            output.say(f"{events} set aside and has no turn; noetl-broker status {self.history.execution_id} says why")

    def _find(self, difference: Difference, recorded: RecordedTurn | None) -> None:
        self.count += 1
        if len(self.found) < MOST_TOLD:
            self.found.append((difference, recorded))
