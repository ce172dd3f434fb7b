"""Runs executions through the core to their end, with the answers of a script."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from noetl_broker.broker.core import Session
from noetl_broker.broker.model.decision import Decision
from noetl_broker.broker.model.effects import ChildStarted, EventPosted, JobChanged
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.event_types import ITERATOR_COMPLETED
from noetl_broker.broker.model.rules import Rules
from noetl_broker.broker.state.state import RUNNING, ExecutionState
from noetl_broker.playbook import Playbook

START = datetime(2026, 1, 1, tzinfo=UTC)
MAX_TURNS = 2_000
RULES = Rules(max_visits=500)


class Script(NamedTuple):
    """The payload, and what workers answer: by step, the data, and the errors of the attempts before.

    A step without data answers `{}`.
    """

    payload: dict[str, Any]
    data: dict[str, Any]
    failures: dict[str, list[dict[str, Any]]] = {}  # noqa: RUF012 - never changed


class Run(NamedTuple):
    """One execution: the decisions of its turns, and the state after the last."""

    turns: list[tuple[Event, Decision]]
    state: ExecutionState

    @property
    def error(self) -> dict[str, Any]:
        """Return the error that ended it; empty if there is none."""
        return next((decision.ended.error or {} for _, decision in self.turns if decision.ended is not None), {})


def run_to_end(playbook: Playbook, script: Script, rules: Rules = RULES) -> Run:
    """Run an execution to its end; raises AssertionError if it does not end."""
    session = Session(playbook, rules)
    mail = deque([Event("execution_start", context={"workload": script.payload})])
    answers = _Answers(script)
    turns: list[tuple[Event, Decision]] = []
    while mail:
        event, number = mail.popleft(), len(turns) + 1
        decision = session.apply(event, START + timedelta(seconds=number))
        turns.append((event, decision))
        mail.extend(answers.to(decision))
        assert number < MAX_TURNS, "the execution does not end"
    assert session.state.status != RUNNING, "the execution waits for nothing"
    return Run(turns, session.state)


class _Answers:
    """The events that answer decisions."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.attempts: dict[tuple[str, int], int] = defaultdict(int)
        self.items: dict[tuple[str, int], dict[int, Any]] = defaultdict(dict)

    def to(self, decision: Decision) -> Iterator[Event]:
        """Yield the events that answer one decision."""
        for job in decision.jobs:
            if not job.delegated:
                yield self._answer(job.step, job.visit, job.item_index)
        for child in decision.of(ChildStarted):
            yield self._answer(child.step, child.visit, child.item_index, of_child=True)
        for change in decision.of(JobChanged):
            if change.status == "retry":
                yield self._answer(change.step, change.visit, None)
            elif change.status == "delegated":
                yield Event("child_due", change.step, change.visit)
        for post in decision.of(EventPosted):
            results = [value for _, value in sorted(self.items[post.step, post.visit].items())]
            yield Event(post.type, post.step, post.visit, results if post.type == ITERATOR_COMPLETED else None)

    def _answer(self, step: str, visit: int, index: int | None, *, of_child: bool = False) -> Event:
        types = ("execution_complete", "execution_failed") if of_child and index is not None else ("", "")
        self.attempts[step, visit] += 1
        attempt = self.attempts[step, visit]
        failures = self.script.failures.get(step, [])
        if attempt <= len(failures):
            error = failures[attempt - 1]
            return Event(types[1] or "action_failed", step, visit, error=error, attempt=attempt, item_index=index)
        data = self.script.data.get(step, {})
        if index is not None:
            self.items[step, visit][index] = data
        return Event(types[0] or "action_completed", step, visit, data, attempt=attempt, item_index=index)
