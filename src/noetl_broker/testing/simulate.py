"""Simulates an execution to its end, in a fixed order: the core decides, and a test answers the jobs.

Unread events come first, in the order in which they were written. Without any, the job with the highest priority is
answered, the oldest of equals. With neither, the clock jumps to what comes next: a timer, the end of a delay, an answer
that takes time, a `timeout` or a `deadline`.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from noetl_broker.broker.flow import on_failure
from noetl_broker.broker.flow.late import LATE, is_late_event
from noetl_broker.broker.model.decision import Decision, ExecutionEnd
from noetl_broker.broker.model.effects import (
    ChildStarted,
    ChildUndone,
    EventPosted,
    ExecutionBegun,
    JobChanged,
    LateTimerEnded,
    OnFailureStart,
    ReportedLate,
    SignalSent,
    StatusChanged,
    TimerSet,
    UndoEnded,
    WaitOpened,
    WaitReopened,
)
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.event_types import (
    ACTION_COMPLETED,
    ACTION_FAILED,
    APPROVAL_DECIDED,
    CHILD_DUE,
    EXECUTION_CANCEL,
    EXECUTION_DEADLINE,
    EXECUTION_RESUME,
    EXECUTION_START,
    EXECUTION_UNDO,
    ITEM_COMPLETED,
    ITEM_FAILED,
    ITERATOR_COMPLETED,
    TIMER_DUE,
)
from noetl_broker.broker.model.rules import Rules
from noetl_broker.broker.model.stops import Stops, stops_of
from noetl_broker.broker.model.values import JSON, as_stored
from noetl_broker.broker.state.state import PAUSED
from noetl_broker.broker.work.children import error_of_child
from noetl_broker.history.record import Node
from noetl_broker.history.story import STORY_START
from noetl_broker.job import Job
from noetl_broker.node_ids import MARK, UNDO_SUFFIX
from noetl_broker.playbook import Playbook, PlaybookRules, compile_new
from noetl_broker.playbook.blocks import all_blocks, dotted
from noetl_broker.playbook.keywords import SIGNAL
from noetl_broker.template import wrap
from noetl_broker.template.durations import after, moment_text
from noetl_broker.testing.agenda import Agenda
from noetl_broker.testing.answers import Answer, Answers, JobOutcome, SimulationFault, as_json, names_of
from noetl_broker.testing.approvals import Approvals, Verdict
from noetl_broker.testing.execution import SimulatedExecution, WaitingVisit
from noetl_broker.testing.pauses import GivenPause, event_for_children, pauses_of
from noetl_broker.testing.result import Story
from noetl_broker.testing.signals import GivenSignal, Sent, Signals, signals_of
from noetl_broker.testing.undo import cancelled_event, is_named, node_of_change, undone_step

MOST_TURNS = 100_000
ENDS_OF_CHILD = {True: (ACTION_COMPLETED, ACTION_FAILED), False: (ITEM_COMPLETED, ITEM_FAILED)}  # by: of one action
TIMED_OUT = "timeout: the action ran longer than {:g} s"
Source = str | Path | Playbook  # the text of a playbook, its file, or the compiled playbook


def simulate(  # noqa: PLR0913 - keywords of a test
    playbook: Source,
    answers: Mapping[str, Answer] | None = None,
    *,
    payload: Mapping[str, Any] | None = None,
    playbooks: Iterable[Source] = (),
    rules: Rules | None = None,
    extra_step_types: Iterable[str] = (),
    approvals: Mapping[str, Verdict] | None = None,
    signals: Sequence[Mapping[str, Any]] = (),
    pauses: Sequence[Mapping[str, Any]] = (),
    most_turns: int = MOST_TURNS,
) -> Story:
    """Simulate one execution of a playbook and its children; gives the story.

    `answers` maps a step to the answer of its jobs. The step may be `path:step`, or `pay.charge` in the block of `pay`.
    `charge!undo` answers the jobs that undo `charge`. An answer is a JSON value, an exception, `in_turn(…)` of these,
    or a function of the `Job`. A step that calls a playbook runs that one from `playbooks`, unless the step has an
    answer. `approvals` maps a step to a decision: True, False, or None (nobody decides). A decision may also be a
    mapping with `approved`, `by` and the fields of the form. `delayed(…)` and `in_turn(…)` take these, too; a function
    gets what the approval shows. `signals` lists the signals to send: mappings with `name`, and perhaps `key` (default:
    the first execution), `payload`, and `after` or `before` (a duration from the start). `pauses` lists the pauses of
    the first execution: mappings with perhaps `after` (a duration from the start), `for` (a duration; without it nobody
    resumes it) and `reason`. Raises PlaybookError, with its findings, for a playbook that `register` refuses.
    Raises SimulationFault for a missing answer or playbook, and for more than `most_turns` turns.
    """
    known = PlaybookRules(extra_step_types=frozenset(extra_step_types))
    first = compiled(playbook, known)
    family = {
        one.path: one
        for outer in (*(compiled(source, known) for source in playbooks), first)
        for one in (outer, *all_blocks(outer))
    }
    _check_names("answers", answers or {}, family)
    _check_names("approvals", approvals or {}, family)
    simulation = Simulation(family, Answers(answers or {}), rules or Rules(), Approvals(approvals or {}), most_turns)
    story = simulation.run(first, dict(payload or {}), signals_of(signals), pauses_of(pauses)).story()
    return replace(story, text="\n".join((story.text, *simulation.untaken_signals())))


def compiled(source: Source, rules: PlaybookRules) -> Playbook:
    """The compiled playbook. Raises PlaybookError, or SimulationFault for a file that cannot be read."""
    if isinstance(source, Playbook):
        return source
    if isinstance(source, str):
        if "\n" not in source.strip() and not source.lstrip().startswith("{"):
            raise SimulationFault(
                f"{source!r} is not a playbook: pass its text, or its file as pathlib.Path({source!r})"
            )
        return compile_new(source, file="<text>", rules=rules)
    try:
        return compile_new(source.read_bytes(), file=str(source), rules=rules)
    except OSError as error:
        raise SimulationFault(f"the playbook {source} cannot be read: {error}") from error


def _check_names(argument: str, answers: Mapping[str, Answer], family: Mapping[str, Playbook]) -> None:
    """Raise SimulationFault for an answer or a decision whose step does not exist: it is probably misspelled."""
    steps = [
        (path, name + suffix)
        for path, playbook in family.items()
        for name, step in playbook.steps.items()
        for suffix in ("", UNDO_SUFFIX)[: 1 + step.has_compensate]
    ]
    names = {dotted(path, name) for path, name in steps}
    known = {name for path, step in steps for name in names_of(path, step)}
    for key in answers:
        if key not in known:
            near = get_close_matches(key, names, n=1)
            meant = f'did you mean "{near[0]}"?' if near else f"the steps are {', '.join(sorted(names))}"
            raise SimulationFault(f"{argument}[{key!r}]: there is no such step; {meant}")


def _limits_of(decision: Decision) -> tuple[float | None, float | None]:
    """The seconds until the deadline, and until the execution is late, that begin in this turn."""
    begins = decision.last(ExecutionBegun) or decision.last(StatusChanged) or ExecutionBegun({})
    return begins.deadline, begins.late_after


class Simulation:
    """An execution with its children: their unread events and their open jobs."""

    def __init__(
        self,
        family: Mapping[str, Playbook],
        answers: Answers,
        rules: Rules,
        approvals: Approvals | None = None,
        most_turns: int = MOST_TURNS,
    ) -> None:
        self.family = family
        self.answers = answers
        self.approvals = approvals or Approvals({})
        self.rules = rules
        self.mail: deque[tuple[SimulatedExecution, Event]] = deque()
        self.executions: list[SimulatedExecution] = []
        self.turns = 0
        self.most_turns = most_turns
        self.agenda = Agenda()
        self.signals = Signals()
        self.traces = False

    def run(
        self,
        playbook: Playbook,
        payload: dict[str, JSON],
        signals: Iterable[GivenSignal] = (),
        pauses: Iterable[GivenPause] = (),
    ) -> SimulatedExecution:
        """Start the first execution and continue until nothing is left to do."""
        payload = as_json(payload, Job(step=playbook.path, type="payload"))
        signals = [*signals]
        self.traces = bool(signals)
        first = self._begin(playbook, Event(EXECUTION_START, context={"workload": payload}))
        for given in signals:
            self._give_signal(given, first)
        for pause in pauses:
            self._pause(pause, first)
        while True:
            if self.mail:
                self._read(*self.mail.popleft())
            elif (due := self._next_job()) is not None:
                self._answer_job(*due)
            elif not self.agenda.advance():
                return first

    def _begin(self, playbook: Playbook, start: Event, parent: WaitingVisit | None = None) -> SimulatedExecution:
        """Add an execution, with its start unread."""
        number = len(self.executions) + 1
        execution = SimulatedExecution(number, playbook, self.rules, parent, self.agenda, trace=self.traces)
        self.executions.append(execution)
        self.mail.append((execution, start))
        return execution

    def _read(self, execution: SimulatedExecution, event: Event) -> None:
        """Take a turn and do what it decided."""
        self.turns += 1
        if self.turns > self.most_turns:
            path = self.executions[0].playbook.path
            raise SimulationFault(f"the simulation of {path} does not end in {self.most_turns} turns")
        decision = execution.apply(event)
        stops = stops_of(decision)
        self._plan(execution, decision, stops)
        self._match_signals(execution, decision, stops)
        for child in decision.of(ChildStarted):
            if child.undo or not stops.visit(child.step, child.visit):
                self._start_child(execution, child)
        self.mail.extend((execution, cancelled_event(node)) for node in execution.cancelled)
        for post in decision.of(EventPosted):
            result = execution.item_results(post.step, post.visit) if post.type == ITERATOR_COMPLETED else None
            self.mail.append((execution, Event(post.type, post.step, post.visit, result, settled=False)))
        self._cancel_children(execution, stops)
        for_children = event_for_children(execution.number, event, decision)
        if for_children is not None:
            self.mail.extend((child, for_children) for child in execution.children if child.running)
        self.mail.extend(
            (self.executions[one.child_execution_id - 1], Event(EXECUTION_UNDO, context=one.context))
            for one in decision.of(ChildUndone)
            if "answer" in one.context or not is_named(execution.known, one.child_execution_id)
        )
        ended = decision.ended or decision.last(UndoEnded)
        if ended is not None:
            self._answer_parent(execution, ended)
            self._start_alarm(execution, ended.on_failure, on_failure.KEY)
        for late in decision.of(ReportedLate):
            self._start_alarm(execution, late.starts, on_failure.LATE_KEY)

    def _plan(self, execution: SimulatedExecution, decision: Decision, stops: Stops) -> None:
        """Put on the agenda what the turn wants later; forget what nobody waits for any more."""
        for visit in stops.visits | stops.waits:
            if stops.timer(*visit):
                self.agenda.drop(execution.number, visit)
        if stops.execution:
            self.agenda.drop(execution.number)
            return
        if stops.all_work:  # what is draining, and undos, go on
            self.agenda.keep(execution.number, stops.draining)
        deadline, late_after = _limits_of(decision)
        if deadline is not None:
            self._send_at(after(execution.at, deadline), execution, Event(EXECUTION_DEADLINE))
        late = () if late_after is None else (TimerSet("", 1, LATE, after(execution.at, late_after)),)
        self._plan_timers(execution, (*late, *decision.of(TimerSet)))
        for ended in decision.of(LateTimerEnded):
            self.agenda.drop(execution.number, (ended.step + MARK, ended.visit))
        for wait in decision.of(WaitOpened):
            if wait.kind == "approval":
                self._decide_approval(execution, wait)
        for change in decision.of(JobChanged):
            self._plan_retry(execution, change)

    def _plan_timers(self, execution: SimulatedExecution, timers: tuple[TimerSet, ...]) -> None:
        for timer in timers:
            context = {"purpose": timer.purpose, "due_at": moment_text(timer.due)}
            self._send_at(timer.due, execution, Event(TIMER_DUE, timer.step or None, timer.visit, context=context))

    def _plan_retry(self, execution: SimulatedExecution, change: JobChanged) -> None:
        """Plan the next attempt of a job, or of the playbook that it starts."""
        moment = after(execution.at, change.delay)
        if change.status == "delegated":
            failures = (
                execution.failures_of_undo()
                if change.undo
                else execution.failures(change.step, change.visit, change.item_index)
            )
            due = Event(
                CHILD_DUE, change.step, change.visit, attempt=failures + 1, settled=False, item_index=change.item_index
            )
            self._send_at(moment, execution, due._replace(undo=change.undo))
        elif change.status == "retry":
            node = node_of_change(change)
            execution.delay(node)
            self.agenda.add(moment, partial(execution.reopen, node), execution=execution.number, node=node)

    def _pause(self, given: GivenPause, first: SimulatedExecution) -> None:
        """Pause an execution now, or when the moment comes; resume it later."""
        at = after(STORY_START, given.delay)
        if given.delay <= 0:
            self.mail.append((first, given.event))
        else:
            self._send_at(at, first, given.event)
        if given.seconds is not None:
            self._send_at(after(at, given.seconds), first, Event(EXECUTION_RESUME))

    def _give_signal(self, given: GivenSignal, first: SimulatedExecution) -> None:
        """Send a signal of the test: now, or when its moment comes."""
        at = STORY_START + timedelta(seconds=given.delay)
        sent = Sent(
            given.name, given.key if given.key is not None else str(first.number), given.payload, at, given=True
        )
        if given.delay <= 0:
            self.signals.send(sent)
        else:
            self.agenda.add(at, partial(self._send_signal, sent), execution=first.number)

    def _send_signal(self, sent: Sent) -> None:
        self.signals.send(sent)
        self._bring_signals()

    def untaken_signals(self) -> Iterator[str]:
        """A line for each signal of the test that no wait took."""
        for sent in self.signals.untaken(self.executions):
            payload = "" if sent.payload is None else f" {json.dumps(sent.payload, ensure_ascii=False)}"
            yield f"# no wait took signal {sent.name} {sent.key}{payload}"

    def _match_signals(self, execution: SimulatedExecution, decision: Decision, stops: Stops) -> None:
        """Keep the waits for signals as the turn left them, and bring them what fits."""
        number, own = execution.number, self.signals
        for wait in decision.of(WaitOpened):
            if wait.kind == SIGNAL:
                own.open(number, wait, execution.started_at)
        for visit in stops.waits:
            own.close(number, visit)
        for again in decision.of(WaitReopened):
            own.reopen(number, (again.step, again.visit))
        if decision.ended is not None:
            own.close(number)
        for sent in decision.of(SignalSent):
            own.send(Sent(sent.name, sent.key, sent.payload, execution.at))
        self._bring_signals()

    def _bring_signals(self) -> None:
        for number, event in self.signals.bring():
            self.mail.append((self.executions[number - 1], event))

    def _decide_approval(self, execution: SimulatedExecution, wait: WaitOpened) -> None:
        """Plan the decision of the test on an approval that began."""
        decided = self.approvals.decide(execution.playbook.path, wait.step, wait.details or {})
        if decided is not None:
            moment = after(execution.at, decided.after)
            context = {**decided.context, "at": moment_text(moment)}
            event = Event(APPROVAL_DECIDED, wait.step, wait.visit, context=context)
            self._send_at(moment, execution, event)

    def _send_at(self, moment: datetime, execution: SimulatedExecution, event: Event) -> None:
        """Send an event about a visit or the execution at a moment, unless the agenda drops it before."""
        node = (
            (event.step or "") + UNDO_SUFFIX * event.undo + MARK * is_late_event(event),
            event.visit or 0,
            event.item_index,
        )
        act = partial(self.mail.append, (execution, event))
        self.agenda.add(moment, act, execution=execution.number, node=node)

    def _next_job(self) -> tuple[SimulatedExecution, Node] | None:
        """The open job with the highest priority, the oldest of equals. Jobs of a paused execution are held."""
        due = [
            (*job.rank, execution, node)
            for execution in self.executions
            if execution.state.status != PAUSED
            for node, job in execution.open.items()
        ]
        return min(due, key=lambda one: one[:2])[2:] if due else None

    def _answer_job(self, execution: SimulatedExecution, node: Node) -> None:
        """Answer a job with the test's answer."""
        job, timeout = execution.lease(node), execution.timeout_of(node)
        outcome = self.answers.answer(job)
        if not outcome.after:
            self._send(execution, node, job, outcome)
        elif timeout is not None and timeout < outcome.after:
            message = TIMED_OUT.format(timeout)
            self._send_later(
                execution, node, job, JobOutcome(None, {"message": message, "type": "timeout"}, after=timeout)
            )
        else:
            self._send_later(execution, node, job, outcome)

    def _send_later(self, execution: SimulatedExecution, node: Node, job: Job, outcome: JobOutcome) -> None:
        moment = after(self.agenda.now, outcome.after)
        act = partial(self._send, execution, node, job, outcome)
        self.agenda.add(moment, act, execution=execution.number, node=node)

    def _send(self, execution: SimulatedExecution, node: Node, job: Job, outcome: JobOutcome) -> None:
        """Send the outcome of a job as an event."""
        if job.type == "playbook":  # the answer is that of a child
            outcome = outcome._replace(result=wrap(outcome.result))
            step, undo = undone_step(node[0])
            self._add_child_end(WaitingVisit(execution, step, *node[1:], undo=undo), outcome, job.attempt, 0)
            return
        step, undo = undone_step(job.step)
        event = Event(
            ACTION_COMPLETED if outcome.error is None else ACTION_FAILED,
            step,
            job.visit,
            outcome.result,
            outcome.error,
            attempt=job.attempt,
            retryable=outcome.retryable,
            item_index=job.item_index,
            undo=undo,
        )
        self.mail.append((execution, event))

    def _start_child(self, parent: SimulatedExecution, child: ChildStarted) -> None:
        """Start the playbook that a step calls, unless the step has an answer."""
        if self.answers.key_of(parent.playbook.path, child.step + UNDO_SUFFIX * child.undo) is not None:
            parent.open_child_job(child)
            return
        playbook = self.family.get(child.path)
        if playbook is None:
            raise SimulationFault(
                f"step {child.step} of {parent.playbook.path} calls {child.path}, which the simulation does not have; "
                f"add it to playbooks=[…], or answer the step: answers={{{child.step!r}: …}}"
            )
        start = Event(EXECUTION_START, context={"workload": as_stored(child.payload)}, meta=child.meta)
        waiting = WaitingVisit(parent, child.step, child.visit, child.item_index, child.undo)
        parent.children.append(self._begin(playbook, start, waiting))
        timeout = parent.timeout_of_call(child)
        if timeout is not None:
            error: dict[str, JSON] = {"message": TIMED_OUT.format(timeout), "type": "timeout"}
            attempt = child.meta["parent"]["attempt"]
            failed = Event(
                ACTION_FAILED, child.step, child.visit, error=error, attempt=attempt, item_index=child.item_index
            )
            self._send_at(after(parent.at, timeout), parent, failed._replace(undo=child.undo))

    def _answer_parent(self, child: SimulatedExecution, ended: ExecutionEnd | UndoEnded) -> None:
        """Answer the parent that waits for the end of a child, or of its undo."""
        parent = child.state.parent
        if child.parent is None or parent is None:
            return
        if isinstance(ended, UndoEnded):
            if ended.answer:
                failed = None if ended.error is None else ExecutionEnd("FAILED", error=ended.error)
                outcome = JobOutcome(None, failed and error_of_child(child.number, failed))
                self._add_child_end(child.parent._replace(undo=True), outcome, ended.answer, child.number)
            return
        completed = ended.status == "COMPLETED"
        error = None if completed else error_of_child(child.number, ended)
        outcome = JobOutcome(ended.answer, error, retryable=ended.status != "CANCELLED")
        self._add_child_end(child.parent, outcome, parent.attempt, child.number, undo=ended.undo)

    def _start_alarm(self, failed: SimulatedExecution, starts: OnFailureStart | None, key: str) -> None:
        """Start what the playbook of a failed or late execution names, if the simulation has it."""
        playbook = None if starts is None else self.family.get(starts.path)
        if starts is None or playbook is None:
            return
        context = {"workload": as_stored(starts.payload)}
        alarm = self._begin(playbook, Event(EXECUTION_START, context=context, meta={key: failed.number}))
        alarm.at = alarm.started_at = failed.at
        failed.children.append(alarm)

    def _add_child_end(
        self, parent: WaitingVisit, outcome: JobOutcome, attempt: int, child: int, *, undo: bool = False
    ) -> None:
        """Send the end of a child to its parent, as the end of an action or of an item.

        `undo`: the child has something to be undone.
        """
        if attempt > parent.execution.failures(parent.step, parent.visit, parent.item_index):  # else it comes too late
            self.agenda.drop(parent.execution.number, (parent.step, parent.visit), parent.item_index)  # its timeout
        completed, failed = ENDS_OF_CHILD[parent.item_index is None or parent.undo]
        event = Event(
            completed if outcome.error is None else failed,
            parent.step,
            parent.visit,
            outcome.result,
            outcome.error,
            attempt=attempt,
            retryable=outcome.retryable,
            settled=False,
            meta={"child_execution_id": child, "undo": True} if undo else {"child_execution_id": child},
            item_index=parent.item_index,
            undo=parent.undo,
        )
        self.mail.append((parent.execution, event))

    def _cancel_children(self, execution: SimulatedExecution, stops: Stops) -> None:
        """Cancel the children of an execution that ended, and of visits that cancelled them."""
        for child in execution.children:
            parent = child.parent
            if parent is None or not child.running:
                continue
            if stops.child(parent.step, parent.visit, parent.item_index, undo=parent.undo):
                self.mail.append(
                    (child, Event(EXECUTION_CANCEL, context={"reason": "its parent ended or cancelled it"}))
                )
