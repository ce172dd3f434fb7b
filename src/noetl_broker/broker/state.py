"""What the core must remember of an execution between two turns: its live tokens, its visits, its branch ends.

The state is small whatever the length of the history: results stay in the event table and are named by the turn that
read them; whether a step was visited is one bit, and only steps that were visited again have a counter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from noetl_broker.broker.model import JSON

if TYPE_CHECKING:
    from noetl_broker.template import Path

NEW = "NEW"
RUNNING = "RUNNING"
COMPLETED = "COMPLETED"
FAILED = "FAILED"
CANCELLED = "CANCELLED"

Visit = tuple[str, int]  # a step's name and the number of the visit, from 1


class Counts(NamedTuple):
    """How far an iterator has got, or the children of a worker: the items themselves are rows of their own."""

    total: int
    started: int = 0
    ended: int = 0
    failed: int = 0


class Token(NamedTuple):
    """A running visit: its action is queued, with a worker, or waiting to be tried again.

    `failed_attempt` is the lease of the last failure that was counted, so that the same failure sent twice counts once;
    of a child, the number of failures when it was last started: it is below `failures` while the pause after one lasts.
    `spent` names the `any` joins that no longer wait for this token. `answered`: the worker is done, and the children
    that it started are waited for; `next_place` is the one above all that these have.
    """

    step: str
    visit: int
    failures: int = 0
    failed_attempt: int = 0
    spent: frozenset[str] = frozenset()
    items: Counts | None = None
    answered: bool = False
    next_place: int = 0


class Arrival(NamedTuple):
    """A token on an arc: taken, and not yet a visit of the step it leads to (`arc` -1 leads to `start`).

    `result` is the turn that read the result handed on (None: there is none; below zero: the event of that id, which a
    fork brought along); `sources` the steps with data that this token stands for, none of those that were spent for a
    join which they may lead to; `passed` the routers that it has passed in this turn (never stored: a turn ends first).
    `left` are the paths of the strings in `inputs` that are still templates, for the worker; all others are data.
    """

    arc: int
    step: str
    inputs: dict[str, JSON]
    result: int | None = None
    sources: tuple[str, ...] = ()
    spent: frozenset[str] = frozenset()
    passed: frozenset[str] = frozenset()
    left: tuple[Path, ...] = ()


class Leaving(NamedTuple):
    """What a token takes with it from a step: the result handed on and the rest, as in `Arrival`."""

    result: int | None = None
    sources: tuple[str, ...] = ()
    spent: frozenset[str] = frozenset()
    passed: frozenset[str] = frozenset()


class Parent(NamedTuple):
    """What a child knows of the execution that waits for it.

    `depth` counts the parents above (from 1), `return_step` names the step whose data is the answer (None: the result),
    `attempt` says which start of it this is, so that the answer of a child that was given up counts no more.
    """

    depth: int
    return_step: str | None = None
    attempt: int = 1


class Reached(NamedTuple):
    """That `end` was reached: the turn whose result it was handed or gave (as in `Arrival`), and its inputs.

    Only those inputs that its result reads, and only until the execution is over.
    """

    result: int | None = None
    inputs: dict[str, JSON] = {}  # noqa: RUF012 - never changed in place
    left: tuple[Path, ...] = ()


class ExecutionState(NamedTuple):
    """The state after a turn; never changed, a turn makes the next one.

    `seen` is a bitmask over the steps' places in the document, `repeats` the visits of those visited more than once,
    `total` all visits; `ends` the steps with data at the ends of branches; `end` the last visit of `end`, if any.
    """

    status: str = NEW
    tokens: dict[Visit, Token] = {}  # noqa: RUF012 - a state is never changed in place, an empty mapping may be shared
    waiting: dict[str, tuple[Arrival, ...]] = {}  # noqa: RUF012 - as above
    seen: int = 0
    repeats: dict[str, int] = {}  # noqa: RUF012 - as above
    total: int = 0
    ends: tuple[str, ...] = ()
    end: Reached | None = None
    parent: Parent | None = None


def encode(state: ExecutionState) -> dict[str, JSON]:
    """The state as JSON for its row: what is empty is left out."""
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
        document["end_turn"] = state.end.result
        document |= encode_inputs(state.end, "end_")
    if state.parent is not None:
        document["parent"] = state.parent._asdict()
    return document


def decode(document: dict[str, Any]) -> ExecutionState:
    """The state from the JSON of its row."""
    return ExecutionState(
        status=document["status"],
        tokens={(t["step"], t["visit"]): _decode_token(t) for t in document.get("tokens", ())},
        waiting={step: tuple(decode_arrival(a) for a in found) for step, found in document.get("waiting", {}).items()},
        seen=int(document["seen"], 16),
        repeats=document.get("repeats", {}),
        total=document["total"],
        ends=tuple(document.get("ends", ())),
        end=Reached(document["end_turn"], *decode_inputs(document, "end_")) if document.get("end_reached") else None,
        parent=Parent(**document["parent"]) if "parent" in document else None,
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
    if token.next_place:
        document["next_place"] = token.next_place
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
        document.get("next_place", 0),
    )


def encode_arrival(arrival: Arrival) -> dict[str, JSON]:
    """An arrival as JSON: what is empty is left out."""
    document: dict[str, JSON] = {"arc": arrival.arc, "step": arrival.step, "result": arrival.result}
    document |= encode_inputs(arrival)
    if arrival.sources:
        document["sources"] = list(arrival.sources)
    if arrival.spent:
        document["spent"] = sorted(arrival.spent)
    return document


def decode_arrival(document: dict[str, Any]) -> Arrival:
    """An arrival from its JSON."""
    inputs, left = decode_inputs(document)
    return Arrival(
        document["arc"],
        document["step"],
        inputs,
        document["result"],
        tuple(document.get("sources", ())),
        frozenset(document.get("spent", ())),
        left=left,
    )


def encode_inputs(given: Arrival | Reached, prefix: str = "") -> dict[str, JSON]:
    """The inputs as JSON, and which strings in them are still templates: what is empty is left out."""
    document: dict[str, JSON] = {}
    if given.inputs:
        document[f"{prefix}inputs"] = given.inputs
    if given.left:
        document[f"{prefix}left"] = [list(path) for path in given.left]
    return document


def decode_inputs(document: dict[str, Any], prefix: str = "") -> tuple[dict[str, JSON], tuple[Path, ...]]:
    """The inputs from their JSON, and the paths of the strings in them that are still templates."""
    return document.get(f"{prefix}inputs", {}), tuple(tuple(path) for path in document.get(f"{prefix}left", ()))
