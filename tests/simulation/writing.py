"""The statements that write: `store/sql/turns.sql` and `family.sql` over the tables in memory.

Each gives what it will do at the commit. Within one statement all reads see what was there before it, as in Postgres.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any

import asyncpg

from noetl_broker.store.codec import dump_json, load_json
from tests.simulation.procedures import STARTS
from tests.simulation.tables import EXECUTION, INFINITY, Row, Tables, in_order, item_node_id, jsonb

Pending = Callable[[Tables], None]
Columns = Sequence[Sequence[Any]]

ENVELOPE = {"id", "status", "data", "error", "meta", "duration"}
SOURCES = slice(3, 8)  # their place among the arguments of write_turns
# The columns of the rows of turns, events and steps, by their place; what is not there is null.
TURN_COLUMNS = "turn outcome note facts failed"
EVENT_COLUMNS = "event_type node_id node_name node_type status meta"
COLUMNS = (
    f"{TURN_COLUMNS} expected last tokens deadline ends",
    f"source ordinal {EVENT_COLUMNS} job_action job_context job_status job_priority job_max_attempts job_type rare",
    "source step status visits ended started_source started result_visit result_source failed",
)
LENGTHS = ({5, 10}, {14, 15}, {10})  # of the rows: a turn may not be the last, and an event have nothing rare
OF_EVENTS = frozenset({"result", "error", "context", "starts_child"})  # what is rare, and not of their job
TEXTS = frozenset({"facts", "tokens", "job_action"})  # JSON within JSON
OF_TURNS = (*TURN_COLUMNS.split(), "execution_id", "event_id", "decided_at", "result_event_id")
JOB_COLUMNS = "action context status priority max_attempts timeout delay node_id type lacks_workload"
ENDED = frozenset({"done", "dead", "cancelled"})


def documents(text: str, place: int) -> list[Row]:
    """Return the rows of the JSON document at a place among the arguments."""
    rows = load_json(text)
    if not {len(row) for row in rows} <= LENGTHS[place]:
        raise RuntimeError(f"a row is not {COLUMNS[place]}")
    return [_row(dict(zip_longest(COLUMNS[place].split(), row))) for row in rows]


def _row(row: Row) -> Row:
    rare = row.pop("rare", None) or {}
    row |= {name if name in OF_EVENTS else f"job_{name}": item for name, item in rare.items()}
    for name, item in row.items():
        if item is not None and name in TEXTS:
            row[name] = load_json(item)
    return row


def sources(columns: Columns) -> list[Row]:
    """Return what each turn comes from, in their order."""
    return _rows("execution_id catalog_id event_id at mail_id", columns[SOURCES])


def _after(source: Row, ordinal: int | None) -> datetime | None:
    """The moment of the turn's event with this ordinal."""
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
    """Remember what is written so far; here no row is ever refused, so nobody returns to it."""
    return lambda _tables: None


def missing_executions(tables: Tables, claimed: list[Row], held: set[int]) -> dict[int, Row]:
    """Return the rows of executions that somebody started by inserting their event."""
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
    """Insert executions, where nobody else has."""

    def write(tables: Tables) -> None:
        for owner, row in rows.items():
            tables.executions.setdefault(owner, row)

    return write


def begin_executions(*columns: Sequence[Any]) -> Pending:
    """Write what is written once per execution."""
    begun = _rows("execution_id catalog_id workload rules", columns[:4])
    shapes = {row["catalog_id"]: jsonb(row["steps"]) for row in _rows("catalog_id steps arcs tasks", columns[4:])}

    def write(tables: Tables) -> None:
        for row in begun:
            owner = row["execution_id"]
            tables.executions[owner] |= {"workload": jsonb(row["workload"]), "rules": jsonb(row["rules"])}
            for step in shapes[row["catalog_id"]]:
                tables.workflow[owner, step["name"]] = {
                    "execution_id": owner, "step_id": step["name"], "status": "PENDING", "visits": 0,
                    "started_at": None, "ended_at": None, "result_visit": None, "result_event_id": None,
                }  # fmt: skip

    return write


def change_jobs(*columns: Sequence[Any]) -> Pending:
    """Change jobs that are there."""
    changes = _rows("execution_id node_id status delay", columns)
    return lambda tables: _change_jobs(tables, changes)


def withdraw_jobs(withdrawn: Sequence[int], *changed: Sequence[Any]) -> Pending:
    """Take back the jobs of executions that ended, but those that have just been changed."""
    named = set(zip(*changed, strict=True))
    return lambda tables: _withdraw_jobs(tables, set(withdrawn), named)


def write_turns(tables: Tables, columns: Columns, *, sloppy: frozenset[str]) -> tuple[Row, Pending]:
    """Write all rows of a batch of turns; tells how many executions moved, and the ids of children."""
    turns, events, steps = (documents(str(text), place) for place, text in enumerate(columns[:3]))
    read = sources(columns)
    _place_turns(turns, read)
    _place_events(events, read)
    _place_steps(steps, read)
    jobs = [{name: event.pop(f"job_{name}", None) for name in JOB_COLUMNS.split()} for event in events]
    ended = _rows("execution_id status result error ended_at parent_node_id", columns[8:])
    states = [row for row in turns if row["expected"] is not None]
    if "no_turn_key" not in sloppy:
        _check_keys(tables, turns, states)
    moved = [row for row in states if _moves(tables, row) or "no_turn_key" in sloppy]
    children = _name_events(tables, events)
    _name_results(turns, steps, events)

    def write(tables: Tables) -> None:
        for row in turns:
            told = {name: row[name] for name in OF_TURNS}
            tables.turns[row["execution_id"], row["turn"]] = {**told, "facts": in_order(row["facts"])}
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
    answer = {"moved": len(moved), "ended": len(same), "child_ordinals": [*children], "child_ids": [*children.values()]}
    return answer, write


def _name_events(tables: Tables, events: list[Row]) -> dict[int, int]:
    """Give the events their ids, and ids to the children that some of them start; returns those by ordinal."""
    children: dict[int, int] = {}
    for ordinal, event in enumerate(events, 1):
        event["event_id"] = tables.next_id()
        for name in ("meta", "result", "error", "context"):
            event[name] = in_order(event.get(name))
        if event.pop("starts_child", False):
            children[ordinal] = tables.next_id()
            event["context"] = {**event["context"], "child_execution_id": children[ordinal]}
    return children


def _name_results(turns: list[Row], steps: list[Row], events: list[Row]) -> None:
    """Let turns and steps name the step_failed that has their result, where one does."""
    for row in turns:
        row["result_event_id"] = None
    for row in (*turns, *steps):
        if row["failed"] is not None:
            row["result_event_id"] = events[row["failed"] - 1]["event_id"]


def _has_parent(tables: Tables, end: Row) -> bool:
    """Tell whether an execution that ends still has the parent that was seen."""
    found = tables.executions.get(end["execution_id"], {})  # it may have been inserted by this transaction
    return bool(found.get("parent_node_id") == end["parent_node_id"])


def _write_ends(tables: Tables, ended: list[Row], moved: list[Row]) -> None:
    """Write where executions stand."""
    for end in ended:
        end |= {"result": jsonb(end["result"]), "error": jsonb(end["error"]), "over_id": tables.last_id}
        tables.executions[end["execution_id"]] |= end
    for state in moved:
        _move(tables, state)


def _check_keys(tables: Tables, turns: Iterable[Row], states: Iterable[Row]) -> None:
    """Refuse a turn, or a first state, that is there already."""
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
        taken_back = job["status"] in {"queued", "retry", "failed", "delegated"}
        if key[0] in withdrawn and taken_back and key not in named:
            job |= {"status": "cancelled", "updated_at": tables.clock()}


def _change_jobs(tables: Tables, changes: list[Row]) -> None:
    at = tables.clock()
    if len({(change["execution_id"], change["node_id"]) for change in changes}) < len(changes):
        raise RuntimeError("two changes of one job: which of them an update takes is not said")
    for change in changes:
        found = tables.queue.get((change["execution_id"], change["node_id"]))
        if found is None or found["status"] in ENDED:
            continue
        found |= {"status": change["status"], "lease_until": None, "updated_at": at}
        found["available_at"] = at + timedelta(seconds=change["delay"])
        if change["status"] in {"retry", "delegated"}:
            found |= {"first_leased_at": None, "failures": found["failures"] + 1}


def _insert_job(tables: Tables, job: Row, event: Row) -> None:
    owner = event["execution_id"]
    at = tables.clock()
    node = job["node_id"] or event["node_id"]
    lacking = {"workload": tables.executions[owner]["workload"]} if job["lacks_workload"] else {}
    is_delegated = job["status"] == "delegated"
    tables.queue[owner, node] = {
        **{key: job[key] for key in ("status", "priority", "max_attempts")},
        "action": dump_json(job["action"]),
        "timeout_seconds": job["timeout"],
        "node_type": job["type"],
        **{key: event[key] for key in ("execution_id", "catalog_id", "node_name", "event_id")},
        "queue_id": tables.next_id(),
        "node_id": node,
        "context": in_order({**job["context"], **lacking}),
        "attempts": 0,
        "lost_leases": 0,
        "failures": 0,
        "available_at": INFINITY if is_delegated else at + timedelta(seconds=job["delay"] or 0),
        "first_leased_at": at if is_delegated else None,
        "lease_until": None,
        "worker_id": None,
        "updated_at": event["created_at"],
    }


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
    deadline = None if state["ends"] else tables.states.get(owner, {"deadline_at": None})["deadline_at"]
    if state["deadline"] is not None and not state["ends"]:
        deadline = tables.clock() + timedelta(seconds=state["deadline"])
    moved = {key: state[key] for key in ("execution_id", "turn", "last_at", "tokens")}
    tables.states[owner] = {**moved, "tokens": dump_json(state["tokens"]), "deadline_at": deadline}


def write_items(*columns: Sequence[Any]) -> Pending:
    """Write the items that iterators chose."""

    def write(tables: Tables) -> None:
        for row in _rows("execution_id node_id items", columns):
            for place, item in enumerate(jsonb(row["items"])):
                key = (row["execution_id"], row["node_id"], place)
                tables.iterations[key] = {
                    "execution_id": key[0], "node_id": key[1], "place": place, "item": item, "status": "WAITING",
                    "child_execution_id": None, "result_event_id": None, "error": None,
                }  # fmt: skip

    return write


def change_items(*columns: Sequence[Any]) -> Pending:
    """Note where items stand."""

    def write(tables: Tables) -> None:
        for row in _rows("execution_id node_id place status result_event_id error", columns):
            row["error"] = jsonb(row["error"])
            tables.iterations[row["execution_id"], row["node_id"], row["place"]] |= row

    return write


def write_posts(*columns: Any) -> Pending:
    """Write the letters of executions to themselves; `iterator_completed` carries the gathered results."""

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
    found.sort(key=lambda row: row["place"])
    return [
        _unwrapped(tables.events[row["result_event_id"]]["result"]) if row["status"] == "COMPLETED" else None
        for row in found
    ]


def _unwrapped(result: Any) -> Any:
    if isinstance(result, dict) and "data" in result and not result.keys() - ENVELOPE:
        return result["data"]
    return result


def write_family(*columns: Sequence[Any]) -> Pending:
    """Write children to start, answers to parents, children to cancel."""
    children = _rows("execution_id node_id place path version payload meta child_id", [*columns[:7], columns[19]])
    letters = _rows("execution_id cause event_type node_id node_name status result error meta", columns[7:16])
    withdrawn = set(columns[16])
    abandoned = dict.fromkeys(zip(columns[17], columns[18], strict=True))

    def write(tables: Tables) -> None:
        orphans = _orphans(tables, withdrawn, abandoned)
        _cancel_items(tables, abandoned)
        for child in children:
            _start_child(tables, child)
        for letter in letters:
            columns = {name: jsonb(letter[name]) for name in ("result", "error", "meta")}
            cause = letter.pop("cause")
            tables.insert_event({**letter, **columns, "parent_event_id": cause, "node_type": "playbook"})
        for orphan in orphans:
            tables.insert_event(
                {
                    "execution_id": orphan["execution_id"],
                    "catalog_id": orphan["catalog_id"],
                    "event_type": "execution_cancel",
                    "node_id": str(orphan["execution_id"]),
                    "node_type": "playbook",
                    "status": "CANCELLED",
                    "context": {"reason": "its parent ended or gave it up"},
                }
            )

    return write


def _orphans(tables: Tables, withdrawn: set[int], abandoned: Iterable[tuple[int, str]]) -> list[Row]:
    found = [child for owner in withdrawn for child in tables.children_of(owner)]
    found += [child for owner, node in abandoned if owner not in withdrawn for child in tables.children_of(owner, node)]
    return [child for child in found if child["status"] == "RUNNING"]


def _cancel_items(tables: Tables, abandoned: Iterable[tuple[int, str]]) -> None:
    """Take back the queued jobs of the items of iterators that gave up."""
    for owner, node in abandoned:
        for key, item in tables.iterations.items():
            job = tables.queue.get((owner, item_node_id(node, key[2])))
            is_open = key[:2] == (owner, node) and item["status"] == "RUNNING"
            if is_open and job is not None and job["status"] in {"queued", "retry", "failed"}:
                job |= {"status": "cancelled", "updated_at": tables.clock()}


def _start_child(tables: Tables, child: Row) -> None:
    """Start the latest version of a playbook for a visit of another execution."""
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
        "parent_index": child["place"],
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
    if child["place"] is None:
        job = tables.queue[parent, child["node_id"]]
        attempt = jsonb(child["meta"])["parent"]["attempt"]
        job |= {"attempts": attempt, "available_at": INFINITY, "first_leased_at": tables.clock()}
        if job["status"] == "failed":
            job["status"] = "delegated"
    else:
        item = tables.iterations[parent, child["node_id"], child["place"]]
        item |= {"status": "RUNNING", "child_execution_id": owner}


def set_aside(mail_ids: Sequence[int], reason: str) -> Pending:
    """Move mail to the dead letters."""

    def write(tables: Tables) -> None:
        read = [tables.inbox.pop(mail_id) for mail_id in mail_ids if mail_id in tables.inbox]
        tables.dead_letters += [{**row, "reason": reason} for row in read]

    return write
