"""The statements that read: `store/sql/loading.sql` and `history.sql` over the tables in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noetl_broker.store.codec import dump_json, load_json
from noetl_broker.store.rows import MICROSECOND
from tests.simulation.tables import Row, Tables, in_order

if TYPE_CHECKING:
    from tests.simulation.connection import Server

OF_EXECUTION = ("catalog_id", "path", "version")
OF_PARENT = ("parent_execution_id", "parent_event_id", "parent_node_id", "parent_index")
FAILURES = frozenset({"action_failed", "action_error"})


def mail_rows(server: Server, claimed: list[Row], missing: dict[int, Row]) -> list[Row]:
    """Return mail with all that nearly every decision needs: what `noetl.take_mail` returns.

    `missing`: executions that this transaction has just inserted.
    """
    return [{**mail, **_told(server, mail, missing)} for mail in claimed]


def _told(server: Server, mail: Row, missing: dict[int, Row]) -> Row:
    tables = server.tables
    event = tables.events[mail["event_id"]]
    execution = tables.executions.get(mail["execution_id"]) or missing.get(mail["execution_id"], {})
    state = tables.states.get(mail["execution_id"], {})
    fails = event["event_type"].lower() in FAILURES
    is_large = not fails and event["result"] is not None and len(dump_json(event["result"])) > server.large_bytes
    job = tables.queue.get((mail["execution_id"], event["node_id"] or ""), {})
    at = tables.clock()
    server.leases_seen[mail["event_id"]] = job.get("attempts", 0)
    return {
        **{key: execution.get(key) for key in OF_EXECUTION + OF_PARENT},
        **{key: event[key] for key in ("event_type", "node_id", "node_name", "error", "meta")},
        "at": max(at, *(before + MICROSECOND for before in (event["created_at"], state.get("last_at")) if before)),
        "waited": (at - event["created_at"]).total_seconds(),
        "rules": dump_json(execution["rules"]) if execution.get("rules") else None,
        "context": None if event["event_type"].lower().startswith("action") else event["context"],
        "result": None if is_large else event["result"],
        "result_left": is_large,
        "broken": False,
        "job_attempts": job.get("attempts") if fails else None,
        "name": tables.catalog.get(execution.get("catalog_id") or 0, {}).get("name"),
        "turn": state.get("turn"),
        "tokens": load_json(state["tokens"]) if state else None,
        "workload": execution.get("workload"),
        "bytes_over": None,
        "oversize": None,
    }


def load_content(tables: Tables, catalog_id: int, _most_bytes: int) -> list[Row]:
    """Return the text of a playbook."""
    row = tables.catalog.get(catalog_id)
    return [] if row is None else [{**row, "bytes": len(row["content"])}]


def load_results(
    tables: Tables,
    of_steps: list[int],
    names: list[str],
    of_turns: list[int],
    turns: list[int],
    of_events: list[int],
    events: list[int],
) -> list[Row]:
    """Return the latest results of steps, those of earlier turns, and those of events too large to come along.

    All of them fit.
    """
    none = {"step_name": None, "result_visit": None, "turn": None, "fits": True}
    found = []
    for key in zip(of_steps, names, strict=True):
        row = tables.workflow.get(key)
        if row is not None and row["result_event_id"] is not None:
            event = tables.events[row["result_event_id"]]
            found.append({**none, **event, "step_name": key[1], "result_visit": row["result_visit"]})
    read = [key for key in zip(of_turns, turns, strict=True) if key in tables.turns]
    handed = {key: tables.turns[key]["result_event_id"] or tables.turns[key]["event_id"] for key in read}
    found += [{**none, **tables.events[event_id], "turn": key[1]} for key, event_id in handed.items()]
    return found + [{**none, **tables.events[event_id]} for _, event_id in zip(of_events, events, strict=True)]


def load_workloads(tables: Tables, executions: list[int]) -> list[Row]:
    """Return the workloads of executions."""
    found = [tables.executions[execution] for execution in executions if execution in tables.executions]
    return [{**row, "fits": True} for row in found]


def load_actions(tables: Tables, executions: list[int], nodes: list[str]) -> list[Row]:
    """Return what jobs say."""
    found = []
    for key in zip(executions, nodes, strict=True):
        if key in tables.queue:
            row = tables.queue[key]
            found.append({**row, "action": in_order(load_json(row["action"])), "fits": True})
    return found


def load_items(
    tables: Tables, executions: list[int], nodes: list[str], firsts: list[int], counts: list[int]
) -> list[Row]:
    """Return some items of iterators."""
    found = []
    for execution, node, first, count in zip(executions, nodes, firsts, counts, strict=True):
        keys = [(execution, node, place) for place in range(first, first + count)]
        items = [tables.iterations[key]["item"] for key in keys if key in tables.iterations]
        found.append(
            {"execution_id": execution, "node_id": node, "first": first, "count": count, "items": items, "fits": True}
        )
    return found


def load_item_statuses(tables: Tables, executions: list[int], nodes: list[str], places: list[int]) -> list[Row]:
    """Return where items stand."""
    keys = zip(executions, nodes, places, strict=True)
    return [tables.iterations[key] for key in keys if key in tables.iterations]


def load_failed(
    tables: Tables, executions: list[int], nodes: list[str], _steps: list[str], _visits: list[int]
) -> list[Row]:
    """Return the failed items of iterators."""
    found = []
    for execution, node in zip(executions, nodes, strict=True):
        rows = [row for key, row in sorted(tables.iterations.items()) if key[:2] == (execution, node)]
        failed = [{"index": row["place"], "error": row["error"]} for row in rows if row["status"] == "FAILED"]
        found.append({"execution_id": execution, "node_id": node, "failed": failed, "fits": True})
    return found


def history_heads(tables: Tables, executions: list[int]) -> list[Row]:
    """Return where executions stand."""
    return [_head(tables, execution_id) for execution_id in sorted(executions)]


def _head(tables: Tables, execution_id: int) -> Row:
    execution = tables.executions.get(execution_id, {})
    state = tables.states.get(execution_id, {})
    columns = ("catalog_id", "path", "version", "status", "rules", "workload", "result", "error")
    return {
        **{key: execution.get(key) for key in columns},
        "execution_id": execution_id,
        "tokens": load_json(state["tokens"]) if state else None,
        "turn": state.get("turn"),
        "set_aside": sum(row["execution_id"] == execution_id for row in tables.dead_letters),
    }


def history_turns(tables: Tables, executions: list[int]) -> list[Row]:
    """Return each turn with the event that it read."""
    return [_turn(tables, row) for key, row in sorted(tables.turns.items()) if key[0] in executions]


def _turn(tables: Tables, row: Row) -> Row:
    event = tables.events[row["event_id"]]
    facts: dict[str, Any] = row["facts"] or {}
    return {
        **event,
        **row,
        "context": None if event["event_type"].lower().startswith("action") else event["context"],
        "result_left": False,
        "broken": facts.get("broken", False),
        "bytes_over": facts.get("bytes_over"),
        "oversize": facts.get("oversize"),
        "job_attempts": facts.get("attempt"),
    }


def history_events(tables: Tables, executions: list[int]) -> list[Row]:
    """Return what the broker wrote."""
    rows = [
        row for row in tables.events.values() if row["execution_id"] in executions and "turn" in (row["meta"] or {})
    ]
    return sorted(rows, key=lambda row: (row["execution_id"], row["created_at"], row["event_id"]))


def history_jobs(tables: Tables, executions: list[int]) -> list[Row]:
    """Return the jobs of executions."""
    rows = sorted((item for item in tables.queue.items() if item[0][0] in executions), key=lambda item: item[0])
    return [{**row, "same_workload": False} for _, row in rows]


def history_rows(tables: Tables, executions: list[int]) -> list[Row]:
    """Return the tracking rows of executions."""
    return [row for key, row in sorted(tables.workflow.items()) if key[0] in executions]


def history_taken(_tables: Tables, _executions: list[int]) -> list[Row]:
    """Return nothing: there are no forks here."""
    return []
