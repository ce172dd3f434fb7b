"""Stories: a history as text, one line an event and, under it, one line for each thing that came of it.

    > execution_start {"x": 2}
        event step_started fetch
        job   fetch
    > action_completed fetch {"rows": 3}
        event step_completed fetch
        event execution_complete {"rows": 3}
    > action_completed fetch {"rows": 3}  (after_end)

`replay` prints them, tests are written in them, so that an incident pastes into a test. `play` is the other way round:
it takes the lines that begin with `>` through the core and tells what came of them.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from noetl_broker.broker.context import Known
from noetl_broker.broker.core import take_turn
from noetl_broker.broker.memory import remember
from noetl_broker.broker.model import ACTION_FAILED, EXECUTION_START, JSON, Decision, Event, Rules, Turn
from noetl_broker.broker.state import ExecutionState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from noetl_broker.playbook.model import Playbook

STORY_START = datetime(2026, 1, 1, tzinfo=UTC)  # a story has no clock: turn n is n seconds after this
STORY_EXECUTION = 1
_LINE = re.compile(
    r"^> (?P<type>\w+)"
    r"(?: (?P<step>[^\s{\[\"(][^{\[\"(]*?))?"
    r"(?: (?P<data>[{\[\"\d].*?|null|true|false))?"
    r"(?:\s+\([^()]*\))?$"
)


def tell(history: Iterable[tuple[Event, Decision]]) -> str:
    """The story of these turns."""
    return "\n".join(line for event, decision in history for line in tell_turn(event, decision))


def tell_turn(event: Event, decision: Decision) -> Iterator[str]:
    """The lines of one turn."""
    words = [">", event.type]
    if event.step and not event.kind.startswith("execution"):
        words.append(_visit(event.step, event.visit or 1))
    data = _data(event)
    if data is not None:
        words.append(_json(data))
    note = "" if decision.outcome == "decided" else f"  ({decision.outcome})"
    yield " ".join(words) + note
    for emitted in decision.events:
        where = f" {_visit(emitted.step, emitted.visit)}" if emitted.step else ""
        told = emitted.error["message"] if emitted.error else emitted.result
        yield f"    event {emitted.type}{where}{'' if told is None else ' ' + _json(told)}"
    for job in decision.jobs:
        if job.delegated:
            continue
        arguments = job.action.get("args")
        yield f"    job   {_visit(job.step, job.visit)}{' ' + _json(arguments) if arguments else ''}"
    for child in decision.children:
        payload = f" {_json(child.payload)}" if child.payload else ""
        yield f"    child {_visit(child.step, child.visit)} {child.path}{payload}"
    for change in decision.changes:
        delay = f" {change.delay:g} s" if change.status in {"retry", "delegated"} else ""
        yield f"    {change.status:<5} {_visit(change.step, change.visit)}{delay}"
    for step, visit in decision.abandoned:
        yield f"    abandon {_visit(step, visit)}"
    if decision.withdraw:
        yield "    withdraw"


def play(playbook: Playbook, text: str, *, rules: Rules | None = None) -> str:
    """Take the events of a story through the core and tell what comes of them; equal texts mean: as expected."""
    return tell((event, decision) for event, decision, _ in play_turns(playbook, read_events(text), rules=rules))


def play_turns(
    playbook: Playbook, events: Iterable[Event], *, rules: Rules | None = None
) -> Iterator[tuple[Event, Decision, ExecutionState]]:
    """Each event with the decision on it and the state after it."""
    known = Known(rules, complete=True)
    state = ExecutionState()
    for number, event in enumerate(events, 1):
        turn = Turn(STORY_EXECUTION, number, STORY_START + timedelta(seconds=number))
        state, decision = take_turn(playbook, state, event, turn, known)
        remember(known, event, turn, decision)
        yield event, decision, state


def read_events(text: str) -> Iterator[Event]:
    """The events of a story: its lines that begin with `>`. Raises ValueError with the line that is none."""
    for line in text.strip().splitlines():
        if not line.lstrip().startswith(">"):
            continue
        found = _LINE.match(line.strip())
        if found is None:
            raise ValueError(f"no event in the line {line!r}; it reads: > type step {{json}}")
        data = json.loads(found["data"]) if found["data"] else None
        step, _, visit = (found["step"] or "").strip().partition("#")
        yield _event(found["type"], step or None, int(visit or 1), data)


def _event(event_type: str, step: str | None, visit: int, data: JSON) -> Event:
    kind = Event(event_type).kind
    if kind == EXECUTION_START:
        return Event(event_type, context={"workload": data or {}})
    if kind == ACTION_FAILED:
        return Event(event_type, step, visit, error=data)
    if kind.startswith("execution"):
        return Event(event_type, context=data)
    return Event(event_type, step, visit, result=data)


def _data(event: Event) -> JSON:
    if event.kind == EXECUTION_START:
        payload = event.context.get("workload") if isinstance(event.context, dict) else event.context
        return payload or None
    if event.kind == ACTION_FAILED:
        return event.error
    return event.context if event.kind.startswith("execution") else event.result


def _visit(step: str, visit: int) -> str:
    return step if visit == 1 else f"{step}#{visit}"


def _json(value: JSON) -> str:
    return json.dumps(value, ensure_ascii=False)
