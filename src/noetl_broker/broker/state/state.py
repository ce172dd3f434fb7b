"""The state of an execution between two turns: its open visits, waiting tokens, visit counts and branch ends; its JSON.

The state stays small, however long the history is. Results stay in the event table and are named by the turn that read
them. Each visited step has one bit; only steps that were visited again have a counter.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from noetl_broker.broker.model.effects import Slot
from noetl_broker.broker.model.values import JSON, Visit
from noetl_broker.broker.state.compensation import Compensation, decode_compensation, encode_compensation

if TYPE_CHECKING:
    from collections.abc import Collection

    from noetl_broker.template import Path

TO_START = -1  # the arc to `start`, which no playbook has
NEW = "NEW"
QUEUED = "QUEUED"  # not admitted yet
RUNNING = "RUNNING"
PAUSED = "PAUSED"
COMPENSATING = "COMPENSATING"
COMPLETED = "COMPLETED"
FAILED = "FAILED"
CANCELLED = "CANCELLED"
LIVE = (QUEUED, RUNNING, PAUSED, COMPENSATING)  # `noetl.is_live` is the same list


def is_live(status: str) -> bool:
    """Whether an execution in this status has started and not ended."""
    return status in LIVE


class Counts(NamedTuple):
    """The progress of an iterator, or of the children that a worker started. The items are rows of their own."""

    total: int
    started: int = 0
    ended: int = 0
    failed: int = 0


class Awaited(NamedTuple):
    """What an open wait for a signal is for: one of these names, and the key (None: the execution).

    `listed`: the names were a list. `since`: the seconds before the start of the execution from which signals count.
    `turn`: in which the wait began. `tried`: the wait has kept signals to try, signals of turns after this one.
    """

    names: tuple[str, ...]
    listed: bool = False
    key: str | None = None
    since: float = 0.0
    turn: int = 0
    tried: int | None = None


class KeptSignal(NamedTuple):
    """A signal that fitted no wait: the turn that read it, and what waits compare.

    `key` None: the execution. `before`: how many seconds before the start of the execution it was sent.
    """

    turn: int
    name: str
    key: str | None = None
    before: float = 0.0


class Token(NamedTuple):
    """An open visit: its action is queued, running, or waits for a retry.

    `failed_attempt` is the lease of the last counted failure: the same failure sent twice counts once. For a child it
    is the number of failures when it was last started; during the delay after a failure it is below `failures`. `spent`
    names the `any` joins that no longer wait for this token. `answered`: the worker is done, and the visit waits for
    the children that the worker started; `next_index` is above all their indexes. `due`: items or a child are started
    when the execution runs on; `again` are items of which a child is started again. `awaited`: of an open wait for a
    signal. `unsure`: an attempt timed out or lost its
    lease, so its action may have happened. `undos`: how many open rows of `noetl.undo` there are of the visit, its
    items and children. `draining`: the visit is over, but its action, items or children may still report success, which
    is then undone. `late`: its `late_after` passed.
    """

    step: str
    visit: int
    failures: int = 0
    failed_attempt: int = 0
    spent: frozenset[str] = frozenset()
    items: Counts | None = None
    answered: bool = False
    next_index: int = 0
    due: bool = False
    awaited: Awaited | None = None
    unsure: bool = False
    undos: int = 0
    draining: bool = False
    again: tuple[int, ...] = ()
    late: bool = False


class InlineResult(NamedTuple):
    """A result that the core made itself in the turn of its visit, stored in the state. A failure has an `error`."""

    value: JSON
    error: JSON = None


# The result that a token carries: the turn that read it, or the value itself. Negative: the id of a fork's event.
ResultRef: TypeAlias = "int | InlineResult | None"


class TakenItems(NamedTuple):
    """The items that a repeated visit of an iterator takes over from a fork: how many, and which are to be run again.

    `again` is a number in base 16 with a bit for each such item. The results of the others are taken over.
    """

    total: int
    again: str

    @property
    def indexes(self) -> tuple[int, ...]:
        """The items to be run again, by index."""
        return indexes_of(self.again)


@lru_cache(maxsize=64)
def indexes_of(again: str) -> tuple[int, ...]:
    """The indexes of the items whose bits are set; cached, because each item that ends asks for them."""
    return tuple(index for index, bit in enumerate(reversed(f"{int(again, 16):b}")) if bit == "1")


class Arrival(NamedTuple):
    """A token on an arc: the transition is taken, and the next step is not visited yet. Arc TO_START leads to `start`.

    | field | value |
    |---|---|
    | `result` | the result which is passed on; None: none |
    | `sources` | the steps whose data this token stands for, without those spent for a join that they may lead to |
    | `spent` | the `any` joins that no longer wait for this token |
    | `passed` | the routers that it passed in this turn; never stored |
    | `visit` | the visit that a fork repeats; 0: the next one |
    | `due` | when the repeated visit, a wait, ends or times out, as RFC 3339; None: it counts anew |
    | `items` | what the repeated visit, of an iterator, takes over; None: it chooses its items |
    """

    arc: int
    step: str
    inputs: dict[str, JSON]
    result: ResultRef = None
    sources: tuple[str, ...] = ()
    spent: frozenset[str] = frozenset()
    passed: frozenset[str] = frozenset()
    visit: int = 0
    due: str | None = None
    items: TakenItems | None = None


class RenderedInputs(NamedTuple):
    """Rendered inputs: their values, and the paths of the deferred strings in them."""

    values: dict[str, JSON]
    deferred: tuple[Path, ...] = ()


NO_INPUTS = RenderedInputs({})


def overlay_inputs(under: RenderedInputs, over: RenderedInputs) -> RenderedInputs:
    """Inputs laid over others: a key of `over` replaces the value under it, with the deferred strings in it."""
    if not under.values:
        return over
    if not over.values:
        return under
    deferred = over.deferred
    if under.deferred:
        deferred = tuple(path for path in under.deferred if path[0] not in over.values) + deferred
    return RenderedInputs({**under.values, **over.values}, deferred)


def remove_inputs(given: RenderedInputs, keys: Collection[str]) -> RenderedInputs:
    """The inputs except those of these names."""
    if not keys:
        return given
    values = {key: item for key, item in given.values.items() if key not in keys}
    return RenderedInputs(values, tuple(path for path in given.deferred if path[0] in values))


class TokenData(NamedTuple):
    """What a token takes along from a step; the fields are those of `Arrival`."""

    result: ResultRef = None
    sources: tuple[str, ...] = ()
    spent: frozenset[str] = frozenset()
    passed: frozenset[str] = frozenset()


class Parent(NamedTuple):
    """What a child execution knows of its parent.

    `depth` counts the executions above it, from 1. `return_step` names the step whose data is the answer (None: the
    result). `attempt` is the number of this start: the parent ignores the answer of an earlier one.
    """

    depth: int
    return_step: str | None = None
    attempt: int = 1


class EndReached(NamedTuple):
    """The last visit of `end`: its result (as in `Arrival`) and the inputs for the final result.

    The inputs are dropped when the execution ends.
    """

    result: ResultRef = None
    inputs: dict[str, JSON] = {}  # noqa: RUF012 - never changed in place


class Hold(NamedTuple):
    """What holds an execution, and what it keeps until it runs on.

    `kept` are the tokens on arcs. `admitted` is false for an execution that is queued, or was paused while it was.
    `causes` say who paused it: operator, parent. `numbers`: the last pause or resume of each cause that was read.
    `delayed`: it is queued, and its moment has not come.
    """

    kept: tuple[Arrival, ...] = ()
    admitted: bool = True
    causes: tuple[str, ...] = ()
    numbers: dict[str, int] = {}  # noqa: RUF012 - never changed in place
    delayed: bool = False


class ExecutionState(NamedTuple):
    """The state after a turn. It is never changed: each turn makes a new one.

    `seen` has one bit for each step, by its index in the document. `repeats` counts the visits of steps that were
    visited more than once, `total` counts all visits. `ends` are the steps with data at the ends of branches. `end` is
    the last visit of `end`. `hold` is set if the execution was paused or queued. `signals`: those that fitted no wait,
    in the order of their turns. `hops`: how many executions sent signals that led to this one.
    `undo` counts the open rows of `noetl.undo`, `unknown` the unknown ones. `compensation` is set while COMPENSATING.
    `failed_before`: the execution whose failure or lateness led to this one. `late`: `metadata.late_after` passed.
    `priority`: that of the start.
    """

    status: str = NEW
    tokens: dict[Visit, Token] = {}  # noqa: RUF012 - a state is never changed in place, an empty mapping may be shared
    waiting: dict[str, tuple[Arrival, ...]] = {}  # noqa: RUF012 - as above
    seen: int = 0
    repeats: dict[str, int] = {}  # noqa: RUF012 - as above
    total: int = 0
    ends: tuple[str, ...] = ()
    end: EndReached | None = None
    parent: Parent | None = None
    hold: Hold | None = None
    signals: tuple[KeptSignal, ...] = ()
    hops: int = 0
    undo: int = 0
    unknown: int = 0
    compensation: Compensation | None = None
    slots: tuple[Slot, ...] = ()  # those of a queued execution are waited for, or wanted; the others are held
    failed_before: int | None = None
    priority: int | None = None
    late: bool = False


def on_arcs(state: ExecutionState) -> tuple[Arrival, ...]:
    """The tokens on arcs that an execution keeps until it runs on."""
    return () if state.hold is None else state.hold.kept


def encode(state: ExecutionState) -> dict[str, JSON]:
    """The state as JSON, without empty fields."""
    document: dict[str, JSON] = {"status": state.status, "seen": f"{state.seen:x}", "total": state.total}
    if state.tokens:
        document["tokens"] = [_encode_token(token) for token in state.tokens.values()]
    if state.waiting:
        document["waiting"] = {step: [encode_arrival(a) for a in arrivals] for step, arrivals in state.waiting.items()}
    if state.repeats:
        document["repeats"] = state.repeats
    if state.ends:
        document["ends"] = list(state.ends)
    if state.end is not None:
        document["end_reached"] = True
        document["end_turn"] = encode_result(state.end.result)
        if state.end.inputs:
            document["end_inputs"] = state.end.inputs
    if state.parent is not None:
        document["parent"] = state.parent._asdict()
    if state.hold is not None:
        document["hold"] = _encode_hold(state.hold)
    if state.undo or state.unknown or state.compensation is not None:
        document |= _encode_undo(state)
    has_rest = state.signals or state.hops or state.slots or state.late
    has_rest = has_rest or state.failed_before is not None or state.priority is not None
    return document | _encode_rest(state) if has_rest else document


def decode(document: dict[str, Any]) -> ExecutionState:
    """The state from its JSON."""
    return ExecutionState(
        status=document["status"],
        tokens={(t["step"], t["visit"]): _decode_token(t) for t in document.get("tokens", ())},
        waiting={step: tuple(decode_arrival(a) for a in found) for step, found in document.get("waiting", {}).items()},
        seen=int(document["seen"], 16),
        repeats=document.get("repeats", {}),
        total=document["total"],
        ends=tuple(document.get("ends", ())),
        end=EndReached(decode_result(document["end_turn"]), document.get("end_inputs", {}))
        if document.get("end_reached")
        else None,
        parent=Parent(**document["parent"]) if "parent" in document else None,
        hold=_decode_hold(document["hold"]) if "hold" in document else None,
        signals=tuple(KeptSignal(*kept) for kept in document.get("signals", ())),
        hops=document.get("hops", 0),
        undo=document.get("undo", 0),
        unknown=document.get("unknown", 0),
        compensation=decode_compensation(document["compensation"]) if "compensation" in document else None,
        slots=tuple(Slot(*slot) for slot in document.get("slots", ())),
        failed_before=document.get("on_failure"),
        priority=document.get("priority"),
        late=document.get("late", False),
    )


def _encode_undo(state: ExecutionState) -> dict[str, JSON]:
    document: dict[str, JSON] = {name: getattr(state, name) for name in ("undo", "unknown") if getattr(state, name)}
    if state.compensation is not None:
        document["compensation"] = encode_compensation(state.compensation)
    return document


def _encode_hold(hold: Hold) -> dict[str, JSON]:
    document: dict[str, JSON] = {}
    if hold.kept:
        document["kept"] = [encode_arrival(arrival) for arrival in hold.kept]
    if not hold.admitted:
        document["admitted"] = False
    if hold.causes:
        document["causes"] = list(hold.causes)
    if hold.numbers:
        document["numbers"] = hold.numbers
    if hold.delayed:
        document["delayed"] = True
    return document


def _decode_hold(document: dict[str, Any]) -> Hold:
    return Hold(
        tuple(map(decode_arrival, document.get("kept", ()))),
        document.get("admitted", True),
        tuple(document.get("causes", ())),
        document.get("numbers", {}),
        document.get("delayed", False),
    )


def _encode_token(token: Token) -> dict[str, JSON]:
    document: dict[str, JSON] = {"step": token.step, "visit": token.visit}
    if token.failures:
        document["failures"] = token.failures
        document["failed_attempt"] = token.failed_attempt
    if token.spent:
        document["spent"] = sorted(token.spent)
    if token.items is not None:
        document["items"] = list(token.items)
    if token.answered:
        document["answered"] = True
    if token.next_index:
        document["next_index"] = token.next_index
    if token.due:
        document["due"] = True
    if token.again:
        document["again"] = list(token.again)
    if token.awaited is not None:
        document["awaited"] = _encode_awaited(token.awaited)
    if token.unsure or token.undos or token.draining or token.late:
        # With this type, the compiled form keeps `true`. With one of its own it makes 1 of it, and then refuses that.
        fields: dict[str, JSON] = {"unsure": token.unsure, "undos": token.undos, "draining": token.draining}
        document |= {name: value for name, value in (*fields.items(), ("late", token.late)) if value}
    return document


def _decode_token(document: dict[str, Any]) -> Token:
    return Token(
        document["step"],
        document["visit"],
        document.get("failures", 0),
        document.get("failed_attempt", 0),
        frozenset(document.get("spent", ())),
        Counts(*document["items"]) if "items" in document else None,
        document.get("answered", False),
        document.get("next_index", 0),
        document.get("due", False),
        _decode_awaited(document["awaited"]) if "awaited" in document else None,
        document.get("unsure", False),
        document.get("undos", 0),
        document.get("draining", False),
        tuple(document.get("again", ())),
        document.get("late", False),
    )


def _encode_awaited(awaited: Awaited) -> dict[str, JSON]:
    document: dict[str, JSON] = {"turn": awaited.turn}
    document["names"] = list(awaited.names) if awaited.listed else awaited.names[0]
    if awaited.key is not None:
        document["key"] = awaited.key
    if awaited.since:
        document["since"] = awaited.since
    if awaited.tried is not None:
        document["tried"] = awaited.tried
    return document


def _decode_awaited(document: dict[str, Any]) -> Awaited:
    names = document["names"]
    listed = isinstance(names, list)
    return Awaited(
        tuple(names) if listed else (names,),
        listed,
        document.get("key"),
        document.get("since", 0.0),
        document["turn"],
        document.get("tried"),
    )


def _encode_rest(state: ExecutionState) -> dict[str, JSON]:
    """What few executions have: kept signals, slots, what led to them, what their start said."""
    document: dict[str, JSON] = {}
    if state.signals:
        document["signals"] = [_encode_signal(kept) for kept in state.signals]
    if state.slots:
        document["slots"] = [list(slot) for slot in state.slots]
    plain = {"hops": state.hops or None, "late": state.late or None}
    plain |= {"on_failure": state.failed_before, "priority": state.priority}
    return document | {name: value for name, value in plain.items() if value is not None}


def _encode_signal(kept: KeptSignal) -> list[JSON]:
    """A kept signal as a list without the last fields that have their defaults: there may be a thousand."""
    fields: list[JSON] = list(kept)
    while fields[-1] in (None, 0.0):
        fields.pop()
    return fields


def encode_result(result: ResultRef) -> JSON:
    """The result of a token as JSON: the number of a turn, null, or {value, error} for an inline result."""
    if not isinstance(result, InlineResult):
        return result
    return {"value": result.value} if result.error is None else result._asdict()


def decode_result(document: JSON) -> ResultRef:
    """The result of a token from its JSON."""
    return InlineResult(**document) if isinstance(document, dict) else document


def encode_arrival(arrival: Arrival) -> dict[str, JSON]:
    """An arrival as JSON, without empty fields."""
    document: dict[str, JSON] = {
        "arc": arrival.arc,
        "step": arrival.step,
        "result": encode_result(arrival.result),
    }
    if arrival.inputs:
        document["inputs"] = arrival.inputs
    if arrival.sources:
        document["sources"] = list(arrival.sources)
    if arrival.spent:
        document["spent"] = sorted(arrival.spent)
    if arrival.visit:
        document["repeats"] = arrival.visit
    if arrival.due is not None:
        document["due"] = arrival.due
    if arrival.items is not None:
        document["items"] = arrival.items._asdict()
    return document


def decode_arrival(document: dict[str, Any]) -> Arrival:
    """An arrival from its JSON."""
    return Arrival(
        document["arc"],
        document["step"],
        document.get("inputs", {}),
        decode_result(document["result"]),
        tuple(document.get("sources", ())),
        frozenset(document.get("spent", ())),
        visit=document.get("repeats", 0),
        due=document.get("due"),
        items=TakenItems(document["items"]["total"], document["items"]["again"]) if "items" in document else None,
    )
