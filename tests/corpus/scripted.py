"""A worker that answers from a script, and executions taken to their end by it through the pure core."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from noetl_broker.broker.context import Known
from noetl_broker.broker.core import take_turn
from noetl_broker.broker.memory import remember
from noetl_broker.broker.model import ITERATOR_COMPLETED, Decision, Event, Rules, Turn
from noetl_broker.broker.state import RUNNING, ExecutionState
from noetl_broker.playbook import Playbook

START = datetime(2026, 1, 1, tzinfo=UTC)
MOST_TURNS = 2_000
RULES = Rules(max_visits=500)


class World(NamedTuple):
    """What the caller sends, and what workers answer: the data of each step, and how often it fails before, with what.

    A step that is not named answers `{}`.
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
        """Give the error that ended it; empty if none did."""
        return next((decision.ended.error or {} for _, decision in self.turns if decision.ended is not None), {})


def play_to_end(playbook: Playbook, world: World, rules: Rules = RULES) -> Run:
    """Take an execution to its end; raises AssertionError where it never comes, and whatever the core raises."""
    known, state = Known(rules, complete=True), ExecutionState()
    mail = deque([Event("execution_start", context={"workload": world.payload})])
    answers = _Answers(world)
    turns: list[tuple[Event, Decision]] = []
    while mail:
        event, number = mail.popleft(), len(turns) + 1
        turn = Turn(1, number, START + timedelta(seconds=number))
        state, decision = take_turn(playbook, state, event, turn, known)
        remember(known, event, turn, decision)
        turns.append((event, decision))
        mail.extend(answers.to(decision))
        assert number < MOST_TURNS, "the execution does not come to its end"
    assert state.status != RUNNING, "the execution waits for nothing"
    return Run(turns, state)


class _Answers:
    """What comes back to the broker for what it decided."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.attempts: dict[tuple[str, int], int] = defaultdict(int)
        self.items: dict[tuple[str, int], dict[int, Any]] = defaultdict(dict)

    def to(self, decision: Decision) -> Iterator[Event]:
        """Give the events that one decision brings about."""
        for job in decision.jobs:
            if not job.delegated:
                yield self._answer(job.step, job.visit, job.place)
        for child in decision.children:
            yield self._answer(child.step, child.visit, child.place, of_child=True)
        for change in decision.changes:
            if change.status == "retry":
                yield self._answer(change.step, change.visit, None)
            elif change.status == "delegated":
                yield Event("child_due", change.step, change.visit)
        for post in decision.posts:
            results = [value for _, value in sorted(self.items[post.step, post.visit].items())]
            yield Event(post.type, post.step, post.visit, results if post.type == ITERATOR_COMPLETED else None)

    def _answer(self, step: str, visit: int, place: int | None, *, of_child: bool = False) -> Event:
        words = ("execution_complete", "execution_failed") if of_child and place is not None else ("", "")
        self.attempts[step, visit] += 1
        attempt = self.attempts[step, visit]
        failures = self.world.failures.get(step, [])
        if attempt <= len(failures):
            error = failures[attempt - 1]
            return Event(words[1] or "action_failed", step, visit, error=error, attempt=attempt, place=place)
        data = self.world.data.get(step, {})
        if place is not None:
            self.items[step, visit][place] = data
        return Event(words[0] or "action_completed", step, visit, data, attempt=attempt, place=place)
