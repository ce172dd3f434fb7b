"""The statements that read, over the tables in memory: those of `store/sql/hot/`, and those that read histories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from noetl_broker.playbook.keywords import LANGUAGE
from noetl_broker.store.claimed_rows import MICROSECOND
from noetl_broker.store.json_codec import dump_json, load_json
from tests.simulation import undos
from tests.simulation.signals import is_doubled
from tests.simulation.sql_functions import STARTS
from tests.simulation.tables import Row, Tables, jsonb_order

if TYPE_CHECKING:
    from tests.simulation.connection import Server

OF_EXECUTION = ("catalog_id", "path", "version")
OF_PARENT = ("parent_execution_id", "parent_event_id", "parent_node_id", "parent_index")
FAILURES = frozenset({"action_failed", "action_error"})


def mail_rows(server: Server, claimed: list[Row], missing: dict[int, Row]) -> list[Row]:
    """Return claimed mail with what most decisions need, as `noetl.take_mail` does.

    `missing`: executions that this transaction inserts.
    """
    return [{**mail, **_mail_row(server, mail, missing)} for mail in claimed]


def _mail_row(server: Server, mail: Row, missing: dict[int, Row]) -> Row:
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
        "is_doubled": is_doubled(tables, event),
        "name": tables.catalog.get(execution.get("catalog_id") or 0, {}).get("name"),
        "turn": state.get("turn"),
        "tokens": state["tokens"] if state else None,
        "workload": execution.get("workload"),
        "bytes_over": None,
        "oversize": None,
        "path_paused": event["event_type"].lower() in STARTS and execution.get("path") in tables.paused_paths,
    }


def load_content(tables: Tables, catalog_id: int, _most_bytes: int) -> list[Row]:
    """Return the text of a playbook."""
    row = tables.catalog.get(catalog_id)
    return [] if row is None else [{"language": LANGUAGE, **row, "bytes": len(row["content"])}]


def load_results(
    tables: Tables,
    of_steps: list[int],
    names: list[str],
    of_turns: list[int],
    turns: list[int],
    of_events: list[int],
    events: list[int],
) -> list[Row]:
    """Return the latest results of steps, results of turns, and large results of events; no limit applies."""
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
    """Return the actions of jobs."""
    found = []
    for key in zip(executions, nodes, strict=True):
        if key in tables.queue:
            row = tables.queue[key]
            found.append({**row, "action": jsonb_order(load_json(row["action"])), "fits": True})
        if key in tables.waits:
            row = tables.waits[key]
            found.append({**row, "action": jsonb_order(row["request"]), "fits": True})
    return found


def load_signals(
    tables: Tables, executions: list[int], turns: list[int], _of_events: list[int], _events: list[int]
) -> list[Row]:
    """Return the contexts of the signals that were read in these turns."""
    found = []
    for key in zip(executions, turns, strict=True):
        event = tables.events[tables.turns[key]["event_id"]]
        found.append({**event, "turn": key[1], "fits": True})
    return found


def load_items(
    tables: Tables, executions: list[int], nodes: list[str], firsts: list[int], counts: list[int]
) -> list[Row]:
    """Return some items of iterators."""
    found = []
    for execution, node, first, count in zip(executions, nodes, firsts, counts, strict=True):
        keys = [(execution, node, index) for index in range(first, first + count)]
        items = [tables.iterations[key]["item"] for key in keys if key in tables.iterations]
        found.append(
            {"execution_id": execution, "node_id": node, "first": first, "count": count, "items": items, "fits": True}
        )
    return found


def load_item_statuses(tables: Tables, executions: list[int], nodes: list[str], indexes: list[int]) -> list[Row]:
    """Return the statuses of items."""
    keys = zip(executions, nodes, indexes, strict=True)
    return [tables.iterations[key] for key in keys if key in tables.iterations]


def load_open_items(tables: Tables, executions: list[int], nodes: list[str]) -> list[Row]:
    """Return the indexes of the open items of iterators."""
    found = []
    for execution, node in zip(executions, nodes, strict=True):
        rows = [row for key, row in sorted(tables.iterations.items()) if key[:2] == (execution, node)]
        indexes = [row["index"] for row in rows if row["status"] in {"RUNNING", "CANCELLED"}]
        found.append({"execution_id": execution, "node_id": node, "indexes": indexes})
    return found


def load_failed(
    tables: Tables, executions: list[int], nodes: list[str], _steps: list[str], _visits: list[int]
) -> list[Row]:
    """Return the failed items of iterators."""
    found = []
    for execution, node in zip(executions, nodes, strict=True):
        rows = [row for key, row in sorted(tables.iterations.items()) if key[:2] == (execution, node)]
        failed = [{"index": row["index"], "error": row["error"]} for row in rows if row["status"] == "FAILED"]
        found.append({"execution_id": execution, "node_id": node, "failed": failed, "fits": True})
    return found


def load_undos(tables: Tables, executions: list[int], below: list[int | None]) -> list[Row]:
    """Return the rows that are to be undone next."""
    found = []
    for owner, turn in zip(executions, below, strict=True):
        rows = [row for key, row in tables.undos.items() if key[0] == owner and row["status"] == "open"]
        rows = [row for row in rows if turn is None or row["turn"] < turn]
        if rows:
            found.append({**max(rows, key=lambda row: row["turn"]), "below": turn, "fits": True})
    return found


def load_item_actions(tables: Tables, executions: list[int], nodes: list[str], indexes: list[int]) -> list[Row]:
    """Return the actions of items."""
    found = []
    for owner, node, index in zip(executions, nodes, indexes, strict=True):
        action = jsonb_order(undos.item_action(tables, owner, node, index))
        found.append({"execution_id": owner, "node_id": node, "index": index, "fits": True, "action": action})
    return found


def load_undone(tables: Tables, executions: list[int], nodes: list[str]) -> list[Row]:
    """Return the statuses of rows of what is to be undone."""
    keys = zip(executions, nodes, strict=True)
    return [tables.undos[key] for key in keys if key in tables.undos]


def history_heads(tables: Tables, executions: list[int]) -> list[Row]:
    """Return the rows of executions with their states."""
    return [_head(tables, execution_id) for execution_id in sorted(executions)]


def _head(tables: Tables, execution_id: int) -> Row:
    execution = tables.executions.get(execution_id, {})
    state = tables.states.get(execution_id, {})
    columns = ("catalog_id", "path", "version", "status", "rules", "workload", "result", "error")
    return {
        **{key: execution.get(key) for key in columns},
        "execution_id": execution_id,
        "name": tables.catalog.get(execution.get("catalog_id") or 0, {}).get("name"),
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
        "path_paused": facts.get("path_paused", False),
        "places": facts.get("places"),
        "job_attempts": facts.get("attempt"),
        "is_doubled": "doubled" in facts,
    }


def history_events(tables: Tables, executions: list[int]) -> list[Row]:
    """Return the events that the broker wrote."""
    rows = [row for owner in executions for row in tables.events_of[owner] if "turn" in (row["meta"] or {})]
    return sorted(rows, key=lambda row: (row["execution_id"], row["created_at"], row["event_id"]))


def history_jobs(tables: Tables, executions: list[int]) -> list[Row]:
    """Return the jobs of executions."""
    rows = sorted((item for item in tables.queue.items() if item[0][0] in executions), key=lambda item: item[0])
    return [{**row, "same_workload": False} for _, row in rows]


def history_rows(tables: Tables, executions: list[int]) -> list[Row]:
    """Return the tracking rows of executions."""
    return [row for key, row in sorted(tables.workflow.items()) if key[0] in executions]


def history_undos(tables: Tables, executions: list[int]) -> list[Row]:
    """Return the rows of undo executions, as they were taken over."""
    names = ("execution_id", "step", "visit", "index", "turn", "child_execution_id", "inputs", "result")
    undoing = {owner for owner in executions if undos.origin_of(tables, owner) != owner}
    rows = sorted((row for key, row in tables.undos.items() if key[0] in undoing), key=lambda row: row["turn"])
    return [_Record({name: row[name] for name in names}) for row in rows]


def history_undone(tables: Tables, executions: list[int]) -> list[Row]:
    """Return the visits and items whose undo has begun."""
    names = ("execution_id", "step", "visit", "index", "status")
    begun = {"running", "done", "failed", "taken"}
    rows = [row for key, row in tables.undos.items() if key[0] in executions and row["status"] in begun]
    rows.sort(key=lambda row: (row["execution_id"], row["turn"]))
    return [_Record({name: row[name] for name in names}) for row in rows]


class _Record(dict[str, Any]):
    """A row whose iteration gives its values, as that of a record."""

    def __iter__(self) -> Iterator[Any]:
        """Yield the values."""
        return iter(self.values())


def history_taken(_tables: Tables, _executions: list[int]) -> list[Row]:
    """Return nothing: no simulated execution is a fork."""
    return []


def history_items(_tables: Tables, _executions: list[int]) -> list[Row]:
    """Return the items that forks took over: the simulation has no forks."""
    return []
