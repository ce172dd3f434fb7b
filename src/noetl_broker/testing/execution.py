"""A simulated execution: its session, its open jobs, and its turns so far."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from noetl_broker.broker.core import Session
from noetl_broker.broker.draft.known import ItemState, Known
from noetl_broker.broker.draft.wants import WORKLOAD, want_item_status
from noetl_broker.broker.draft.writes import DECIDED
from noetl_broker.broker.model.decision import Decision, JobRow
from noetl_broker.broker.model.effects import ChildStarted, ItemEnded, ItemsChosen
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.event_types import EXECUTION_SIGNAL
from noetl_broker.broker.model.rules import Rules
from noetl_broker.broker.model.stops import stops_of
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import NEW, ExecutionState, is_live
from noetl_broker.broker.writing.queue import DEFAULT_PRIORITY
from noetl_broker.history.record import Node
from noetl_broker.history.story import STORY_START, format_story
from noetl_broker.job import Job, readable
from noetl_broker.playbook import Playbook
from noetl_broker.playbook.template_reads import word_of_inputs
from noetl_broker.template.scope import unwrap
from noetl_broker.testing.agenda import Agenda
from noetl_broker.testing.result import Story, visits_of
from noetl_broker.testing.undo import is_stopped, node_of

_ordinals = itertools.count()


class WaitingVisit(NamedTuple):
    """The visit that waits for a child, with its execution; `item_index` is the index of an item."""

    execution: SimulatedExecution
    step: str
    visit: int
    item_index: int | None
    undo: bool = False  # the undo of the visit or item waits


@dataclass(slots=True, kw_only=True)
class OpenJob:
    """A job without an answer yet; `attempts` counts earlier attempts."""

    job: JobRow
    attempts: int = 0
    ordinal: int = field(default_factory=lambda: next(_ordinals))

    @property
    def rank(self) -> tuple[int, int]:
        """Higher priority first, then the oldest."""
        return -self.job.priority, self.ordinal


class SimulatedExecution:
    """A simulated execution."""

    def __init__(
        self,
        number: int,
        playbook: Playbook,
        rules: Rules,
        parent: WaitingVisit | None,
        agenda: Agenda,
        *,
        trace: bool,
    ) -> None:
        """Start without turns; `number` is the execution id.

        `trace`: remember which signals it keeps.
        """
        self.number = number
        self.playbook = playbook
        self.parent = parent
        self.open: dict[Node, OpenJob] = {}
        self.answered: list[Job] = []
        self.children: list[SimulatedExecution] = []
        self.at = STORY_START  # of the last turn
        self.started_at = STORY_START if parent is None else parent.execution.at
        self._agenda = agenda
        self._waited_before = agenda.jumped
        self._waited = timedelta()
        self._session = Session(playbook, rules, execution_id=number, trace=trace)
        self._kept: set[int] = set()  # turns that read signals which no wait has taken
        self._turns: list[tuple[Event, Decision]] = []
        self._moments: list[datetime] = []
        self._leased: dict[Node, OpenJob] = {}
        self._delayed: set[Node] = set()  # jobs that wait for a retry
        self.cancelled: list[Node] = []  # draining jobs that the last turn cancelled
        self._items: dict[tuple[str, int], list[JSON]] = {}

    @property
    def state(self) -> ExecutionState:
        """The state after the last turn."""
        return self._session.state

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.state.status == NEW or is_live(self.state.status)

    def apply(self, event: Event) -> Decision:
        """Take a turn, one second after the one before, or at the moment to which the clock jumped."""
        self.at = self._agenda.next_turn(self.at)
        running = self.running
        decision = self._session.apply(event, self.at)
        if running and self._session.draft is not None:
            self._kept = {one.turn for one in self._session.draft.state.signals}
        self._turns.append((event, decision))
        self._moments.append(self.at)
        self._waited = self._agenda.jumped - self._waited_before
        self._keep_items(event, decision)
        self._keep_jobs(decision)
        return decision

    @property
    def known(self) -> Known:
        """What its turns made known."""
        return self._session.known

    def failures_of_undo(self) -> int:
        """The number of the last failed attempt of the undo that runs."""
        current = None if self.state.compensation is None else self.state.compensation.current
        return 0 if current is None else current.first - 1 + current.failures

    def failures(self, step: str, visit: int, index: int | None = None) -> int:
        """The failed attempts of a visit, or of an item."""
        if index is not None:
            stands = self._session.known.answers.get(want_item_status(step, visit, index))
            return stands.failures if isinstance(stands, ItemState) else 0
        token = self.state.tokens.get((step, visit))
        return 0 if token is None else token.failures

    def item_results(self, step: str, visit: int) -> list[JSON]:
        """The results of an iterator by index; null where an item failed."""
        return self._items.get((step, visit), [])

    def lease(self, node: Node) -> Job:
        """Take an open job to answer it."""
        opened = self._leased[node] = self.open.pop(node)
        opened.attempts += 1
        queued, ids = opened.job, {"path": self.playbook.path, "execution_id": self.number}
        action = readable(queued.action)
        inputs = action.get(word_of_inputs(action))
        job = Job(
            step=node[0],
            type=queued.node_type,
            args=inputs if isinstance(inputs, dict) else {},
            visit=queued.visit,
            attempt=opened.attempts,
            item_index=queued.item_index,
            path=self.playbook.path,
            execution_id=self.number,
            action=action,
            context={**queued.context, **ids, "workload": self.workload()},
        )
        self.answered.append(job)
        return job

    def open_child_job(self, child: ChildStarted) -> None:
        """Open a job in place of a child, because the test answers the step that calls it."""
        step = self.playbook.steps[child.step]
        priority = next(p for p in (step.priority, self.playbook.priority, DEFAULT_PRIORITY) if p is not None)
        action: dict[str, JSON] = {"path": child.path, "version": child.version, "args": child.payload}
        queued = JobRow(
            child.step,
            child.visit,
            "playbook",
            0,
            action,
            {},
            priority,
            max_attempts=1,
            timeout=self.timeout_of_call(child),
            item_index=child.item_index,
        )
        earlier = child.meta["parent"]["attempt"] - 1
        queued = queued._replace(undo=child.undo)
        self.open[node_of(queued)] = OpenJob(job=queued, attempts=earlier)

    def timeout_of_call(self, child: ChildStarted) -> float | None:
        """The time limit of the visit that starts a child."""
        jobs = (job for _, decision in reversed(self._turns) for job in decision.jobs)
        node = (child.step, child.visit, child.item_index)
        return next((job.timeout for job in jobs if (job.step, job.visit, job.item_index) == node), None)

    def signals_taken(self) -> Iterator[int]:
        """The numbers of the signals that its waits took: signals that it read before its end and does not keep."""
        for turn, (event, decision) in enumerate(self._turns, 1):
            if event.type == EXECUTION_SIGNAL and decision.outcome == DECIDED and turn not in self._kept:
                yield event.context["signal_id"]

    def story(self) -> Story:
        """The story so far."""
        ended = next((decision.ended for _, decision in self._turns if decision.ended is not None), None)
        return Story(
            path=self.playbook.path,
            status=self.state.status,
            result=None if ended is None else ended.result,
            error=None if ended is None else ended.error,
            workload=self.workload(),
            steps=visits_of(self._turns, self._moments, ended=ended is not None),
            waited=self._waited,
            jobs=tuple(self.answered),
            children=tuple(child.story() for child in self.children),
            text=format_story(self._turns, attempts=False),
        )

    def workload(self) -> dict[str, Any]:
        """Its workload."""
        workload = self._session.known.answers.get(WORKLOAD)
        return workload if isinstance(workload, dict) else {}

    def _keep_items(self, event: Event, decision: Decision) -> None:
        for items in decision.of(ItemsChosen):
            self._items[items.step, items.visit] = [None] * len(items.values)
        for end in decision.of(ItemEnded):
            if end.status == "COMPLETED":
                result = event.result if end.result_at is None else decision.events[end.result_at].result
                self._items[end.step, end.visit][end.item_index] = unwrap(result)

    def _keep_jobs(self, decision: Decision) -> None:
        stops = stops_of(decision)
        over = {node for node in {*self.open, *self._delayed} if is_stopped(stops, node)}
        self.cancelled = sorted(node for node in over if node[:2] in stops.draining)
        self.open = {node: job for node, job in self.open.items() if node not in over}
        self._delayed -= over
        for job in decision.jobs:
            if not job.delegated and (job.undo or not stops.visit(job.step, job.visit)):
                self.open[node_of(job)] = OpenJob(job=job)
            elif not job.delegated and job.item_index is not None and (job.step, job.visit) in stops.draining:
                self.cancelled.append(node_of(job))

    def delay(self, node: Node) -> None:
        """Note that a job waits for a retry."""
        self._delayed.add(node)

    def timeout_of(self, node: Node) -> float | None:
        """The seconds that an attempt of a leased job may take."""
        return self._leased[node].job.timeout

    def reopen(self, node: Node) -> None:
        """Open a job again, for another attempt."""
        self._delayed.discard(node)
        self.open[node] = OpenJob(job=self._leased[node].job, attempts=self._leased[node].attempts)
