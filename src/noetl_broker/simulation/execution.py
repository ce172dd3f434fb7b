"""One simulated execution: its state, what it knows, its open jobs, and the turns that it took."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

from noetl_broker.broker.context import WORKLOAD, Known
from noetl_broker.broker.core import take_turn
from noetl_broker.broker.memory import remember
from noetl_broker.broker.model import JSON, Child, Decision, Event, Rules, Turn
from noetl_broker.broker.model import Job as QueuedJob
from noetl_broker.broker.queue import DEFAULT_PRIORITY
from noetl_broker.broker.state import NEW, RUNNING, ExecutionState
from noetl_broker.broker.story import STORY_START
from noetl_broker.job import Job, readable
from noetl_broker.playbook import Playbook
from noetl_broker.playbook.reads import word_of_inputs
from noetl_broker.simulation.told import Story, tell, visits_of
from noetl_broker.template.scope import unwrap

Node = tuple[str, int, int | None]  # whose job it is: a step, its visit, and the place of an item
_ordinals = itertools.count()


class Parent(NamedTuple):
    """Which visit of which execution waits for a child; `place` is that of an item."""

    execution: Execution
    step: str
    visit: int
    place: int | None


@dataclass(slots=True, kw_only=True)
class OpenJob:
    """A job that nobody has answered yet; `attempts` are those before."""

    job: QueuedJob
    attempts: int = 0
    ordinal: int = field(default_factory=lambda: next(_ordinals))

    @property
    def rank(self) -> tuple[int, int]:
        """Higher priority first, then the oldest."""
        return -self.job.priority, self.ordinal


class Execution:
    """An execution under way."""

    def __init__(self, number: int, playbook: Playbook, rules: Rules, parent: Parent | None) -> None:
        """Nothing has happened yet; `number` is its id."""
        self.number = number
        self.playbook = playbook
        self.parent = parent
        self.state = ExecutionState()
        self.open: dict[Node, OpenJob] = {}
        self.answered: list[Job] = []
        self.children: list[Execution] = []
        self._known = Known(rules, complete=True)
        self._history: list[tuple[Event, Decision]] = []
        self._leased: dict[Node, OpenJob] = {}
        self._items: dict[tuple[str, int], list[JSON]] = {}

    @property
    def running(self) -> bool:
        """Whether it may still go on."""
        return self.state.status in {NEW, RUNNING}

    def take(self, event: Event) -> Decision:
        """Take the turn of an event: turn n is n seconds after the start of all stories."""
        turn = Turn(self.number, len(self._history) + 1, STORY_START + timedelta(seconds=len(self._history) + 1))
        self.state, decision = take_turn(self.playbook, self.state, event, turn, self._known)
        remember(self._known, event, turn, decision)
        self._history.append((event, decision))
        self._keep_items(event, decision)
        self._keep_jobs(decision)
        return decision

    def failures(self, step: str, visit: int) -> int:
        """How often a visit failed so far."""
        token = self.state.tokens.get((step, visit))
        return 0 if token is None else token.failures

    def gathered(self, step: str, visit: int) -> list[JSON]:
        """The results of an iterator by index; null where an item failed."""
        return self._items.get((step, visit), [])

    def lease(self, node: Node) -> Job:
        """Take an open job, to be answered at once."""
        opened = self._leased[node] = self.open.pop(node)
        opened.attempts += 1
        queued, told = opened.job, {"path": self.playbook.path, "execution_id": self.number}
        action = readable(queued.action)
        inputs = action.get(word_of_inputs(action))
        job = Job(
            step=queued.step,
            type=queued.node_type,
            args=inputs if isinstance(inputs, dict) else {},
            visit=queued.visit,
            attempt=opened.attempts,
            place=queued.place,
            path=self.playbook.path,
            execution_id=self.number,
            action=action,
            context={**queued.context, **told, "workload": self._workload()},
        )
        self.answered.append(job)
        return job

    def call(self, child: Child) -> None:
        """Keep the start of a child as a job, which is answered in its place."""
        step = self.playbook.steps[child.step]
        priority = next(p for p in (step.priority, self.playbook.priority, DEFAULT_PRIORITY) if p is not None)
        action: dict[str, JSON] = {"path": child.path, "version": child.version, "args": child.payload}
        queued = QueuedJob(
            child.step,
            child.visit,
            "playbook",
            0,
            action,
            {},
            priority,
            max_attempts=1,
            timeout=None,
            place=child.place,
        )
        earlier = child.meta["parent"]["attempt"] - 1
        self.open[child.step, child.visit, child.place] = OpenJob(job=queued, attempts=earlier)

    def story(self) -> Story:
        """What has happened."""
        ended = next((decision.ended for _, decision in self._history if decision.ended is not None), None)
        return Story(
            path=self.playbook.path,
            status=self.state.status,
            result=None if ended is None else ended.result,
            error=None if ended is None else ended.error,
            workload=self._workload(),
            steps=visits_of(self._history, ended=ended is not None),
            jobs=tuple(self.answered),
            children=tuple(child.story() for child in self.children),
            text=tell(self._history),
        )

    def _workload(self) -> dict[str, Any]:
        workload = self._known.answers.get(WORKLOAD)
        return workload if isinstance(workload, dict) else {}

    def _keep_items(self, event: Event, decision: Decision) -> None:
        for items in decision.items:
            self._items[items.step, items.visit] = [None] * len(items.values)
        for end in decision.item_ends:
            if end.status == "COMPLETED":
                self._items[end.step, end.visit][end.place] = unwrap(event.result)

    def _keep_jobs(self, decision: Decision) -> None:
        for step, visit in decision.abandoned:
            for node in [node for node in self.open if node[:2] == (step, visit)]:
                del self.open[node]
        if decision.withdraw:
            self.open.clear()
        for job in decision.jobs:
            if not (job.delegated or decision.gives_up(job.step, job.visit)):
                self.open[job.step, job.visit, job.place] = OpenJob(job=job)
        for change in decision.changes:
            node = change.step, change.visit, change.place
            if change.status == "retry":
                self.open[node] = OpenJob(job=self._leased[node].job, attempts=self._leased[node].attempts)
