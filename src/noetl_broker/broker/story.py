"""Stories: a history as text, one line an event and, under it, one line for each thing that came of it.

    > execution_start {"x": 2}
        event step_started fetch
        job   fetch
    > action_completed fetch {"rows": 3}
        event step_completed fetch
        event execution_complete {"rows": 3}
    > action_completed fetch {"rows": 3}  (after_end)

What else a decision may depend on stands behind a semicolon: `> action_failed fetch {"message": "no"}; not retryable`,
`; attempt 2` (the lease that failed), `; beside its job` (an error that did not come through it), `; stale`, `; broken`
(it was no JSON), `; bytes 3000000` (of a result past its limit), and of a child's start `; depth 1`. The name of a step
that is no plain word stands between backticks.

`replay` prints stories, tests are written in them, so that an incident pastes into a test. `play` is the other way
round: it takes the lines that begin with `>` through the core and tells what came of them.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from noetl_broker.broker.context import Known
from noetl_broker.broker.core import take_turn
from noetl_broker.broker.memory import remember
from noetl_broker.broker.model import (
    ACTION_FAILED,
    EXECUTION_START,
    ITEM_FAILED,
    ITERATION_STARTED,
    JSON,
    Decision,
    Emitted,
    Event,
    Rules,
    Turn,
)
from noetl_broker.broker.state import ExecutionState
from noetl_broker.template import read_integer, read_real

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from noetl_broker.playbook.model import Playbook

STORY_START = datetime(2026, 1, 1, tzinfo=UTC)  # a story has no clock: turn n is n seconds after this
STORY_EXECUTION = 1
_LINE = re.compile(
    r"^> (?P<type>[^\s;]+)"
    r"(?: (?P<step>`[^`]+`(?:#\d+)?|[^\s{\[\"(`;-][^{\[\"(`;]*?)(?:\[(?P<place>\d+)\])?)?"
    r"(?: (?P<data>[{\[\"\d-].*?|null|true|false))?"
    r"(?:; (?P<marks>[\w ,.-]+?))?"
    r"(?:\s+\([^()]*\))?$"
)
_PLAIN_NAME = re.compile(r"(?!(?:null|true|false)$)[^\W\d][\w.-]*")
_LINE_ENDS = str.maketrans(
    {"\x85": r"\u0085", "\u2028": r"\u2028", "\u2029": r"\u2029"}
)  # JSON leaves them as they are
_BESIDE = "beside its job"  # told where it is why nothing came of the event: else it decides nothing
_FLAGS: dict[str, dict[str, Any]] = {
    "not retryable": {"retryable": False},
    _BESIDE: {"settled": False},
    "stale": {"stale": True},
    "broken": {"broken": True},
}


def tell(history: Iterable[tuple[Event, Decision]]) -> str:
    """The story of these turns, with the leases that their events speak of."""
    return "\n".join(line for event, decision in history for line in tell_turn(event, decision, attempt=True))


def tell_turn(event: Event, decision: Decision, *, attempt: bool = False) -> Iterator[str]:
    """The lines of one turn; `attempt`: with the lease that its event speaks of, for where failures repeat."""
    yield _tell_cause(event, decision.outcome, attempt=attempt)
    yield from map(_tell_event, decision.events)
    for job in decision.jobs:
        if not job.delegated:  # else a line `child` or `iterator_started` says it
            yield f"    job   {_visit(job.step, job.visit, job.place)}{_and(job.action.get('args'))}"
    for child in decision.children:
        yield f"    child {_visit(child.step, child.visit, child.place)} {child.path}{_and(child.payload)}"
    for adopted in decision.adoptions:
        yield f"    waits {_visit(adopted.step, adopted.visit, adopted.place)} child {adopted.child_execution_id}"
    for change in decision.changes:
        if change.status == "done":
            continue  # no decision: the sender of the event had left that to us
        delay = f" {change.delay:g} s" if change.status in {"retry", "delegated"} else ""
        yield f"    {change.status:<5} {_visit(change.step, change.visit, change.place)}{delay}"
    yield from (f"    post  {post.type} {_visit(post.step, post.visit)}" for post in decision.posts)
    yield from (f"    abandon {_visit(step, visit)}" for step, visit in decision.abandoned)
    if decision.withdraw:
        yield "    withdraw"


def _tell_cause(event: Event, outcome: str, *, attempt: bool) -> str:
    words = [">", event.type]
    if event.step and (event.place is not None or not event.kind.startswith("execution")):
        name = event.step if _PLAIN_NAME.fullmatch(event.step) else f"`{event.step}`"
        words.append(_visit(name, event.visit or 1, event.place))
    data = _data(event)
    if data is not None:
        words.append(_json(data))
    left = outcome in {"recorded", "duplicate"} and event.kind == ACTION_FAILED
    marks = ", ".join(mark for mark in _marks(event, attempt=attempt) if mark != _BESIDE or left)
    return " ".join(words) + (f"; {marks}" if marks else "") + ("" if outcome == "decided" else f"  ({outcome})")


def _marks(event: Event, *, attempt: bool) -> Iterator[str]:
    if attempt and event.attempt:
        yield f"attempt {event.attempt}"
    if event.bytes_over:
        yield f"bytes {event.bytes_over}"
    if event.oversize:
        yield f"oversize {event.oversize}"
    yield from (mark for mark, fields in _FLAGS.items() if event == event._replace(**fields))
    parent = event.meta.get("parent") if event.kind == EXECUTION_START and isinstance(event.meta, dict) else None
    if isinstance(parent, dict) and type(parent.get("depth")) is int:
        yield f"depth {parent['depth']}"


def _marked(event: Event, marks: str) -> Event:
    for mark in marks.split(", "):
        word, _, number = mark.rpartition(" ")
        if mark in _FLAGS:
            event = event._replace(**_FLAGS[mark])
        elif word == "attempt" and number.isdigit():
            event = event._replace(attempt=int(number))
        elif word == "bytes" and number.isdigit():
            event = event._replace(bytes_over=int(number))
        elif mark.startswith("oversize ") and number.isdigit():
            event = event._replace(oversize=mark.removeprefix("oversize "))
        elif word == "depth" and number.isdigit():
            event = event._replace(meta={"parent": {"depth": int(number), "attempt": 1}})
        else:
            known = ", ".join([*_FLAGS, "attempt 1", "bytes 1", "oversize context 1", "depth 1"])
            raise ValueError(f"no mark reads {mark!r}; there are {known}")
    return event


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
        data = json.loads(found["data"], parse_int=read_integer, parse_float=read_real) if found["data"] else None
        step, _, visit = (found["step"] or "").strip().partition("#")
        step = step.strip("`")
        event = _event(found["type"], step or None, int(visit or 1), data)
        if found["place"] is not None:
            event = _of_item(event, step, int(visit or 1), int(found["place"]), data)
        yield _marked(event, found["marks"]) if found["marks"] else event


def _event(event_type: str, step: str | None, visit: int, data: JSON) -> Event:
    kind = Event(event_type).kind
    if kind == EXECUTION_START:
        return Event(event_type, context={"workload": {} if data is None else data})
    if kind == ACTION_FAILED:
        return Event(event_type, step, visit, error=data)
    if kind.startswith("execution"):
        return Event(event_type, context=data)
    if kind == ITERATION_STARTED:
        return Event(event_type, step, visit, context=data)
    return Event(event_type, step, visit, result=data)


def _tell_event(event: Emitted) -> str:
    where = f" {_visit(event.step, event.visit)}" if event.step else ""
    told = event.context if event.result is None else event.result
    if event.error:
        told = event.error["message"]
    return f"    event {event.type}{where}{'' if told is None else ' ' + _json(told)}"


def _of_item(event: Event, step: str, visit: int, place: int, data: JSON) -> Event:
    failed = event.kind in {ACTION_FAILED, ITEM_FAILED}
    return Event(event.type, step, visit, None if failed else data, data if failed else None, place=place)


def _data(event: Event) -> JSON:
    if event.kind == EXECUTION_START:
        payload = event.context.get("workload") if isinstance(event.context, dict) else event.context
        return None if payload == {} else payload
    if event.kind == ACTION_FAILED or event.error is not None:
        return event.error
    if event.place is not None:
        return event.result
    return event.context if event.kind.startswith("execution") or event.kind == ITERATION_STARTED else event.result


def _visit(step: str, visit: int, place: int | None = None) -> str:
    return (step if visit == 1 else f"{step}#{visit}") + ("" if place is None else f"[{place}]")


def _and(value: JSON) -> str:
    """A value behind what it belongs to; nothing where there is none."""
    return f" {_json(value)}" if value else ""


def _json(value: JSON) -> str:
    return json.dumps(value, ensure_ascii=False).translate(_LINE_ENDS)
