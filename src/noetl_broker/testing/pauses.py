"""The pauses of a simulation: somebody pauses the first execution, and resumes it after a while."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from noetl_broker.broker.model.decision import Decision
from noetl_broker.broker.model.effects import StatusChanged
from noetl_broker.broker.model.event import Event
from noetl_broker.broker.model.event_types import EXECUTION_PAUSE, EXECUTION_RESUME
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.state.state import PAUSED, RUNNING
from noetl_broker.template.durations import DURATION_FORMS, parse_duration
from noetl_broker.testing.answers import SimulationFault

KEYS = ("after", "for", "reason")
FOR_CHILDREN = {PAUSED: EXECUTION_PAUSE, RUNNING: EXECUTION_RESUME}  # to the children of an execution with this status


class GivenPause(NamedTuple):
    """A pause that a test asks for, `delay` seconds after the start; `seconds` None: nobody resumes the execution."""

    delay: float
    seconds: float | None
    reason: str | None

    @property
    def event(self) -> Event:
        """The event that pauses the execution."""
        return Event(EXECUTION_PAUSE, context={} if self.reason is None else {"reason": self.reason})


def pauses_of(given: Sequence[Mapping[str, Any]]) -> list[GivenPause]:
    """The pauses of the argument `pauses`. Raises SimulationFault for a wrong one."""
    return [_read(f"pauses[{index}]", one) for index, one in enumerate(given)]


def event_for_children(number: int, event: Event, decision: Decision) -> Event | None:
    """The event for the children of an execution that this event paused or resumed; None if it did neither."""
    status = decision.last(StatusChanged)
    kind = None if status is None or status.admitted else FOR_CHILDREN.get(status.status)
    if kind is None:
        return None
    given = event.context if isinstance(event.context, dict) else {}
    context: dict[str, JSON] = {"parent_execution_id": number}
    if given.get("reason"):
        context["reason"] = given["reason"]
    return Event(kind, context=context)


def _read(what: str, given: Any) -> GivenPause:
    if not isinstance(given, Mapping) or not given.keys() <= {*KEYS}:
        raise SimulationFault(f"{what} is {given!r:.80}; write a mapping with some of {', '.join(KEYS)}")
    delay, seconds = (_seconds(given.get(word), f"{what}: {word}") for word in ("after", "for"))
    reason = given.get("reason")
    return GivenPause(delay or 0.0, seconds, None if reason is None else str(reason))


def _seconds(value: Any, what: str) -> float | None:
    try:
        return None if value is None else parse_duration(value)
    except ValueError:
        raise SimulationFault(f"{what} is {value!r:.80}, not {DURATION_FORMS}") from None
