"""Stories: a history as text. One line for each event, and under it one line for each thing that was decided.

    > execution_start {"x": 2}
        event step_started fetch
        job   fetch
    > action_completed fetch {"rows": 3}
        event step_completed fetch
        event execution_complete {"rows": 3}
    > action_completed fetch {"rows": 3}  (after_end)

Marks follow a semicolon: `> action_failed fetch {"message": "no"}; not retryable`.

| mark | of |
|---|---|
| `attempt 2` | the lease that failed |
| `not retryable` | an error |
| `beside its job` | an error that did not come through the job |
| `stale` | an event that names another lease |
| `broken` | an event that was no JSON |
| `bytes 3000000` | a result over its limit |
| `depth 1` | the start of a child |
| `starts 60` | a start that waits until this second of the story |
| `priority 8` | a start that gives its jobs this priority |
| `path paused` | a start: new executions of the playbook are queued |
| `overlap nightly skip` | a start of a schedule |
| `slot free`, `slot busy`, `slot shared` | each slot that was asked for |
| `given` | an event with which the slot comes |
| `number 7` | a pause or resume |
| `undo child 7` | the answer of a child that has something to be undone |

A step name that is not a plain word stands in backticks. `charge!undo` is the job that undoes `charge`.

`replay` prints stories and tests are written in them, so an incident can be pasted into a test. `play_story` takes the
lines that begin with `>` and prints what the core decides on them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_broker.broker.core import Session
from noetl_broker.broker.dispatcher import OF_PAUSE
from noetl_broker.broker.holds.pauses import number_of
from noetl_broker.broker.initial import moment_of
from noetl_broker.broker.model.decision import Decision
from noetl_broker.broker.model.effects import (
    ChildAdopted,
    ChildStarted,
    ChildUndoAbandoned,
    ChildUndone,
    EventPosted,
    ExecutionBegun,
    ItemChildCancelled,
    ItemsCancelled,
    JobChanged,
    LateTimerEnded,
    OnFailureStart,
    ReportedLate,
    SignalSent,
    TimerSet,
    UndoChanged,
    UndoEnded,
    UndoNoted,
    VisitCancelled,
    VisitDrained,
    WaitOpened,
    WaitReopened,
    WorkCancelled,
)
from noetl_broker.broker.model.event import Emitted, Event
from noetl_broker.broker.model.event_types import (
    ACTION_FAILED,
    APPROVAL_DECIDED,
    EXECUTION_SIGNAL,
    EXECUTION_START,
    ITEM_FAILED,
    ITERATION_STARTED,
    TIMER_DUE,
    UNDO_SETTLED,
)
from noetl_broker.broker.model.rules import Rules
from noetl_broker.broker.model.values import JSON
from noetl_broker.broker.undo.rows import child_with_undo
from noetl_broker.node_ids import MARK, visit_name
from noetl_broker.playbook.keywords import DEFAULT_POOL
from noetl_broker.template import read_integer, read_real
from noetl_broker.template.durations import moment_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from noetl_broker.broker.state.state import ExecutionState
    from noetl_broker.playbook.model import Playbook

OF_CONTEXT = frozenset(
    {ITERATION_STARTED, TIMER_DUE, APPROVAL_DECIDED, EXECUTION_SIGNAL, UNDO_SETTLED}
)  # events about a visit whose data is their context
STORY_START = datetime(2026, 1, 1, tzinfo=UTC)  # turn n is n seconds later
STORY_EXECUTION = 1
_LINE = re.compile(
    r"^> (?P<type>[^\s;]+)"
    r"(?: (?P<step>`[^`]+`(?:#\d+)?|[^\s{\[\"(`;-][^{\[\"(`;]*?)(?:\[(?P<index>\d+)\])?(?P<undo>!undo)?)?"
    r"(?: (?P<data>[{\[\"\d-].*?|null|true|false))?"
    r"(?:; (?P<marks>[\w ,.-]+?))?"
    r"(?:\s+\([^()]*\))?$"
)
_PLAIN_NAME = re.compile(r"(?!(?:null|true|false)$)[^\W\d][\w.-]*")
_LINE_ENDS = str.maketrans(
    {"\x85": r"\u0085", "\u2028": r"\u2028", "\u2029": r"\u2029"}
)  # json.dumps does not escape them
_BESIDE = "beside its job"  # printed only where it is the reason why the event was ignored
_FLAGS: dict[str, dict[str, Any]] = {
    "not retryable": {"retryable": False},
    _BESIDE: {"settled": False},
    "stale": {"stale": True},
    "broken": {"broken": True},
    "path paused": {"path_paused": True},
    "given": {"meta": {"given": True}},
}
_NUMBERED = (
    *("overlap nightly skip", "attempt 1", "bytes 1", "oversize context 1"),
    *("depth 1", "number 1", "starts 1", "priority 1"),
)
_SLOTS: dict[str, dict[str, Any]] = {
    "slot free": {"free": True},
    "slot busy": {"free": False},
    "slot shared": {"free": True, "shared": True},
}


_METAS: dict[str, Callable[[int], dict[str, JSON]]] = {
    "depth": lambda number: {"parent": {"depth": number, "attempt": 1}},
    "number": lambda number: {"number": number},
    "starts": lambda number: {"start_at": moment_text(STORY_START + timedelta(seconds=number))},
    "priority": lambda number: {"priority": number},
    "undo child": lambda number: {"child_execution_id": number, "undo": True},
}


def format_story(turns: Iterable[tuple[Event, Decision]], *, attempts: bool = True) -> str:
    """The story of these turns; `attempts`: with the attempts that their events name."""
    return "\n".join(line for event, decision in turns for line in format_turn(event, decision, attempts=attempts))


def format_turn(event: Event, decision: Decision, *, attempts: bool = False) -> Iterator[str]:
    """The lines of one turn."""
    yield _event_line(event, decision.outcome, attempts=attempts)
    yield from map(_emitted_line, decision.events)
    for job in decision.jobs:
        if not job.delegated:  # a delegated job has a line `child` or `iterator_started`
            name = visit_name(job.step, job.visit, job.item_index, undo=job.undo)
            throttle = "" if job.throttle is None else f"; throttle {job.throttle.name} {job.throttle.key}".rstrip()
            pool = "" if job.pool in {None, DEFAULT_POOL} else f"; pool {job.pool}"
            yield f"    job   {name}{_suffix(job.action.get('args'))}{throttle}{pool}"
    for kind, line_of in LINES.items():
        yield from (f"    {line}" for line in map(line_of, decision.of(kind)) if line)
    ended = decision.ended or decision.last(UndoEnded)
    starts = None if ended is None else ended.on_failure
    if starts is not None:
        yield f"    {_start_line(starts)}"


def _start_line(starts: OnFailureStart) -> str:
    return f"start {starts.path}{_suffix(starts.payload)}"


def _child_line(child: ChildStarted) -> str:
    return f"child {_name(child, undo=child.undo)} {child.path}{_suffix(child.payload)}"


def _wait_line(wait: WaitOpened) -> str:
    shown = {key: value for key, value in (wait.details or {}).items() if value and key != "times_out_at"}
    about = f" {' or '.join(wait.names)} {wait.key}" if wait.names else ""
    return f"wait  {_name(wait)} {wait.kind}{about}{f' {_json(shown)}' if shown else ''}"


def _signal_line(sent: SignalSent) -> str:
    payload = "" if sent.payload is None else f" {_json(sent.payload)}"
    return f"send  {_name(sent)} {sent.name} {sent.key}{payload}"


def _job_line(change: JobChanged) -> str:
    """The line of a changed job; none for `done`, which the sender of the event left to the broker."""
    delay = f" {change.delay:g} s" if change.status in {"retry", "delegated"} else ""
    return "" if change.status == "done" else f"{change.status:<5} {_name(change, undo=change.undo)}{delay}"


def _undo_line(undo: UndoNoted) -> str:
    what = f" child {undo.children[-1]}" if undo.children else ""
    status = "" if undo.status == "open" else f" {undo.status}"
    return f"undo  {_name(undo)}{what}{status}"


def _name(effect: Any, *, undo: bool = False) -> str:
    """The visit, or the item, that an effect is about."""
    return visit_name(effect.step, effect.visit, getattr(effect, "item_index", None), undo=undo)


def _answer(number: JSON) -> str:
    return f"; answer {number}" if number else ""


# The line of an effect; kinds in the order of the story. Others show in the events of the turn.
LINES: Mapping[type[Any], Callable[[Any], str]] = {
    ExecutionBegun: lambda begun: f"tags  {_json(begun.tags)}" if begun.tags is not None else "",
    ChildStarted: _child_line,
    ChildUndone: lambda child: f"undo execution {child.child_execution_id}{_answer(child.context.get('answer'))}",
    ChildAdopted: lambda adopted: f"waits {_name(adopted)} child {adopted.child_execution_id}",
    WaitOpened: _wait_line,
    TimerSet: lambda timer: f"timer {_name(timer)} {timer.purpose} {moment_text(timer.due)}",
    LateTimerEnded: lambda visit: f"timer {_name(visit)} late ends",
    ReportedLate: lambda late: "" if late.starts is None else _start_line(late.starts),
    WaitReopened: lambda wait: f"reopen {_name(wait)}",
    SignalSent: _signal_line,
    JobChanged: _job_line,
    EventPosted: lambda post: f"post  {post.type} {_name(post)}",
    ItemsCancelled: lambda visit: f"cancel items of {_name(visit)}",
    ItemChildCancelled: lambda item: f"cancel child of {_name(item)}",
    VisitCancelled: lambda visit: f"cancel {_name(visit)}",
    WorkCancelled: lambda _: "cancel all work",
    UndoNoted: _undo_line,
    UndoChanged: lambda change: f"undo  {_name(change)} unknown" if change.status == "unknown" else "",  # abandoned
    VisitDrained: lambda visit: f"drain {_name(visit)}",
    ChildUndoAbandoned: lambda child: f"abandon execution {child.child_execution_id}",
    UndoEnded: lambda ended: f"answer {ended.answer}" if ended.answer else "",
}


def _event_line(event: Event, outcome: str, *, attempts: bool) -> str:
    words = [">", event.type]
    if event.step and (
        event.item_index is not None or event.kind in OF_CONTEXT or not event.kind.startswith("execution")
    ):
        name = event.step if _PLAIN_NAME.fullmatch(event.step) else f"`{event.step}`"
        words.append(visit_name(name, event.visit or 1, event.item_index, undo=event.undo))
    data = _data(event)
    if data is not None:
        words.append(_json(data))
    ignored = outcome in {"recorded", "duplicate"} and event.kind == ACTION_FAILED
    marks = ", ".join(mark for mark in _marks(event, attempts=attempts) if mark != _BESIDE or ignored)
    return " ".join(words) + (f"; {marks}" if marks else "") + ("" if outcome == "decided" else f"  ({outcome})")


def _emitted_line(event: Emitted) -> str:
    where = f" {visit_name(event.step, event.visit)}" if event.step else ""
    data = event.context if event.result is None else event.result
    if event.error:
        caught = f" {_json(event.result)}" if event.type == "iteration_completed" else ""  # by the `catch` of the item
        return f"    event {event.type}{where} {_json(event.error['message'])}{caught}"
    return f"    event {event.type}{where}{'' if data is None else ' ' + _json(data)}"


def _marks(event: Event, *, attempts: bool) -> Iterator[str]:
    if attempts and event.attempt:
        yield f"attempt {event.attempt}"
    if event.bytes_over:
        yield f"bytes {event.bytes_over}"
    if event.oversize:
        yield f"oversize {event.oversize}"
    yield from (mark for mark, fields in _FLAGS.items() if event == event._replace(**fields))
    parent = event.meta.get("parent") if event.kind == EXECUTION_START and isinstance(event.meta, dict) else None
    if isinstance(parent, dict) and type(parent.get("depth")) is int:
        yield f"depth {parent['depth']}"
    if event.kind == EXECUTION_START and (moment := moment_of(event)) is not None:
        yield f"starts {max(0, round((moment - STORY_START).total_seconds()))}"
    yield from _slot_marks(event)
    if (child := child_with_undo(event)) is not None:
        yield f"undo child {child}"
    if event.kind in OF_PAUSE and (number := number_of(event)) is not None:
        yield f"number {number}"


def _slot_marks(event: Event) -> Iterator[str]:
    """The marks about slots: the schedule of a start, and what the turn was told."""
    overlap = event.meta.get("overlap") if event.kind == EXECUTION_START and isinstance(event.meta, dict) else None
    if isinstance(overlap, dict):
        yield f"overlap {overlap.get('schedule')} {overlap.get('word')}"
    for answer in event.slots if isinstance(event.slots, list) else ():
        yield "slot shared" if answer.get("shared") else "slot free" if answer.get("free") else "slot busy"


def _with_marks(event: Event, marks: str) -> Event:
    for mark in marks.split(", "):
        word, _, number = mark.rpartition(" ")
        if mark in _FLAGS:
            event = event._replace(**_FLAGS[mark])
        elif mark in _SLOTS:
            told = event.slots or []
            event = event._replace(slots=[*told, {**_SLOTS[mark], "number": len(told) + 1}])
        elif word.startswith("overlap "):
            overlap = {"schedule": word.removeprefix("overlap "), "word": number}
            event = event._replace(meta={"overlap": overlap})
        elif word == "attempt" and number.isdigit():
            event = event._replace(attempt=int(number))
        elif word == "bytes" and number.isdigit():
            event = event._replace(bytes_over=int(number))
        elif mark.startswith("oversize ") and number.isdigit():
            event = event._replace(oversize=mark.removeprefix("oversize "))
        elif word in _METAS and number.isdigit():
            event = event._replace(meta=_METAS[word](int(number)))
        else:
            known = ", ".join(
                [
                    *_FLAGS,
                    *_SLOTS,
                    "overlap nightly skip",
                    "attempt 1",
                    "bytes 1",
                    "oversize context 1",
                    *(f"{mark} 1" for mark in _METAS),
                ]
            )
            raise ValueError(f"unknown mark {mark!r}; known marks: {known}")
    return event


def play_story(playbook: Playbook, text: str, *, rules: Rules | None = None) -> str:
    """The story that the core decides on the events of this one; a test compares the two."""
    turns = play_turns(playbook, read_events(text), rules=rules)
    return format_story((event, decision) for event, decision, _ in turns)


def play_turns(
    playbook: Playbook, events: Iterable[Event], *, rules: Rules | None = None
) -> Iterator[tuple[Event, Decision, ExecutionState]]:
    """Each event with the decision on it and the state after it."""
    session = Session(playbook, rules, execution_id=STORY_EXECUTION)
    for number, event in enumerate(events, 1):
        decision = session.apply(event, STORY_START + timedelta(seconds=number))
        yield event, decision, session.state


def read_events(text: str) -> Iterator[Event]:
    """The events of a story: its lines that begin with `>`. Raises ValueError for a line that cannot be read."""
    for line in text.strip().splitlines():
        if not line.lstrip().startswith(">"):
            continue
        found = _LINE.match(line.strip())
        if found is None:
            raise ValueError(f"cannot read the line {line!r}; write: > type step {{json}}")
        data = json.loads(found["data"], parse_int=read_integer, parse_float=read_real) if found["data"] else None
        step, _, visit = (found["step"] or "").strip().partition(MARK)
        step = step.strip("`")
        event = _event(found["type"], step or None, int(visit or 1), data)
        if found["index"] is not None:
            event = _of_item(event, step, int(visit or 1), int(found["index"]), data)
        event = event._replace(undo=True) if found["undo"] else event
        yield _with_marks(event, found["marks"]) if found["marks"] else event


def _event(event_type: str, step: str | None, visit: int, data: JSON) -> Event:
    kind = Event(event_type).kind
    if kind == EXECUTION_START:
        return Event(event_type, context={"workload": {} if data is None else data})
    if kind == ACTION_FAILED:
        return Event(event_type, step, visit, error=data)
    if kind in OF_CONTEXT:
        return Event(event_type, step, visit if step else None, context=data)
    if kind.startswith("execution"):
        return Event(event_type, context=data)
    return Event(event_type, step, visit, result=data)


def _of_item(event: Event, step: str, visit: int, index: int, data: JSON) -> Event:
    failed = event.kind in {ACTION_FAILED, ITEM_FAILED}
    return Event(event.type, step, visit, None if failed else data, data if failed else None, item_index=index)


def _data(event: Event) -> JSON:
    if event.kind == EXECUTION_START:
        payload = event.context.get("workload") if isinstance(event.context, dict) else event.context
        return None if payload == {} else payload
    if event.kind == ACTION_FAILED or event.error is not None:
        return event.error
    if event.item_index is not None:
        return event.result
    return event.context if event.kind.startswith("execution") or event.kind in OF_CONTEXT else event.result


def _suffix(value: JSON) -> str:
    return f" {_json(value)}" if value else ""


def _json(value: JSON) -> str:
    return json.dumps(value, ensure_ascii=False).translate(_LINE_ENDS)


class PortableStory(NamedTuple):
    """A story for a test; `diverges_at` is the first turn that decides differently in it, None if none does."""

    text: str
    diverges_at: int | None


def portable_story(playbook: Playbook, turns: Sequence[tuple[Event, Decision]], rules: Rules) -> PortableStory:
    """The story of recorded turns as a test plays it: with another execution id and other times.

    Raises ValueError if an event cannot be written in a line.
    """
    failed = {(event.step, event.visit) for event, _ in turns if event.kind == ACTION_FAILED}
    repeated = {(event.step, event.visit) for event, decision in turns if decision.outcome == "duplicate"}
    ambiguous = failed & repeated  # a repeated failure is only known by its attempt
    lines = [
        next(format_turn(event, decision, attempts=(event.step, event.visit) in ambiguous)) for event, decision in turns
    ]
    events = [*read_events("\n".join(lines))]
    played = [(event, decision) for event, decision, _ in play_turns(playbook, events, rules=rules)]
    pairs = enumerate(zip(turns, played, strict=True), 1)
    diverging = (number for number, (was, now) in pairs if _summary(was[1]) != _summary(now[1]))
    return PortableStory(format_story(played), next(diverging, None))


def _summary(decision: Decision) -> tuple[object, ...]:
    """A decision without the values that contain the execution's id or a time."""
    return (
        decision.outcome,
        [(event.type, event.step, event.visit, event.status) for event in decision.events],
        [(job.step, job.visit, job.item_index) for job in decision.jobs],
        [(child.step, child.visit, child.item_index, child.path) for child in decision.of(ChildStarted)],
        [(change.step, change.visit, change.status) for change in decision.of(JobChanged) if change.status != "done"],
        decision.of(EventPosted),
        decision.of(VisitCancelled),
        decision.of(UndoNoted),
        decision.of(VisitDrained),
        decision.ended.status if decision.ended else None,
    )
