"""Undos over the tables in memory: what 0023_undo.sql and its statements do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from noetl_broker.store.json_codec import load_json
from tests.simulation.sql_functions import is_undo
from tests.simulation.tables import (
    ENVELOPE,
    EXECUTION,
    INFINITY,
    LIVE,
    Row,
    Tables,
    execution_event,
    item_node_id,
    jsonb,
)

SUCCESSES = frozenset({"action_completed", "execution_complete", "iterator_completed"})
Pending = Callable[[Tables], None]
OPEN_JOBS = frozenset({"queued", "retry", "held", "failed", "delegated", "leased"})
UNTOUCHED = frozenset({"queued", "retry", "held"})  # jobs that no worker has, and that nobody else starts
WITHDRAWN: Row = {"message": "the job was withdrawn, because its execution ends", "type": "withdrawn"}
LEFT = frozenset({"open", "failed"})
DOUBTFUL = frozenset({"unknown", "running"})
Node = tuple[int, str]


def undo_executions(tables: Tables, execution_id: int) -> Iterator[int]:
    """Yield an execution and those that took over its rows."""
    found = [execution_id]
    for owner in found:
        takers = dict.fromkeys(row["taken_by"] for key, row in tables.undos.items() if key[0] == owner)
        found += [taker for taker in takers if taker is not None and taker not in found]
    yield from found


def origin_of(tables: Tables, execution_id: int) -> int:
    """Return the execution whose actions an undo execution undoes; another execution is its own."""
    for event in tables.events_of[execution_id]:
        if event["event_type"] == "execution_start" and "undo" in (event["meta"] or {}):
            found: int = event["meta"]["undo"]["origin"]
            return found
    return execution_id


def undo_execution(tables: Tables, execution_id: int, *, unknown: bool) -> int | None:
    """Start an execution that undoes what is left of an ended one; None if that is refused."""
    if tables.executions[execution_id]["status"] == "COMPLETED":
        return None  # that is allowed, but nobody does it here
    owners = [execution_id, *_undone_beside(tables, origin_of(tables, execution_id))]
    above = tables.executions[execution_id]["parent_execution_id"]
    while above is not None:
        owners.append(above)
        above = tables.executions[above]["parent_execution_id"]
    if any(tables.executions[owner]["status"] in LIVE for owner in owners) or not _left(tables, execution_id, unknown):
        return None
    return start_undo(tables, execution_id, unknown=unknown)


def _undone_beside(tables: Tables, origin: int) -> Iterator[int]:
    """Yield the executions that undo what an execution, one above it, or one of its children did."""
    above = [origin]
    for one in above:
        parent = tables.executions[one]["parent_execution_id"]
        rows = [row for key, row in tables.undos.items() if key[0] == parent]
        above += [parent] if parent is not None and any(row["child_execution_id"] == one for row in rows) else []
        yield from undo_executions(tables, one)
    below = [origin]
    for one in below:
        for row in [row for key, row in tables.undos.items() if key[0] == one]:
            named = (row["taken_by"], row["child_execution_id"])
            below += [number for number in named if number is not None and number not in below]
    yield from below


def _left(tables: Tables, execution_id: int, unknown: bool) -> list[Node]:
    statuses = LEFT | DOUBTFUL if unknown else LEFT
    owners = [
        owner for owner in undo_executions(tables, execution_id) if tables.executions[owner]["status"] not in LIVE
    ]
    return [key for key, row in tables.undos.items() if key[0] in owners and row["status"] in statuses]


def start_undo(tables: Tables, execution_id: int, *, unknown: bool = False, **columns: Any) -> int:
    """Start an execution that takes over what is left to undo; `columns` are those of its parent, and its meta."""
    source, number = tables.executions[execution_id], tables.next_id()
    meta = columns.pop("meta", {})
    kept = {name: source[name] for name in ("catalog_id", "path", "version")}
    tables.executions[number] = {
        **EXECUTION, **kept, "execution_id": number, "started_at": tables.clock(), **columns,
        "forked_from": execution_id,
    }  # fmt: skip
    keys = _left(tables, execution_id, unknown)
    origin = origin_of(tables, execution_id)
    doubtful = sum(tables.undos[key]["status"] in DOUBTFUL for key in keys)
    _take_over(tables, keys, number)
    undo = {"execution_id": execution_id, "origin": origin, "rows": len(keys), "unknown": doubtful}
    undo |= {"error": _undo_error(tables, source), **meta.get("undo", {})}
    event = execution_event(number, "execution_start", "STARTED", parent_event_id=columns.get("parent_event_id"))
    tables.insert_event(
        {
            **event,
            "parent_execution_id": columns.get("parent_execution_id"),
            "catalog_id": source["catalog_id"],
            "node_name": tables.name_of(number),
            "context": {
                "path": source["path"], "version": source["version"], "workload": source["workload"] or {}
            },
            "meta": {**meta, "forked_from": execution_id, "undo": undo},
        }
    )  # fmt: skip
    return number


def _undo_error(tables: Tables, source: Row) -> Any:
    """Return the error that the undos of an execution are told."""
    for event in tables.events_of[source["execution_id"]]:
        if event["event_type"] == "execution_compensating":
            return event["error"]
    return source["error"] or {"message": "it is undone after it completed", "type": "undo"}


def _take_over(tables: Tables, keys: list[Node], number: int) -> None:
    """Move rows to another execution, numbered in the order of the successes."""
    old = [tables.undos[key] for key in keys]
    taken = [{**row, "inputs": undo_inputs(tables, row), "result": undo_result(tables, row)} for row in old]
    origins = {key: _origin_turn(tables, tables.undos[key]) for key in keys}
    taken.sort(key=lambda row: (origins[row["execution_id"], row["node_id"]], *_index_key(row), row["node_id"]))
    for row in old:
        row |= {"status": "taken", "taken_by": number}
    for turn, row in enumerate(taken, 1):
        node_id = f"{number}:{row['node_id'].partition(':')[2]}"
        moved = {"execution_id": number, "node_id": node_id, "turn": turn, "status": "open", "error": None}
        tables.undos[number, node_id] = {**row, **moved}


def _index_key(row: Row) -> tuple[bool, int]:
    return row["index"] is not None, row["index"] or 0


def _origin_turn(tables: Tables, row: Row) -> int:
    """Return the turn of the success, in the execution that did it."""
    origin = origin_of(tables, row["execution_id"])
    turn: int = tables.undos[origin, f"{origin}:{row['node_id'].partition(':')[2]}"]["turn"]
    return turn


def undo_inputs(tables: Tables, row: Row) -> Row:
    """Return what the templates of an undo read of the visit or the item: {action, item, total}."""
    if row["inputs"] is not None:
        return dict(row["inputs"])
    owner, visit = row["execution_id"], row["node_id"].partition(".")[0]
    if row["index"] is None:
        return {"action": load_json(tables.queue[owner, row["node_id"]]["action"])}
    visit = visit.removesuffix("#1")
    items = {key[2]: item for key, item in tables.iterations.items() if key[:2] == (owner, visit)}
    action = item_action(tables, owner, visit, row["index"])
    return {"action": action, "item": items[row["index"]]["item"], "total": len(items)}


def item_action(tables: Tables, owner: int, visit: str, index: int) -> Any:
    """Return the action of an item's job, or {args: the payload of its child}."""
    job = tables.queue.get((owner, item_node_id(visit, index)))
    if job is not None:
        return load_json(job["action"])
    child = tables.iterations[owner, visit, index]["child_execution_id"]
    start = next(event for event in tables.events_of[child] if event["event_type"] == "execution_start")
    return {"args": start["context"]["workload"]}


def undo_result(tables: Tables, row: Row) -> Any:
    """Return the result of a visit or an item that is to be undone."""
    if row["inputs"] is not None:
        return row["result"]
    turn = tables.turns[row["execution_id"], row["turn"]]
    made = tables.events.get(turn["result_event_id"])
    is_output = made is not None and made["event_type"] in {"step_completed", "step_failed"}
    event = made if made is not None and is_output else tables.events[turn["event_id"]]
    return _unwrapped(event["result"]) if is_output or event["event_type"].lower() in SUCCESSES else None


def _unwrapped(result: Any) -> Any:
    if isinstance(result, dict) and "data" in result and not result.keys() - ENVELOPE:
        return result["data"]
    return result


def abandon_execution(tables: Tables, execution_id: int) -> bool:
    """Insert a request to end an undo; false if the execution does not undo."""
    if tables.executions[execution_id]["status"] != "COMPENSATING":
        return False
    event = execution_event(execution_id, "execution_abandon", "PENDING", context={"reason": "simulated"})
    tables.insert_event(event)
    return True


# Statements.


def write_undos(*columns: Sequence[Any]) -> Pending:
    """Write and change rows of what is to be undone."""

    def write(tables: Tables) -> None:
        for owner, step, visit in zip(*columns[13:16], strict=True):
            for row in tables.undos.values():
                same = (row["execution_id"], row["step"], row["visit"]) == (owner, step, visit)
                if same and row["index"] is not None and row["status"] == "open":
                    row["status"] = "superseded"
        for owner, node_id, status, error in zip(*columns[9:13], strict=True):
            row = tables.undos[owner, node_id]
            if row["status"] in {"open", "running", "unknown"}:
                row |= {"status": status, "error": jsonb(error)}
        for owner, node_id in zip(*columns[16:18], strict=True):
            tables.queue[owner, node_id]["node_name"] += "!undo"
        names = ("execution_id", "node_id", "step", "visit", "index", "turn", "status", "child_execution_id", "error")
        for values in zip(*columns[:9], strict=True):
            new: Row = {"inputs": None, "result": None, "taken_by": None, **dict(zip(names, values, strict=True))}
            new["error"] = jsonb(new["error"])
            old = tables.undos.get((new["execution_id"], new["node_id"]))
            if old is None or old["status"] in {"open", "unknown"}:
                tables.undos[new["execution_id"], new["node_id"]] = new

    return write


def leave_undos(_executions: Sequence[int]) -> Pending:
    """Note when executions left rows; nothing here reads that."""
    return lambda _tables: None


def start_undos(*columns: Sequence[Any]) -> Pending:
    """Start executions that undo a child, as children of an execution that undoes."""

    def write(tables: Tables) -> None:
        for owner, node_id, child_id, meta in zip(*columns, strict=True):
            job, given = tables.queue[owner, node_id], jsonb(meta)
            parent = {"parent_execution_id": owner, "parent_node_id": node_id, "parent_event_id": job["event_id"]}
            start_undo(tables, child_id, meta=given, **parent)
            job |= {"attempts": given["parent"]["attempt"], "available_at": INFINITY, "first_leased_at": tables.clock()}
            if job["status"] == "failed":
                job["status"] = "delegated"

    return write


def undo_unwanted_children(*columns: Sequence[Any]) -> Pending:
    """Start executions that undo children which completed in vain."""

    def write(tables: Tables) -> None:
        for owner, child_id in zip(*columns, strict=True):
            is_open = any(key[0] == child_id and row["status"] == "open" for key, row in tables.undos.items())
            named = (row["child_execution_id"] for key, row in tables.undos.items() if key[0] == owner)
            if is_open and child_id not in named:
                error = {"message": "its parent ended or gave it up", "type": "cancelled"}
                start_undo(tables, child_id, meta={"undo": {"error": error}})

    return write


def drain_jobs(*columns: Sequence[Any]) -> Pending:
    """Withdraw the jobs of executions that undo, and of awaited visits; what no worker has reports that."""
    visits = set(zip(*columns[1:3], strict=True))

    def write(tables: Tables) -> None:
        for (owner, node_id), job in tables.queue.items():
            is_awaited = (owner, _visit_of(node_id)) in visits
            chosen = owner in columns[0] or (is_awaited and _is_open_item(tables, owner, node_id))
            if chosen and not is_undo(node_id) and job["status"] in OPEN_JOBS:
                _drain(tables, job, is_awaited=is_awaited)
        for owner, node_id in zip(*columns[3:5], strict=True):
            job = tables.queue.get((owner, node_id)) or tables.queue[owner, _visit_of(node_id)]
            _tell(tables, job, node_id)

    return write


def _visit_of(node_id: str) -> str:
    """Return the node of the visit of an item; that of a visit is its own."""
    visit, dot, _ = node_id.rpartition(".")
    return visit.removesuffix("#1") if dot else node_id


def _is_open_item(tables: Tables, owner: int, node_id: str) -> bool:
    visit = _visit_of(node_id)
    if visit == node_id:
        return True
    return bool(tables.iterations[owner, visit, int(node_id.rpartition(".")[2])]["status"] == "RUNNING")


def _drain(tables: Tables, job: Row, *, is_awaited: bool) -> None:
    was = job["status"]
    if is_awaited and was == "failed":
        return  # its event is on the way
    if was == "leased":
        job |= {"stop": not is_awaited, "awaited": is_awaited}
        return
    job |= {"status": "cancelled", "awaited": is_awaited, "updated_at": tables.clock()}
    if is_awaited and was in UNTOUCHED:
        _tell(tables, job, job["node_id"])


def _tell(tables: Tables, job: Row, node_id: str) -> None:
    """Tell an awaited visit or item that its job was withdrawn before a worker leased it."""
    columns = {key: job[key] for key in ("execution_id", "catalog_id", "node_name", "node_type")}
    meta = {"queue_id": job["queue_id"], "attempt": job["attempts"] + 1, "retryable": False}
    tables.insert_event(
        {
            **columns, "node_id": node_id, "parent_event_id": job["event_id"], "event_type": "action_failed",
            "status": "FAILED", "error": dict(WITHDRAWN), "meta": meta,
        }
    )  # fmt: skip
