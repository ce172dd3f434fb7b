"""What came of a simulation: how it ended, what was visited with what, and the story as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from noetl_broker.broker.context import result_of
from noetl_broker.broker.model import ACTION_FAILED, JSON, Decision, Event
from noetl_broker.broker.story import tell_turn
from noetl_broker.job import Job
from noetl_broker.playbook.reads import word_of_inputs

ENDS = {"step_completed": "COMPLETED", "step_failed": "FAILED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One visit of a step, in the order in which they began.

    `inputs` are those of its job or of the playbook that it calls, empty where it has neither. `status` is COMPLETED,
    FAILED (also where `on_error: continue` went on, with `error`), or CANCELLED: the execution ended before it.
    """

    step: str
    visit: int = 1
    inputs: Mapping[str, Any] = field(default_factory=dict)
    status: str = "RUNNING"
    result: JSON = None
    error: JSON = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One execution from its start to its end; `str()` of it is the story, which a test of the core can play.

    `status` is COMPLETED, FAILED or CANCELLED, or RUNNING where it waits for what a simulation has not. `jobs` are all
    attempts in the order in which they were answered, `children` the executions that it started.
    """

    path: str
    status: str
    result: JSON
    error: JSON
    workload: Mapping[str, Any]
    steps: tuple[Visit, ...] = field(repr=False)
    jobs: tuple[Job, ...] = field(repr=False)
    children: tuple[Story, ...] = field(repr=False)
    text: str = field(repr=False)

    def __str__(self) -> str:
        """The story."""
        return self.text

    @property
    def names(self) -> list[str]:
        """The steps in the order in which their visits began: `["start", "fetch", "end"]`."""
        return [visit.step for visit in self.steps]

    def visits(self, step: str) -> list[Visit]:
        """All visits of a step."""
        return [visit for visit in self.steps if visit.step == step]


def tell(history: Iterable[tuple[Event, Decision]]) -> str:
    """The lines of all turns."""
    return "\n".join(line for event, decision in history for line in tell_turn(event, decision))


def visits_of(history: Iterable[tuple[Event, Decision]], *, ended: bool) -> tuple[Visit, ...]:
    """The visits that the turns of an execution began, each with what became of it."""
    found: dict[tuple[str, int], Visit] = {}
    for event, decision in history:
        for change in _changes(event, decision):
            key = change.step, change.visit
            found[key] = change if change.status == "RUNNING" else _joined(found.get(key, change), change)
        _tell_inputs(found, decision)
    return tuple(
        replace(visit, status="CANCELLED") if ended and visit.status == "RUNNING" else visit for visit in found.values()
    )


def _changes(event: Event, decision: Decision) -> Iterator[Visit]:
    """What the events of a turn say of visits."""
    for emitted in decision.events:
        if emitted.step is None:
            continue
        if emitted.type == "step_started":
            yield Visit(step=emitted.step, visit=emitted.visit)
        elif emitted.type in ENDS:
            own = (event.step, event.visit or 1) == (emitted.step, emitted.visit)
            failed = own and event.kind == ACTION_FAILED
            told = result_of(event.type, event.result, event.error).data if own and not failed else None
            error = emitted.error or (event.error if failed else None)
            status = ENDS[emitted.type]
            yield Visit(step=emitted.step, visit=emitted.visit, status=status, result=told, error=error)


def _joined(visit: Visit, change: Visit) -> Visit:
    return replace(visit, status=change.status, result=change.result, error=change.error)


def _tell_inputs(found: dict[tuple[str, int], Visit], decision: Decision) -> None:
    for job in decision.jobs:
        key, inputs = (job.step, job.visit), job.action.get(word_of_inputs(job.action))
        if job.place is None and key in found and isinstance(inputs, dict):
            found[key] = replace(found[key], inputs=inputs)
