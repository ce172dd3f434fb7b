"""The statements that write, over the tables in memory: those of `store/sql/hot/`.

Each returns what it writes at the commit. Within one statement all reads see the rows from before it, as in Postgres.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any

import asyncpg

from noetl_broker.store.json_codec import dump_json, load_json
from noetl_broker.store.row_layout import EVENT, STEP, TURN
from tests.simulation.holds import hold_jobs, set_statuses
from tests.simulation.signals import add_look, reopen_waits, send_signals
from tests.simulation.sql_functions import STARTS
from tests.simulation.tables import (
    ENDED_JOBS,
    ENVELOPE,
    EXECUTION,
    INFINITY,
    LIVE,
    Row,
    Tables,
    execution_event,
    item_node_id,
    jsonb,
    jsonb_order,
)

# statements, like all functions of this module
__all__ = [
    "drain_jobs", "hold_jobs", "leave_undos", "reopen_waits", "send_signals", "set_statuses", "start_undos",
    "undo_unwanted_children", "write_undos",
]  # fmt: skip
from tests.simulation.undos import drain_jobs, leave_undos, start_undos, undo_unwanted_children, write_undos

Pending = Callable[[Tables], None]
Columns = Sequence[Sequence[Any]]

SOURCES = slice(3, 8)  # their places in the arguments of write_turns
SHORT = 17  # arguments without the rows of executions that begin
COLUMNS = (TURN, EVENT, STEP)  # of the rows of turns, events and steps; a missing one is null
LENGTHS = ({5, 8}, {14, 15}, {10})  # of rows: the last columns may be left out
OF_EVENTS = frozenset({"result", "error", "context", "starts_child"})  # rare columns that are not of the job
TEXTS = frozenset({"facts", "tokens", "job_action"})  # JSON within JSON
OF_TURNS = (*TURN[:5], "execution_id", "event_id", "decided_at", "result_event_id")
JOB_COLUMNS = "action context status priority max_attempts timeout delay attempts node_id type lacks_workload"


def documents(text: str, index: int) -> list[Row]:
    """Return the rows of the JSON document at this index of the arguments."""
    rows = load_json(text)
    if not {len(row) for row in rows} <= LENGTHS[index]:
        raise RuntimeError(f"a row is not {COLUMNS[index]}")
    return [_row(dict(zip_longest(COLUMNS[index], row))) for row in rows]


def _row(row: Row) -> Row:
    rare = row.pop("rare", None) or {}
    if "event_type" in row:  # whether the statement finds its result
        row["carries"] = "result" in rare or row["event_type"] == "step_failed"
    row |= {name if name in OF_EVENTS else f"job_{name}": item for name, item in rare.items()}
    for name, item in row.items():
        if item is not None and name in TEXTS:
            row[name] = load_json(item)
    return row


def sources(columns: Columns) -> list[Row]:
    """Return the execution, event and time of each turn, in order."""
    return _rows("execution_id catalog_id event_id at mail_id", columns[SOURCES])


def _after(source: Row, ordinal: int | None) -> datetime | None:
    """Return the time of the turn's event with this ordinal."""
    return None if ordinal is None else source["at"] + timedelta(microseconds=ordinal)


def _place_turns(turns: list[Row], sources: list[Row]) -> None:
    for row, source in zip(turns, sources, strict=True):
        row |= {"execution_id": source["execution_id"], "event_id": source["event_id"], "decided_at": source["at"]}
        row["last_at"] = _after(source, row["last"])


def _place_events(events: list[Row], sources: list[Row]) -> None:
    for row in events:
        source = sources[row.pop("source") - 1]
        row |= {"execution_id": source["execution_id"], "catalog_id": source["catalog_id"]}
        row |= {"parent_event_id": source["event_id"], "created_at": _after(source, row.pop("ordinal"))}


def _place_steps(steps: list[Row], sources: list[Row]) -> None:
    for row in steps:
        source, began = sources[row["source"] - 1], row["started_source"]
        row |= {"execution_id": source["execution_id"], "ended_at": _after(source, row["ended"])}
        row["started_at"] = None if began is None else _after(sources[began - 1], row["started"])
        row["result_event_id"] = None if row["result_source"] is None else sources[row["result_source"] - 1]["event_id"]


def _rows(names: str, columns: Columns) -> list[Row]:
    words = names.split()
    return [dict(zip(words, row, strict=True)) for row in zip(*columns, strict=True)]


def mark() -> Pending:
    """Set a savepoint; it is never used, because no row is refused here."""
    return lambda _tables: None


def missing_executions(tables: Tables, claimed: list[Row], held: set[int]) -> dict[int, Row]:
    """Return the rows of executions that were started by an inserted event."""
    rows: dict[int, Row] = {}
    for mail in claimed:
        event = tables.events[mail["event_id"]]
        owner = event["execution_id"]
        if event["event_type"].lower() in STARTS and owner in held and owner not in tables.executions | rows:
            playbook = tables.catalog.get(event["catalog_id"] or 0, {})
            rows[owner] = {**EXECUTION, "execution_id": owner, "started_at": event["created_at"]}
            rows[owner] |= {key: playbook.get(key) for key in ("catalog_id", "path", "version")}
    return rows


def insert_executions(rows: dict[int, Row]) -> Pending:
    """Insert executions that do not exist."""

    def write(tables: Tables) -> None:
        for owner, row in rows.items():
            tables.executions.setdefault(owner, row)

    return write


def _begin_executions(tables: Tables, begun: list[Row], shapes: dict[int, Any], events: list[Row]) -> None:
    """Write the workload, rules and tracking rows of started executions."""
    for row in begun:
        owner = row["execution_id"]
        tables.executions[owner] |= {"workload": jsonb(row["workload"]), "rules": jsonb(row["rules"])}
        changed = jsonb(row["changed"])
        for step in shapes[row["catalog_id"]]:
            known = [*changed.get(step["name"], ["PENDING", 0, None, None]), None, None, None]
            status, visits, started, ended, result_visit, event_id, carrier = known[:7]
            started_at, ended_at = (None if at is None else datetime.fromisoformat(at) for at in (started, ended))
            if carrier is not None:
                event_id = events[carrier - 1]["event_id"] if events[carrier - 1]["carries"] else None
            tables.workflow[owner, step["name"]] = {
                "execution_id": owner, "step_id": step["name"], "status": status, "visits": visits,
                "started_at": started_at, "ended_at": ended_at, "result_visit": result_visit,
                "result_event_id": event_id,
            }  # fmt: skip


def change_jobs(*columns: Sequence[Any]) -> Pending:
    """Change existing jobs."""
    changes = _rows("execution_id node_id status delay attempt", columns)
    return lambda tables: _change_jobs(tables, changes)


def withdraw_jobs(withdrawn: Sequence[int], *changed: Sequence[Any]) -> Pending:
    """Cancel the open jobs of ended executions, except those that this turn changes."""
    named = set(zip(*changed, strict=True))
    return lambda tables: _withdraw_jobs(tables, set(withdrawn), named)


def write_turns(tables: Tables, columns: Columns, *, defects: frozenset[str]) -> tuple[Row, Pending]:
    """Write all rows of a batch; return how many states moved, and the ids of children. So does write_first_turns."""
    turns, events, steps = (documents(str(text), index) for index, text in enumerate(columns[:3]))
    read = sources(columns)
    _place_turns(turns, read)
    _place_events(events, read)
    _place_steps(steps, read)
    jobs = [{name: event.pop(f"job_{name}", None) for name in JOB_COLUMNS.split()} for event in events]
    ended = _rows("execution_id status result error ended_at parent_node_id", columns[8:14])
    begun, shapes = [], {}
    if len(columns) > SHORT:
        begun = _rows("execution_id workload rules catalog_id changed", columns[14:19])
        shapes = {row["catalog_id"]: jsonb(row["steps"]) for row in _rows("catalog_id steps arcs tasks", columns[19:])}
    states = [row for row in turns if row["expected"] is not None]
    if "no_turn_key" not in defects:
        _check_keys(tables, turns, states)
    moved = [row for row in states if _moves(tables, row) or "no_turn_key" in defects]
    children = _name_events(tables, events)
    _name_results(turns, steps, events)

    def write(tables: Tables) -> None:
        _begin_executions(tables, begun, shapes, events)
        for row in turns:
            columns_ = {name: row[name] for name in OF_TURNS}
            tables.turns[row["execution_id"], row["turn"]] = {**columns_, "facts": jsonb_order(row["facts"])}
        for event in events:
            tables.insert_event(event, is_mail=False)
        for job, event in zip(jobs, events, strict=True):
            if job["status"] is not None:
                _insert_job(tables, job, event)
        for step in steps:
            _track(tables, step)
        _write_ends(tables, ended, moved)
        for source in read:
            tables.inbox.pop(source["mail_id"], None)

    same = [end for end in ended if _has_parent(tables, end)]
    caught = {
        str(ordinal): event["event_id"]
        for ordinal, event in enumerate(events, 1)
        if event["event_type"] == "iteration_completed" and event["carries"]
    }
    answer = {
        "moved": len(moved), "ended": len(same), "child_ordinals": [*children], "child_ids": [*children.values()],
        "item_results": caught or None,
    }  # fmt: skip
    return answer, write


def _name_events(tables: Tables, events: list[Row]) -> dict[int, int]:
    """Set the ids of events, and of the children that they start; return the children's ids by ordinal."""
    children: dict[int, int] = {}
    for ordinal, event in enumerate(events, 1):
        event["event_id"] = tables.next_id()
        for name in ("meta", "result", "error", "context"):
            event[name] = jsonb_order(event.get(name))
        if event.pop("starts_child", False):
            children[ordinal] = tables.next_id()
            event["context"] = {**event["context"], "child_execution_id": children[ordinal]}
    return children


def _name_results(turns: list[Row], steps: list[Row], events: list[Row]) -> None:
    """Set the result of turns and steps whose own event carries it."""
    for row in turns:
        row["result_event_id"] = None
    for row in (*turns, *steps):
        if row["carrier"] is not None and events[row["carrier"] - 1]["carries"]:
            row["result_event_id"] = events[row["carrier"] - 1]["event_id"]


def _has_parent(tables: Tables, end: Row) -> bool:
    """Tell whether an ended execution has the parent that the turn read."""
    found = tables.executions.get(end["execution_id"], {})  # it may have been inserted by this transaction
    return bool(found.get("parent_node_id") == end["parent_node_id"])


def _write_ends(tables: Tables, ended: list[Row], moved: list[Row]) -> None:
    """Write the ends and states of executions."""
    for end in ended:
        end |= {"result": jsonb(end["result"]), "error": jsonb(end["error"]), "over_id": tables.last_id}
        tables.executions[end["execution_id"]] |= end
    for state in moved:
        _move(tables, state)


def _check_keys(tables: Tables, turns: Iterable[Row], states: Iterable[Row]) -> None:
    """Raise if a turn or a first state exists."""
    taken = any((row["execution_id"], row["turn"]) in tables.turns for row in turns)
    if taken or any(row["expected"] == 0 and row["execution_id"] in tables.states for row in states):
        error = asyncpg.UniqueViolationError("duplicate key value violates unique constraint")
        error.constraint_name = "turn_pkey"
        raise error


def _moves(tables: Tables, state: Row) -> bool:
    found = tables.states.get(state["execution_id"])
    return bool(state["expected"] == (found["turn"] if found else 0))


def _withdraw_jobs(tables: Tables, withdrawn: set[int], named: set[tuple[int, str]]) -> None:
    for key, job in tables.queue.items():
        if key[0] in withdrawn and key not in named:
            _close_job(tables, job)


def _change_jobs(tables: Tables, changes: list[Row]) -> None:
    at = tables.clock()
    if len({(change["execution_id"], change["node_id"]) for change in changes}) < len(changes):
        raise RuntimeError("two changes of one job")
    for change in changes:
        found = tables.queue.get((change["execution_id"], change["node_id"]))
        if found is None or found["status"] in ENDED_JOBS:
            continue
        found |= {"status": change["status"], "stop": False, "lease_until": None, "updated_at": at}
        found["available_at"] = at + timedelta(seconds=change["delay"])
        found["attempts"] = max(found["attempts"], change["attempt"])
        if change["status"] in {"retry", "held", "delegated"}:
            found |= {"first_leased_at": None, "failures": found["failures"] + 1}


def _insert_job(tables: Tables, job: Row, event: Row) -> None:
    owner = event["execution_id"]
    at = tables.clock()
    node = job["node_id"] or event["node_id"]
    lacking = {"workload": tables.executions[owner]["workload"]} if job["lacks_workload"] is not None else {}
    is_delegated = job["status"] == "delegated"
    tables.insert_job(
        {
            **{key: job[key] for key in ("status", "priority", "max_attempts")},
            "action": dump_json(job["action"]),
            "timeout_seconds": job["timeout"],
            "node_type": job["type"],
            **{key: event[key] for key in ("execution_id", "catalog_id", "node_name", "event_id")},
            "queue_id": tables.next_id(),
            "node_id": node,
            "context": jsonb_order({**job["context"], **lacking}),
            "attempts": job["attempts"] or 0,
            "lost_leases": 0,
            "stop": False,
            "awaited": False,
            "failures": 0,
            "available_at": INFINITY if is_delegated else at + timedelta(seconds=job["delay"] or 0),
            "first_leased_at": at if is_delegated else None,
            "lease_until": None,
            "worker_id": None,
            "updated_at": event["created_at"],
        }
    )


def _track(tables: Tables, step: Row) -> None:
    row = tables.workflow.get((step["execution_id"], step["step"]))
    if row is None:
        return
    row |= {"status": step["status"], "visits": step["visits"], "ended_at": step["ended_at"]}
    row["started_at"] = step["started_at"] or row["started_at"]
    if step["result_visit"] is not None and step["result_visit"] >= (row["result_visit"] or 0):
        row |= {"result_visit": step["result_visit"]}
        row["result_event_id"] = step["result_event_id"] or row["result_event_id"]


def _move(tables: Tables, state: Row) -> None:
    owner = state["execution_id"]
    moved = {key: state[key] for key in ("execution_id", "turn", "last_at", "tokens")}
    tables.states[owner] = {**moved, "tokens": dump_json(state["tokens"])}


def write_waits(*columns: Sequence[Any]) -> Pending:
    """Write waits that began, and timers."""

    def write(tables: Tables) -> None:
        for row in _rows("execution_id node_id step kind request names key since_at details", columns[:9]):
            tables.waits[row["execution_id"], row["node_id"]] = {
                **row, "request": jsonb(row["request"]), "status": "open"
            }  # fmt: skip
            if row["kind"] == "signal":
                _open_signal_wait(tables, row)
        tables.timers += _rows("execution_id node_id step purpose due_at is_moment", columns[9:])

    return write


def _open_signal_wait(tables: Tables, row: Row) -> None:
    began = {"began_at": tables.clock(), "names": jsonb(row["names"])}
    since = tables.executions[row["execution_id"]]["started_at"] - timedelta(seconds=row["since_at"])
    tables.waits[row["execution_id"], row["node_id"]] |= {**began, "since_at": since}
    add_look(tables, execution_id=row["execution_id"], node_id=row["node_id"])


def end_waits(*columns: Sequence[Any]) -> Pending:
    """End waits, with their timers."""

    def write(tables: Tables) -> None:
        for row in _rows("execution_id node_id status", columns):
            node = row["execution_id"], row["node_id"]
            tables.timers = [timer for timer in tables.timers if (timer["execution_id"], timer["node_id"]) != node]
            if node in tables.waits:
                tables.waits[node]["status"] = row["status"]

    return write


def settle_executions(executions: Sequence[int]) -> Pending:
    """End the waits and timers of executions that ended."""

    def write(tables: Tables) -> None:
        tables.timers = [timer for timer in tables.timers if timer["execution_id"] not in executions]
        for (owner, _), wait in tables.waits.items():
            if owner in executions and wait["status"] in {"open", "signalled"}:
                wait["status"] = "cancelled"

    return write


def write_items(*columns: Sequence[Any]) -> Pending:
    """Write the items that iterators chose."""

    def write(tables: Tables) -> None:
        for row in _rows("execution_id node_id items", columns):
            for index, item in enumerate(jsonb(row["items"])):
                key = (row["execution_id"], row["node_id"], index)
                tables.iterations[key] = {
                    "execution_id": key[0], "node_id": key[1], "index": index, "item": item, "status": "WAITING",
                    "child_execution_id": None, "result_event_id": None, "error": None, "failures": 0,
                    "failed_attempt": 0, "unsure": False,
                }  # fmt: skip

    return write


def change_items(*columns: Sequence[Any]) -> Pending:
    """Write the statuses of items."""

    def write(tables: Tables) -> None:
        names = "execution_id node_id index status result_event_id error failures failed_attempt unsure"
        for row in _rows(names, columns):
            row["error"] = jsonb(row["error"])
            item = tables.iterations[row["execution_id"], row["node_id"], row["index"]]
            kept = {name: item[name] for name in ("failures", "failed_attempt", "unsure") if row[name] is None}
            if row["status"] == "RUNNING" and row["error"] is None:
                kept["error"] = item["error"]
            item |= {**row, **kept}

    return write


def write_posts(*columns: Any) -> Pending:
    """Write mail of executions to themselves; `iterator_completed` has the gathered results."""

    def write(tables: Tables) -> None:
        for row in _rows("execution_id node_id event_type", columns[:3]):
            job = tables.queue[row["execution_id"], row["node_id"]]
            is_end = row["event_type"] == "iterator_completed"
            event = {
                **row,
                **{key: job[key] for key in ("node_name", "node_type")},
                "parent_event_id": job["event_id"],
                "status": "COMPLETED" if is_end else "PENDING",
                "result": _gathered(tables, row) if is_end else None,
            }
            tables.insert_event(event)

    return write


def _gathered(tables: Tables, node: Row) -> list[Any]:
    found = [row for key, row in tables.iterations.items() if key[:2] == (node["execution_id"], node["node_id"])]
    found.sort(key=lambda row: row["index"])
    return [
        _unwrapped(tables.events[row["result_event_id"]]["result"]) if row["status"] == "COMPLETED" else None
        for row in found
    ]


def _unwrapped(result: Any) -> Any:
    if isinstance(result, dict) and "data" in result and not result.keys() - ENVELOPE:
        return result["data"]
    return result


def write_family(*columns: Sequence[Any]) -> Pending:
    """Write starts of children, answers to parents, and cancels of children."""
    children = _rows("execution_id node_id index path version payload meta child_id", [*columns[:7], columns[19]])
    answers = _rows("execution_id cause event_type node_id node_name status result error meta", columns[7:16])
    withdrawn = set(columns[16])
    abandoned = dict.fromkeys(zip(columns[17], columns[18], strict=True))
    awaited = set(zip(columns[20], columns[21], strict=True))

    def write(tables: Tables) -> None:
        orphans = _orphans(tables, withdrawn, abandoned)
        for child in children:
            _start_child(tables, child)
        for answer in answers:
            columns = {name: jsonb(answer[name]) for name in ("result", "error", "meta")}
            cause = answer.pop("cause")
            tables.insert_event({**answer, **columns, "parent_event_id": cause, "node_type": "playbook"})
        _cancel(tables, orphans)
        for key, item in tables.iterations.items():
            is_over = key[0] in withdrawn or key[:2] in abandoned
            if is_over and key[:2] not in awaited and item["status"] == "RUNNING":
                item["status"] = "CANCELLED"

    return write


def cancel_children_of_items(*columns: Sequence[Any]) -> Pending:
    """Cancel the children of items that timed out."""

    def write(tables: Tables) -> None:
        of_items = [
            child
            for owner, node, index in zip(*columns, strict=True)
            for child in tables.children_of(owner, node)
            if child["status"] in LIVE and child["parent_index"] == index
        ]
        _cancel(tables, of_items)

    return write


def _cancel(tables: Tables, children: Iterable[Row]) -> None:
    for child in children:
        columns = {"catalog_id": child["catalog_id"], "context": {"reason": "its parent ended or abandoned it"}}
        kind = "execution_abandon" if child.get("forked_from") else "execution_cancel"
        tables.insert_event(execution_event(child["execution_id"], kind, "CANCELLED", **columns))


def close_visits(*columns: Sequence[Any]) -> Pending:
    """Cancel the jobs of closed visits, and those of items that were given up; a leased one is told to stop."""
    visits = dict.fromkeys(zip(*columns, strict=True))
    return lambda tables: _close_visits(tables, visits)


def _orphans(tables: Tables, withdrawn: set[int], abandoned: Iterable[tuple[int, str]]) -> list[Row]:
    found = [child for owner in withdrawn for child in tables.children_of(owner)]
    found += [child for owner, node in abandoned if owner not in withdrawn for child in tables.children_of(owner, node)]
    return [child for child in found if child["status"] in LIVE]


def _close_visits(tables: Tables, visits: Iterable[tuple[int, str, bool]]) -> None:
    for owner, node, is_closed in visits:
        if is_closed:
            _close_job(tables, tables.queue.get((owner, node)))
        for key, item in tables.iterations.items():
            if key[:2] == (owner, node) and item["status"] == "RUNNING":
                _close_job(tables, tables.queue.get((owner, item_node_id(node, key[2]))))


def _close_job(tables: Tables, job: Row | None) -> None:
    if job is not None and job["status"] == "leased":
        job["stop"] = True
    elif job is not None and job["status"] in {"queued", "retry", "held", "failed", "delegated"}:
        job |= {"status": "cancelled", "updated_at": tables.clock()}


def _start_child(tables: Tables, child: Row) -> None:
    """Start the latest version of a playbook for a visit of its parent."""
    versions = [row for row in tables.catalog.values() if row["path"] == child["path"]]
    playbook = max(versions, key=lambda row: row["version"], default={})
    owner = child["child_id"] or tables.next_id()
    parent = child["execution_id"]
    tables.executions[owner] = {
        **EXECUTION,
        "execution_id": owner,
        **{key: playbook.get(key) for key in ("catalog_id", "version")},
        "path": child["path"],
        "started_at": tables.clock(),
        "parent_execution_id": parent,
        "parent_event_id": tables.queue[parent, child["node_id"]]["event_id"],
        "parent_node_id": child["node_id"],
        "parent_index": child["index"],
    }
    tables.insert_event(
        {
            "execution_id": owner,
            "catalog_id": playbook.get("catalog_id") or tables.executions[parent]["catalog_id"],
            "parent_event_id": tables.executions[owner]["parent_event_id"],
            "parent_execution_id": parent,
            "event_type": "execution_start",
            "node_id": str(owner),
            "node_name": playbook.get("name"),
            "node_type": "playbook",
            "status": "STARTED",
            "context": {
                "path": child["path"], "version": playbook.get("version"), "workload": jsonb(child["payload"])
            },
            "meta": jsonb(child["meta"]),
        }
    )  # fmt: skip
    node = child["node_id"] if child["index"] is None else item_node_id(child["node_id"], child["index"])
    job = tables.queue.get((parent, node))
    if job is not None:
        attempt = jsonb(child["meta"])["parent"]["attempt"]
        job |= {"attempts": attempt, "available_at": INFINITY, "first_leased_at": tables.clock()}
        if job["status"] == "failed":
            job["status"] = "delegated"
    if child["index"] is not None:
        item = tables.iterations[parent, child["node_id"], child["index"]]
        item |= {"status": "RUNNING", "child_execution_id": owner}


def move_to_dead_letters(mail_ids: Sequence[int], reason: str) -> Pending:
    """Move mail to the dead letters."""

    def write(tables: Tables) -> None:
        read = [tables.inbox.pop(mail_id) for mail_id in mail_ids if mail_id in tables.inbox]
        tables.dead_letters += [{**row, "reason": reason} for row in read]

    return write
