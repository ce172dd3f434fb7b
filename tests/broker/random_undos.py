"""Random executions with undos: a small store and workers that fail, lose leases, answer late and twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any

from noetl_broker.broker.core import Session
from noetl_broker.broker.model.decision import Decision
from noetl_broker.broker.model.effects import ChildStarted, ChildUndone, EventPosted, JobChanged
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.stops import Stops, stops_of
from noetl_broker.broker.state.state import COMPENSATING, is_live
from noetl_broker.history.story import STORY_START
from noetl_broker.playbook.model import Playbook
from tests.stories import playbook

Node = tuple[str, int, int | None]
MOST_EVENTS = 500
LATER = (False, True, False)  # undos that are asked for after the end: whether also of what is unknown


def random_workflow(random: Random) -> str:
    """Return a workflow of a few steps that may be undone: branches, a join, a loop, items, children."""
    names = ["a", "b", "c", "d"][: random.randint(2, 4)]
    fan_out = random.random() < 0.6
    lines = [f"- {{step: start, next: [{', '.join(names if fan_out else names[:1])}]}}"]
    for index, name in enumerate(names):
        after = "j" if fan_out or index == len(names) - 1 else names[index + 1]
        lines.append(f"- {{step: {name}, {_action(random)}, next: {_next(random, name, after)}}}")
    join = random.choice(["", ", join: any", ", join: {need: 1, losers: cancel}"])
    lines.append(f"- {{step: j, {_action(random)}{join if fan_out else ''}, next: end}}")
    lines.append("- {step: end}")
    return "\n".join(["workflow:", *lines])


def _next(random: Random, name: str, after: str) -> str:
    kind = random.random()
    if kind < 0.1:
        return '[{when: "{{ 1 / 0 }}", step: j}]'  # fails after the success
    if kind < 0.25:
        return f'[{{when: "{{{{ result == 1 }}}}", step: {name}}}, {{else: [{after}]}}]'
    return after


def _action(random: Random) -> str:
    undo = f", compensate: {{type: http, args: {{got: '{{{{ result }}}}'}}{_retry(random)}}}"
    own = undo if random.random() < 0.7 else ""
    kind = random.random()
    on_error = random.choice(["", "", ", on_error: continue"])
    if kind < 0.2:
        return f"type: playbook, path: child{own}{on_error}"
    if kind < 0.45:
        task = "{type: playbook, path: child}" if random.random() < 0.3 else f"{{type: http{undo}}}"
        items = f"collection: [1, 2, 3], element: item, mode: async, concurrency: {random.randint(1, 3)}"
        return f"type: iterator, {items}, task: {task}{own}{on_error}"
    return f"type: http{own}{on_error}{_retry(random)}"


def _retry(random: Random) -> str:
    return random.choice(["", "", ", retry: {max_attempts: 2, jitter: false}"])


@dataclass(slots=True)
class Job:
    """A job as the store has it: how many leases it had, and whether a worker has it now.

    `stopped`: nobody wants the answer of an undo. `again`: then it is queued.
    """

    attempts: int = 0
    leased: bool = False
    stopped: bool = False
    again: bool = False


@dataclass(slots=True)
class World:
    """An execution with its jobs and children, and what really happened."""

    random: Random
    playbook: Playbook
    session: Session
    jobs: dict[Node, Job] = field(default_factory=dict)
    undos: dict[Node, Job] = field(default_factory=dict)
    undo_leases: dict[Node, int] = field(default_factory=dict)
    children: dict[Node, int] = field(default_factory=dict)  # that run, with the number of the start
    cancelled: set[Node] = field(default_factory=set)  # children that were told to end
    draining: set[tuple[str, int]] = field(default_factory=set)
    mail: list[Event] = field(default_factory=list)
    successes: dict[Node, int] = field(default_factory=dict)  # reported, with the turn that read the last one
    doubtful: set[Node] = field(default_factory=set)  # an attempt timed out or lost its lease
    started: list[tuple[Node, int]] = field(default_factory=list)  # undos, with their turns
    done: list[Node] = field(default_factory=list)  # undos that really happened
    abandoned: bool = False
    later: int = 0  # how many undos were asked for after the end
    rounds: list[list[tuple[Node, int]]] = field(default_factory=list)  # what earlier undos started
    turns: int = 0
    log: list[str] = field(default_factory=list)

    # The store

    def read(self, event: Event) -> Decision:
        """Take a turn, and do what it decided."""
        self.turns += 1
        decision = self.session.apply(event, STORY_START + timedelta(seconds=self.turns))
        what = f"{event.type} {event.step}#{event.visit}.{event.item_index} {event.undo} {event.error}"
        events = [(one.type, one.step, one.visit) for one in decision.events]
        self.log.append(f"{self.turns} {what} -> {decision.outcome} {events}")
        self._write(decision)
        return decision

    def _write(self, decision: Decision) -> None:
        stops = stops_of(decision)
        self.draining.update(stops.draining)
        for job in decision.jobs:
            if job.undo:
                self._queue_undo((job.step, job.visit, job.item_index), delegated=job.delegated)
            elif not job.delegated:
                self.jobs[job.step, job.visit, job.item_index] = Job()
        for child in decision.of(ChildStarted):
            node = child.step, child.visit, child.item_index
            self.children[node] = child.meta["parent"]["attempt"]
            self.cancelled.discard(node)
        compensation = self.session.state.compensation
        for asked in decision.of(ChildUndone):
            if compensation is not None and compensation.current is not None:
                self.undos[compensation.current[:3]] = Job(leased=True, attempts=asked.context["answer"])
        for change in decision.of(JobChanged):
            node = change.step, change.visit, change.item_index
            jobs = self.undos if change.undo else self.jobs
            if node not in jobs:
                continue
            if change.status == "retry":
                jobs[node].leased = False
            elif change.status in {"dead", "done"}:
                del jobs[node]
        self._close(stops)
        self.mail += [
            Event(post.type, post.step, post.visit, [0, 0, 0], settled=False) for post in decision.of(EventPosted)
        ]

    def _queue_undo(self, node: Node, *, delegated: bool) -> None:
        """Queue an undo. One that an abandoned undo has leased is queued when that lease ends."""
        self.started.append((node, self.turns))
        before = self.undos.get(node)
        if before is not None and before.leased and not delegated:
            before.again = True
        else:
            self.undos[node] = Job(attempts=self.undo_leases.get(node, 0))

    def _close(self, stops: Stops) -> None:
        """Cancel jobs, and tell children to end."""
        for node in [node for node in self.undos if stops.job(*node, undo=True)]:
            if self.undos[node].leased:
                self.undos[node].stopped = True
            else:
                del self.undos[node]
        for node in [node for node in self.jobs if stops.job(*node, undo=False)]:
            draining = node[:2] in self.draining
            if not self.jobs[node].leased:
                attempt = self.jobs.pop(node).attempts + 1  # which no lease had
                if draining:
                    error = {"message": "cancelled", "type": "cancelled"}
                    self.mail.append(
                        Event(
                            "action_failed",
                            *node[:2],
                            error=error,
                            item_index=node[2],
                            attempt=attempt,
                            retryable=False,
                        )
                    )
            elif not draining:
                del self.jobs[node]  # its worker is told to stop, and its answer is refused
        for node in self.children:
            if stops.child(*node, undo=False):
                self.cancelled.add(node)

    # What may happen next

    def choices(self) -> Iterator[Any]:
        """The things that may happen now, as functions."""
        if self.mail:
            yield lambda: self._read_mail(self.mail.pop(self.random.randrange(len(self.mail))))
        for node, job in self.jobs.items():
            yield lambda node=node, job=job: self._work(node, job)
        for node, job in self.undos.items():
            yield lambda node=node, job=job: self._undo(node, job)
        for node in self.children:
            yield lambda node=node: self._end_child(node)

    def _read_mail(self, event: Event) -> None:
        node = event.step or "", event.visit or 1, None
        if event.type == "iterator_completed" and self.is_to_be_undone(node) and node[:2] in self.session.state.tokens:
            self.successes[node] = self.turns + 1
        self.read(event)

    def _work(self, node: Node, job: Job) -> None:
        if not job.leased:
            job.leased, job.attempts = True, job.attempts + 1
            return
        step, visit, index = node
        kind = self.random.random()
        event = Event(
            "action_completed", step, visit, self.random.choice([1, 2, 3]), attempt=job.attempts, item_index=index
        )
        if kind < 0.6:
            del self.jobs[node]
            self._succeed(node, event)
        elif kind < 0.65 and node[:2] not in self.draining and index is None:
            del self.jobs[node]
            self.jobs[node] = job  # the worker keeps it until a retry or an end
            self._succeed(node, event._replace(result=None, bytes_over=3_000_000))
        elif kind < 0.85:
            error = {"message": "no"}
            if self.random.random() < 0.3:
                error["type"] = "timeout"
                self.doubtful.add(node)
            self.read(event._replace(type="action_failed", result=None, error=error))
            if node[:2] in self.draining:
                self.jobs.pop(node, None)
        else:
            self.doubtful.add(node)
            job.leased = False
            if node[:2] in self.draining:  # a lost lease is final at once
                del self.jobs[node]
                error = {"message": "lost", "type": "lost_lease"}
                self.read(event._replace(type="action_failed", result=None, error=error, retryable=False))

    def _succeed(self, node: Node, event: Event) -> None:
        if self.is_to_be_undone(node) and not self.abandoned:
            assert is_live(self.session.state.status), f"{node} succeeded after the end"
            self.successes[node] = self.turns + 1
        self.read(event)
        if self.random.random() < 0.2:
            self.read(event)  # doubled

    def is_to_be_undone(self, node: Node, *, child: bool = False) -> bool:
        """Whether the visit or item has a `compensate`, or its child has something to undo."""
        step = self.playbook.steps[node[0]]
        holder = step.iteration.task if node[2] is not None and step.iteration is not None else step
        return holder.compensate is not None or child

    def _end_child(self, node: Node) -> None:
        step, visit, index = node
        attempt, kind = self.children.pop(node), self.random.random()
        completed, failed = (
            ("action_completed", "action_failed") if index is None else ("execution_complete", "execution_failed")
        )
        meta: dict[str, Any] = {"child_execution_id": 70 + attempt}
        if kind < 0.6:
            undo = self.random.random() < 0.5
            if undo:
                meta["undo"] = True
            event = Event(completed, step, visit, 2, attempt=attempt, meta=meta, item_index=index, settled=False)
            if self.is_to_be_undone(node, child=undo) and is_live(self.session.state.status):
                self.successes[node] = self.turns + 1
            self.read(event)
            return
        error = {"message": "child", "type": "child_failed"}
        retryable = node not in self.cancelled
        self.read(
            Event(
                failed,
                step,
                visit,
                None,
                error,
                attempt=attempt,
                meta=meta,
                item_index=index,
                settled=False,
                retryable=retryable,
            )
        )

    def undo_later(self) -> None:
        """Ask the ended execution to undo what is left; sometimes while it does so."""
        if self.session.state.compensation is None:
            self.rounds.append(self.started)
            self.started = []
        context: dict[str, Any] = {"unknown": LATER[self.later], "error": {"message": "later"}}
        self.later += 1
        if self.random.random() < 0.3:
            context["answer"] = self.later
        self.read(Event("execution_undo", context=context))

    def _undo(self, node: Node, job: Job) -> None:
        step, visit, index = node
        if not job.leased:
            job.leased, job.attempts = True, job.attempts + 1
            self.undo_leases[node] = job.attempts
            return
        del self.undos[node]
        event = Event("action_completed", step, visit, None, attempt=job.attempts, item_index=index, undo=True)
        if self.random.random() < 0.85:
            self.done.append(node)
            self.read(event)
            if self.random.random() < 0.3:
                self.read(event)
            return
        failed = event._replace(type="action_failed", error={"message": "gone"})
        if job.again:
            self.undos[node] = Job(attempts=job.attempts)
            self.read(failed._replace(stale=True))
        else:
            if not job.stopped:
                self.undos[node] = job
            self.read(failed)


def run(seed: int) -> World:
    """Run a random execution to its end."""
    random = Random(seed)
    text = random_workflow(random)
    book = playbook(text, metadata="deadline: 60, max_visits: 20")
    world = World(random, book, Session(book))
    world.log.append(text)
    world.read(Event("execution_start", context={"workload": {}}))
    fault = random.random()
    when = random.randint(2, 14)
    for number in range(MOST_EVENTS):
        if number == when and fault < 0.5:
            world.read(Event("execution_cancel" if fault < 0.3 else "execution_deadline"))
        if number == 2 * when and fault < 0.05 and world.session.state.status == COMPENSATING:
            world.abandoned = True
            world.read(Event("execution_abandon"))
        if world.later and world.session.state.compensation is not None and random.random() < 0.05:
            world.read(Event("execution_abandon"))
        choices = [*world.choices()]
        if choices and (world.later == len(LATER) or random.random() < 0.98):
            random.choice(choices)()
        elif is_live(world.session.state.status) or world.later == len(LATER):
            if not choices:
                return world
        else:
            world.undo_later()
    raise AssertionError("it does not end")
