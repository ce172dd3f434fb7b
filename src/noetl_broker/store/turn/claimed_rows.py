"""How rows of `take_mail` become the core's events, states and rules."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from noetl_broker.broker.draft.known import NOT_LOADED
from noetl_broker.broker.model.decision import Decision
from noetl_broker.broker.model.event import Event, Turn
from noetl_broker.broker.model.limits import MAX_ATTEMPT, MAX_PATH_CHARS
from noetl_broker.broker.model.rules import Rules, stored_rules
from noetl_broker.broker.state.state import ExecutionState, decode
from noetl_broker.broker.work.worker_children import MAX_INDEX
from noetl_broker.node_ids import parse_node, undone_node
from noetl_broker.store.json_codec import load_json

if TYPE_CHECKING:
    from datetime import datetime

    from asyncpg import Record

    from noetl_broker.broker.model.values import JSON
    from noetl_broker.playbook.model import Playbook

MICROSECOND = timedelta(microseconds=1)
CACHED_CHARS = 512  # of the texts of states that are cached


class Mail(NamedTuple):
    """One event that waits for a decision.

    `at`: the time of its turn, unless an earlier turn of the batch is later; `waited`: seconds from the event to the
    claim; `facts`: what is known beside the event's row, recorded for a replay.
    """

    mail_id: int
    event_id: int
    event: Event
    at: datetime
    waited: float
    facts: dict[str, JSON] | None


class ParentVisit(NamedTuple):
    """The visit that waits for this execution; `item_index` is the index of the item, if it is one."""

    execution_id: int
    event_id: int | None
    node_id: str
    item_index: int | None


class Execution(NamedTuple):
    """An execution as read under its lock; `rules` and `tokens` (JSON texts) are None before its first turn."""

    execution_id: int
    catalog_id: int | None
    path: str | None
    version: int | None
    name: str
    rules: str | None
    turn: int
    tokens: str | None
    parent: ParentVisit | None
    workload: dict[str, JSON] | None  # where it is small


class Case(NamedTuple):
    """One execution of a batch, with its mail and its playbook."""

    execution: Execution
    mail: list[Mail]
    playbook: Playbook | str  # text: why there is none
    rules: Rules
    state: ExecutionState


class DecidedTurn(NamedTuple):
    """One turn with its decision, to be written."""

    mail: Mail
    turn: Turn
    decision: Decision


class Outcome(NamedTuple):
    """The turns of one execution, and the state after the last of them."""

    taken: list[DecidedTurn]
    state: ExecutionState


def mail_of(row: Record) -> Mail:
    """The mail of a row of `take_mail`."""
    event, facts = event_of(row)
    return Mail(row["mail_id"], row["event_id"], event, row["at"], row["waited"], facts or None)


def event_of(row: Record) -> tuple[Event, dict[str, JSON]]:
    """The event of a row, and its facts. Any content of the row gives an event that the core can refuse."""
    undone = undone_node(row["node_id"])
    step, visit, index = parse_node(undone or row["node_id"], row["node_name"], row["execution_id"])
    meta = row["meta"] if isinstance(row["meta"], dict) else {}
    facts: dict[str, JSON] = {}
    oversize, context = row["oversize"] or "", row["context"]
    if isinstance(context, dict) and isinstance(path := context.get("path"), str) and len(path) > MAX_PATH_CHARS:
        oversize = f"path {len(path)}"
    if oversize:
        facts["oversize"] = oversize
        context, meta = None, {}
    attempt = meta.get("attempt")
    if not isinstance(attempt, int) or isinstance(attempt, bool) or not 0 <= attempt <= MAX_ATTEMPT:
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
        facts["attempt"] = leased  # compared with the event's own attempt
    stale = stale or meta.get("earlier_undo") is True  # its lease is of an undo that was abandoned
    if row["path_paused"]:
        facts["path_paused"] = True
    if row["is_doubled"]:
        facts["doubled"] = stale = True
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
        index if index is not None else _index_of(meta),
        stale,
        row["bytes_over"] or 0,
        oversize,
        row["path_paused"] or False,
        undone is not None,
    )
    return event, facts


def _index_of(meta: dict[str, JSON]) -> int | None:
    """The index of the item that a child of an iterator answers for; None in other events."""
    index = meta.get("index") if "child_execution_id" in meta else None
    return index if isinstance(index, int) and not isinstance(index, bool) and 0 <= index <= MAX_INDEX else None


def execution_of(row: Record) -> Execution:
    """The execution of a row of `take_mail`."""
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
    """The rules that are pinned with an execution; cached, because most have the same."""
    return stored_rules(load_json(text))


def state_of(text: str) -> ExecutionState:
    """The state in its JSON text; a short one is cached, because executions at the same step have the same."""
    return _short_state(text) if len(text) <= CACHED_CHARS else decode(load_json(text))


@lru_cache(maxsize=4096)
def _short_state(text: str) -> ExecutionState:
    return decode(load_json(text))


def open_case(execution: Execution, mail: list[Mail], playbook: Playbook | str, rules: Rules) -> Case:
    """An execution with its parsed state and rules (`rules` if it has none yet); raises where they are broken."""
    return Case(
        execution,
        mail,
        playbook,
        rules_of(execution.rules) if execution.rules else rules,
        state_of(execution.tokens) if execution.tokens else ExecutionState(),
    )
