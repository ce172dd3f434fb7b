"""Plays a playbook to its end: the core decides, answers come from a test, and what is due is taken in a fixed order.

What executions write to each other and to themselves is read first, in the order of its writing; when there is none,
the most urgent job is answered, of equals the oldest. No time passes: the pause before another attempt is told and not
waited for, and no `timeout` and no `deadline` ever runs out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from noetl_broker.broker.children import error_of_child
from noetl_broker.broker.model import (
    ACTION_COMPLETED,
    ACTION_FAILED,
    CHILD_DUE,
    EXECUTION_CANCEL,
    EXECUTION_START,
    ITEM_COMPLETED,
    ITEM_FAILED,
    ITERATOR_COMPLETED,
    JSON,
    Child,
    Decision,
    Ended,
    Event,
    Rules,
    as_stored,
)
from noetl_broker.job import Job
from noetl_broker.playbook import Playbook, PlaybookError, compile_playbook
from noetl_broker.playbook import Rules as PlaybookRules
from noetl_broker.simulation.answers import Answer, Answers, Said, SimulationFault, as_json
from noetl_broker.simulation.execution import Execution, Node, Parent
from noetl_broker.simulation.told import Story
from noetl_broker.template import wrap

MOST_TURNS = 100_000
Source = str | Path | Playbook  # the text of a playbook, the file that it stands in, or what was compiled of it


def simulate(
    playbook: Source,
    answers: Mapping[str, Answer] | None = None,
    *,
    payload: Mapping[str, Any] | None = None,
    playbooks: Iterable[Source] = (),
    rules: Rules | None = None,
    extra_step_types: Iterable[str] = (),
) -> Story:
    """Play one execution of a playbook, with the executions that it starts, and give its story.

    `answers` say by the name of a step (or `path:step`) what its jobs answer: a JSON value, an exception, `in_turn(…)`
    of such, or a function that is given the `Job`. A step that calls a playbook plays that one, out of `playbooks`,
    unless it has an answer of its own. Raises PlaybookError where a playbook is wrong, and SimulationFault where an
    answer or a playbook is not there.
    """
    known = PlaybookRules(extra_step_types=frozenset(extra_step_types))
    first = compiled(playbook, known)
    family = {one.path: one for one in (compiled(source, known) for source in playbooks)} | {first.path: first}
    _refuse_strangers(answers or {}, family)
    simulation = Simulation(family, Answers(answers or {}), rules or Rules())
    return simulation.play(first, dict(payload or {})).story()


def compiled(source: Source, rules: PlaybookRules) -> Playbook:
    """The playbook that a source says; raises PlaybookError, or SimulationFault for a file that cannot be read."""
    if isinstance(source, Playbook):
        return source
    if isinstance(source, str):
        if "\n" not in source.strip() and not source.lstrip().startswith("{"):
            raise SimulationFault(f"{source!r} is no playbook: give its text, or its file as pathlib.Path({source!r})")
        return compile_playbook(source, file="<text>", rules=rules)
    try:
        return compile_playbook(source.read_bytes(), file=str(source), rules=rules)
    except OSError as error:
        raise SimulationFault(f"the playbook {source} cannot be read: {error}") from error


def _refuse_strangers(answers: Mapping[str, Answer], family: Mapping[str, Playbook]) -> None:
    """A name with a mistake in it would otherwise show as an answer that is missing, or not at all."""
    names = {name for playbook in family.values() for name in playbook.steps}
    full = {f"{path}:{name}" for path, playbook in family.items() for name in playbook.steps}
    for key in answers:
        if key not in names | full:
            near = get_close_matches(key, names, n=1)
            meant = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(sorted(names))}"
            raise SimulationFault(f"answers[{key!r}]: no step is called so; {meant}")


class Simulation:
    """A family of executions under way: what they have to read, and the jobs that are open."""

    def __init__(self, family: Mapping[str, Playbook], answers: Answers, rules: Rules) -> None:
        self.family = family
        self.answers = answers
        self.rules = rules
        self.mail: deque[tuple[Execution, Event]] = deque()
        self.executions: list[Execution] = []
        self.turns = 0

    def play(self, playbook: Playbook, payload: dict[str, JSON]) -> Execution:
        """Start the first execution and go on until nothing moves."""
        payload = as_json(payload, Job(step=playbook.path, type="payload"))
        first = self.begin(playbook, Event(EXECUTION_START, context={"workload": payload}))
        while self.mail or (due := self._next_job()) is not None:
            if self.mail:
                self.read(*self.mail.popleft())
            elif due is not None:
                self.work(*due)
        return first

    def begin(self, playbook: Playbook, start: Event, parent: Parent | None = None) -> Execution:
        """One more execution, with its start to be read."""
        execution = Execution(len(self.executions) + 1, playbook, self.rules, parent)
        self.executions.append(execution)
        self.mail.append((execution, start))
        return execution

    def read(self, execution: Execution, event: Event) -> None:
        """One turn, and what it asks for."""
        self.turns += 1
        if self.turns > MOST_TURNS:
            path = self.executions[0].playbook.path
            raise SimulationFault(f"the simulation of {path} does not end in {MOST_TURNS} turns")
        decision = execution.take(event)
        for change in decision.changes:
            if change.status == "delegated":  # a child is started again: the pause is over at once
                attempt = execution.failures(change.step, change.visit) + 1
                due = Event(CHILD_DUE, change.step, change.visit, attempt=attempt, settled=False)
                self.mail.append((execution, due))
        for child in decision.children:
            if not decision.gives_up(child.step, child.visit):
                self._start_child(execution, child)
        for post in decision.posts:
            result = execution.gathered(post.step, post.visit) if post.type == ITERATOR_COMPLETED else None
            self.mail.append((execution, Event(post.type, post.step, post.visit, result, settled=False)))
        self._cancel_children(execution, decision)
        if decision.ended is not None:
            self._answer_parent(execution, decision.ended)

    def _next_job(self) -> tuple[Execution, Node] | None:
        """The most urgent open job, of equals the oldest."""
        due = [(*job.rank, execution, node) for execution in self.executions for node, job in execution.open.items()]
        return min(due, key=lambda one: one[:2])[2:] if due else None

    def work(self, execution: Execution, node: Node) -> None:
        """Let the test answer a job."""
        job = execution.lease(node)
        said = self.answers.say(job)
        if job.type == "playbook":  # the answer stands for that of a child
            said = said._replace(result=wrap(said.result))
            self._tell_parent(Parent(execution, *node), said, job.attempt, 0)
            return
        event = Event(
            ACTION_COMPLETED if said.error is None else ACTION_FAILED,
            job.step,
            job.visit,
            said.result,
            said.error,
            attempt=job.attempt,
            retryable=said.retryable,
            place=job.place,
        )
        self.mail.append((execution, event))

    def _start_child(self, parent: Execution, child: Child) -> None:
        """Start the playbook that a step calls; where the step has an answer, that one stands for it."""
        if self.answers.key_of(parent.playbook.path, child.step) is not None:
            parent.call(child)
            return
        playbook = self.family.get(child.path)
        if playbook is None:
            raise SimulationFault(
                f"step {child.step} of {parent.playbook.path} calls {child.path}, which the simulation does not have; "
                f"give it in playbooks=[…], or give the step an answer: answers={{{child.step!r}: …}}"
            )
        start = Event(EXECUTION_START, context={"workload": as_stored(child.payload)}, meta=child.meta)
        waiting = Parent(parent, child.step, child.visit, child.place)
        parent.children.append(self.begin(playbook, start, waiting))

    def _answer_parent(self, child: Execution, ended: Ended) -> None:
        parent = child.state.parent
        if child.parent is None or parent is None:
            return
        completed = ended.status == "COMPLETED"
        error = None if completed else error_of_child(child.number, ended)
        said = Said(ended.answer, error, retryable=ended.status != "CANCELLED")
        self._tell_parent(child.parent, said, parent.attempt, child.number)

    def _tell_parent(self, parent: Parent, said: Said, attempt: int, child: int) -> None:
        """The letter of a child: a step's only child answers as its action, one of many as itself."""
        completed, failed = (ACTION_COMPLETED, ACTION_FAILED) if parent.place is None else (ITEM_COMPLETED, ITEM_FAILED)
        event = Event(
            completed if said.error is None else failed,
            parent.step,
            parent.visit,
            said.result,
            said.error,
            attempt=attempt,
            retryable=said.retryable,
            settled=False,
            meta={"child_execution_id": child},
            place=parent.place,
        )
        self.mail.append((parent.execution, event))

    def _cancel_children(self, execution: Execution, decision: Decision) -> None:
        """The children of an execution that ended, and of visits that gave them up, are not wanted any more."""
        for child in execution.children:
            parent = child.parent
            if child.running and parent is not None and decision.gives_up(parent.step, parent.visit):
                self.mail.append((child, Event(EXECUTION_CANCEL, context={"reason": "its parent ended or gave it up"})))


__all__ = ["PlaybookError", "Source", "compiled", "simulate"]
