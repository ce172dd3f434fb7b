"""Rows and nouns: how rows of the database become the core's events and states."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.adoptions import LARGEST_PLACE
from noetl_broker.broker.context import NOT_LOADED
from noetl_broker.broker.model import MAX_PATH_CHARS, Decision, Event, Rules, Turn, stored_rules
from noetl_broker.broker.state import ExecutionState, decode
from noetl_broker.store.codec import load_json

if TYPE_CHECKING:
    from datetime import datetime

    from asyncpg import Record

    from noetl_broker.broker.model import JSON
    from noetl_broker.playbook.model import Playbook

MICROSECOND = timedelta(microseconds=1)


class Mail(NamedTuple):
    """One event that waits for a decision.

    `at`: its turn's moment, unless a turn before it in the same batch is as late; `waited` seconds from the event to
    the claim; `facts` is what is known of it beside its row, for a replay.
    """

    mail_id: int
    event_id: int
    event: Event
    at: datetime
    waited: float
    facts: dict[str, JSON] | None


class ParentVisit(NamedTuple):
    """Which visit of which execution waits for this one; `place` is its place in an iterator of it, if it is one."""

    execution_id: int
    event_id: int | None
    node_id: str
    place: int | None


class Execution(NamedTuple):
    """An execution as it was found under its lock; `rules` (its text) and `tokens` are None before its first turn."""

    execution_id: int
    catalog_id: int | None
    path: str | None
    version: int | None
    name: str
    rules: str | None
    turn: int
    tokens: dict[str, JSON] | None
    parent: ParentVisit | None
    workload: dict[str, JSON] | None  # where it is small


class Case(NamedTuple):
    """One execution of a batch: its mail, and its playbook (or why there is none)."""

    execution: Execution
    mail: list[Mail]
    playbook: Playbook | str  # or the sentence that says why there is none
    rules: Rules
    state: ExecutionState


class Taken(NamedTuple):
    """One turn as it was taken: what the store needs to write it down."""

    mail: Mail
    turn: Turn
    decision: Decision


class Outcome(NamedTuple):
    """The turns of one execution, and the state after the last of them."""

    taken: list[Taken]
    state: ExecutionState


def node_id(execution_id: int, step: str, visit: int, place: int | None = None) -> str:
    """`<execution_id>:<step>` for the first visit, with `#2` and so on for the next ones (spec section 2).

    An item of an iterator has its place behind its visit: `<execution_id>:<step>#1.7`.
    """
    if place is not None:
        return f"{execution_id}:{step}#{visit}.{place}"
    return f"{execution_id}:{step}" if visit == 1 else f"{execution_id}:{step}#{visit}"


class Node(NamedTuple):
    """What a node id names: a visit of a step, and an item of it."""

    step: str | None
    visit: int | None
    place: int | None = None


NOWHERE = Node(None, None)


def parse_node(node: str | None, name: str | None, owner: int | None = None) -> Node:
    """What a node id names; without one, the node's name and the first visit.

    One that names nothing, or a node of another execution than `owner`, is nowhere: it must not pass for another.
    """
    if not node:
        return Node(name, 1 if name else None)
    execution, _, rest = node.partition(":")
    if not rest or (owner is not None and execution != str(owner)):
        return NOWHERE
    step, mark, rest = rest.partition("#")
    if not mark:
        return Node(step, 1)
    visit, dot, place = rest.partition(".")
    if not _is_number(visit) or int(visit) < 1 or (dot and not _is_number(place)):
        return NOWHERE
    return Node(step, int(visit), int(place) if dot else None)


def _is_number(text: str) -> bool:
    """Whether it is a whole number that an int4 holds."""
    return text.isascii() and text.isdigit() and len(text) < 10  # noqa: PLR2004 - longer is no int4


def mail_of(row: Record) -> Mail:
    """One row of `take_mail`."""
    event, facts = event_of(row)
    return Mail(row["mail_id"], row["event_id"], event, row["at"], row["waited"], facts or None)


def event_of(row: Record) -> tuple[Event, dict[str, JSON]]:
    """The event of a row, with its facts; what a stranger wrote into it becomes an event that the core can refuse."""
    step, visit, place = parse_node(row["node_id"], row["node_name"], row["execution_id"])
    meta = row["meta"] if isinstance(row["meta"], dict) else {}
    facts: dict[str, JSON] = {}
    oversize, context = row["oversize"] or "", row["context"]
    if isinstance(context, dict) and isinstance(path := context.get("path"), str) and len(path) > MAX_PATH_CHARS:
        oversize = f"path {len(path)}"
    if oversize:
        facts["oversize"] = oversize
        context, meta = None, {}
    attempt = meta.get("attempt")
    if not isinstance(attempt, int) or isinstance(attempt, bool):
        attempt = row["job_attempts"] or 0
        if attempt:
            facts["attempt"] = attempt
    if row["broken"]:
        facts["broken"] = True
    if row["bytes_over"]:
        facts["bytes_over"] = row["bytes_over"]
    leased = row["job_attempts"]
    stale = "queue_id" not in meta and bool(leased) and attempt != leased
    if stale:
        facts["attempt"] = leased  # what the event's own attempt was held against
    event = Event(
        row["event_type"] or "missing",
        step,
        visit,
        NOT_LOADED if row["result_left"] else row["result"],
        row["error"],
        context,
        attempt,
        meta.get("retryable") is not False,
        "queue_id" in meta,
        row["broken"] or False,
        meta,
        place if place is not None else _place(meta),
        stale,
        row["bytes_over"] or 0,
        oversize,
    )
    return event, facts


def _place(meta: dict[str, JSON]) -> int | None:
    """A child of an iterator's item says in its letter whose it is; an `index` of anybody else means nothing here."""
    place = meta.get("index") if "child_execution_id" in meta else None
    return place if isinstance(place, int) and not isinstance(place, bool) and 0 <= place <= LARGEST_PLACE else None


def execution_of(row: Record) -> Execution:
    """The execution that a row of `take_mail` belongs to."""
    return Execution(
        row["execution_id"],
        row["catalog_id"],
        row["path"],
        row["version"],
        row["name"] or str(row["execution_id"]),
        row["rules"],
        row["turn"] or 0,
        row["tokens"],
        None
        if row["parent_execution_id"] is None or row["parent_node_id"] is None
        else ParentVisit(
            row["parent_execution_id"], row["parent_event_id"], row["parent_node_id"], row["parent_index"]
        ),
        row["workload"],
    )


@lru_cache(maxsize=64)
def rules_of(text: str) -> Rules:
    """The rules that are pinned with an execution: nearly all have the same."""
    return stored_rules(load_json(text))


def open_case(execution: Execution, mail: list[Mail], playbook: Playbook | str, rules: Rules) -> Case:
    """The execution with its state and rules read (`rules` where it has none yet); raises where they are broken."""
    return Case(
        execution,
        mail,
        playbook,
        rules_of(execution.rules) if execution.rules else rules,
        decode(execution.tokens) if execution.tokens else ExecutionState(),
    )
