"""The result of a simulation: its end, the visits of its steps, and its story as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from noetl_broker.broker.draft.known import result_of
from noetl_broker.broker.model.decision import Decision
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.event_types import ACTION_FAILED
from noetl_broker.broker.model.values import JSON
from noetl_broker.job import Job
from noetl_broker.playbook.template_reads import word_of_inputs
from noetl_broker.template.scope import unwrap

ENDS = {"step_completed": "COMPLETED", "step_failed": "FAILED", "step_cancelled": "CANCELLED"}
ENDED = frozenset(ENDS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A visit of a step.

    `inputs` are those of its job or of the playbook that it calls, empty where it has neither. `status` is COMPLETED,
    FAILED (with `error`, also with `on_error: continue`), or CANCELLED where it was cancelled, or the execution ended
    first. `began_at` and `ended_at` are by the simulation's clock, which starts at 2026-01-01.
    """

    step: str
    visit: int = 1
    inputs: Mapping[str, Any] = field(default_factory=dict)
    status: str = "RUNNING"
    result: JSON = None
    error: JSON = None
    began_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One execution from start to end; `str()` gives its story as text.

    `status` is COMPLETED, FAILED or CANCELLED; RUNNING where it waits for something that a simulation does not have;
    PAUSED where nobody resumes it.
    `steps` are the visits by start, `jobs` all attempts by answer, `children` the executions that it started. `waited`
    is the time that passed while there was nothing to do but wait.
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
    waited: timedelta = timedelta()

    def __str__(self) -> str:
        """The story as text."""
        return self.text

    @property
    def names(self) -> list[str]:
        """The steps in the order of their visits: `["start", "fetch", "end"]`."""
        return [visit.step for visit in self.steps]

    def visits(self, step: str) -> list[Visit]:
        """All visits of a step."""
        return [visit for visit in self.steps if visit.step == step]


def visits_of(
    turns: Iterable[tuple[Event, Decision]], moments: Iterable[datetime], *, ended: bool
) -> tuple[Visit, ...]:
    """The visits that the turns of an execution started; `moments` are the moments of the turns."""
    found: dict[tuple[str, int], Visit] = {}
    for (event, decision), at in zip(turns, moments, strict=True):
        for visit in _changed_visits(event, decision):
            started = found.get((visit.step, visit.visit), visit)
            found[visit.step, visit.visit] = replace(
                visit,
                inputs=started.inputs,
                began_at=started.began_at or at,
                ended_at=at if visit.status in ENDED else None,
            )
        for job in decision.jobs:
            key, inputs = (job.step, job.visit), job.action.get(word_of_inputs(job.action))
            if job.item_index is None and key in found and isinstance(inputs, dict):
                found[key] = replace(found[key], inputs=inputs)
    return tuple(
        replace(visit, status="CANCELLED") if ended and visit.status == "RUNNING" else visit for visit in found.values()
    )


def _changed_visits(event: Event, decision: Decision) -> Iterator[Visit]:
    """The visits that a turn started or ended."""
    for emitted in decision.events:
        if emitted.step is None:
            continue
        if emitted.type == "step_started":
            yield Visit(step=emitted.step, visit=emitted.visit)
        elif emitted.type in ENDS:
            own = (event.step, event.visit or 1) == (emitted.step, emitted.visit)
            failed = own and event.kind == ACTION_FAILED
            result = result_of(event.type, event.result, event.error).data if own and not failed else None
            if emitted.result is not None:
                result = unwrap(emitted.result)
            error = emitted.error or (event.error if failed else None)
            status = ENDS[emitted.type]
            yield Visit(step=emitted.step, visit=emitted.visit, status=status, result=result, error=error)
