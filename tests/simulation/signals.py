"""Signals over the tables in memory: what 0015_signals.sql and its statements do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from random import Random
from typing import Any

from noetl_broker.playbook.durations import moment_text
from tests.simulation.tables import INFINITY, LIVE, Row, Tables, jsonb, jsonb_order

Pending = Callable[[Tables], None]
Node = tuple[int, str]
KEEP = timedelta(days=7)


def add_look(tables: Tables, **of: Any) -> None:
    """Add a look at a signal or at a wait."""
    tables.looks[tables.next_id()] = of


def insert_signal(
    tables: Tables, name: str, key: str, payload: Any, *, signal_id: int | None = None, **columns: Any
) -> int | None:
    """Insert a signal with its look; None for a repeated idempotency key."""
    repeated = columns.get("idempotency_key")
    if repeated is not None and any(
        (row["name"], row["key"], row["idempotency_key"]) == (name, key, repeated) for row in tables.signals.values()
    ):
        return None
    number = signal_id or tables.next_id()
    row = {"signal_id": number, "name": name, "key": key, "payload": jsonb_order(payload), "sent_at": tables.clock()}
    more = {"expires_at": tables.now + KEEP, "idempotency_key": None, "sender": None}
    tables.signals[number] = {**row, **more, **columns}
    add_look(tables, signal_id=number)
    return number


def send_signals(*columns: Sequence[Any]) -> Pending:
    """Send the signals of steps."""

    def write(tables: Tables) -> None:
        for owner, node, name, key, payload, _hops, own in zip(*columns, strict=True):
            expires_at = INFINITY if own else tables.now + KEEP
            more: Row = {"idempotency_key": node, "expires_at": expires_at, "sender": f"execution {owner}"}
            insert_signal(tables, name, key, jsonb(payload), **more)

    return write


def reopen_waits(*columns: Sequence[Any]) -> Pending:
    """Open waits that did not take the signal that came to them; each looks for the next one."""

    def write(tables: Tables) -> None:
        for node in zip(*columns, strict=True):
            if node in tables.waits and tables.waits[node]["status"] == "signalled":
                tables.waits[node]["status"] = "open"
                if "no_look_when_reopened" not in tables.defects:
                    add_look(tables, execution_id=node[0], node_id=node[1])

    return write


def match_signals(tables: Tables, looks: Sequence[int], random: Random, *, again: bool) -> int:
    """Tell the waits of these looks the lowest signal that fits and that is new to their execution.

    Some waits are held by another transaction, so they get a new look. `again`: the looks stay, as if doubled.
    """
    nodes = dict.fromkeys(node for look in sorted(looks) for node in _receivers(tables, tables.looks[look]))
    held = [node for node in nodes if random.random() > 0.1]
    found = {node: signal for node in held if (signal := next(fitting(tables, node), None)) is not None}
    chosen: dict[tuple[int, int], Node] = {}
    for node in sorted(found, key=lambda node: (tables.waits[node]["began_at"], node)):
        chosen.setdefault((node[0], found[node]["signal_id"]), node)
    for (owner, signal_id), node in sorted(chosen.items()):
        tables.waits[node]["status"] = "signalled"
        tables.taken[owner, signal_id] = _tell(tables, node, found[node])
    for look in () if again else looks:
        del tables.looks[look]
    for node in nodes if "no_look_at_held_waits" not in tables.defects else held:
        if node not in held or (node in found and node not in chosen.values()):
            add_look(tables, execution_id=node[0], node_id=node[1])
    return len(chosen)


def _receivers(tables: Tables, look: Row) -> Iterator[Node]:
    signal = tables.signals.get(look.get("signal_id") or 0)
    for node, wait in tables.waits.items():
        if wait["kind"] != "signal" or wait["status"] != "open":
            continue
        if node == (look.get("execution_id"), look.get("node_id")) or (signal is not None and _fits(wait, signal)):
            yield node


def _fits(wait: Row, signal: Row) -> bool:
    is_same = wait["key"] == signal["key"] and signal["name"] in wait["names"]
    return is_same and bool(wait["since_at"] <= signal["sent_at"])


def fitting(tables: Tables, node: Node) -> Iterator[Row]:
    """Yield the signals that fit a wait and that did not come to its execution, in their order."""
    for number in sorted(tables.signals):
        signal = tables.signals[number]
        is_new = (node[0], number) not in tables.taken
        if is_new and signal["expires_at"] > tables.now and _fits(tables.waits[node], signal):
            yield signal


def _tell(tables: Tables, node: Node, signal: Row) -> int:
    context = {name: signal[name] for name in ("name", "key", "payload", "signal_id")}
    context["at"] = moment_text(signal["sent_at"])
    before = (tables.executions[node[0]]["started_at"] - signal["sent_at"]).total_seconds()
    if before > 0:
        context["before_start"] = before
    event = {
        "execution_id": node[0], "event_type": "execution_signal", "node_id": node[1],
        "node_name": tables.waits[node]["step"], "node_type": "wait", "status": "RUNNING",
        "context": jsonb_order(context),
    }  # fmt: skip
    number: int = tables.insert_event(event)["event_id"]
    return number


def is_doubled(tables: Tables, event: Row) -> bool | None:
    """Tell whether the execution got the signal of an event with another event; None for other events."""
    if event["event_type"].lower() != "execution_signal":
        return None
    taken = tables.taken.get((event["execution_id"], event["context"]["signal_id"]))
    return taken is not None and taken != event["event_id"]


def lost_signals(tables: Tables) -> Iterator[str]:
    """Yield what is wrong where no look, no mail and no turn is left: each open wait has nothing to take."""
    for node, wait in tables.waits.items():
        if wait["kind"] != "signal" or tables.executions[node[0]]["status"] not in LIVE:
            continue
        if wait["status"] == "signalled":
            yield f"I5: wait {node} is signalled, but no signal is on its way"
        elif wait["status"] == "open":
            yield from (f"I5: wait {node} misses signal {row['signal_id']}" for row in fitting(tables, node))


def broken_rules(tables: Tables) -> Iterator[str]:
    """Yield each signal that came or was taken twice, and signals of one sender that came in another order."""
    came: set[tuple[int, int]] = set()
    last: dict[tuple[int, str, str], int] = {}
    for key, turn in sorted(tables.turns.items()):
        event = tables.events[turn["event_id"]]
        is_signal = event["event_type"].lower() == "execution_signal"
        if is_signal and turn["outcome"] not in {"duplicate", "after_end"}:
            one = key[0], event["context"]["signal_id"]
            if one in came:
                yield f"signal {one[1]} came to execution {one[0]} twice"
            came.add(one)
    for (owner, number), event_id in sorted(tables.taken.items(), key=lambda item: item[1]):
        sender = tables.signals[number]["sender"]
        if sender is not None:
            way = owner, tables.events[event_id]["node_id"], sender
            if number < last.get(way, 0):
                yield f"signal {number} of {sender} came to {way[1]} after {last[way]}"
            last[way] = number


def features(tables: Tables) -> Iterator[str]:
    """Yield what became of the signals that came to executions."""
    of_waits = [event for event in tables.events.values() if event["node_type"] == "wait"]
    begun = {
        (event["node_id"], event["parent_event_id"]) for event in of_waits if event["event_type"] == "step_started"
    }
    ended = {
        event["parent_event_id"]: event["node_id"] for event in of_waits if event["event_type"] == "step_completed"
    }
    if any((node, cause) in begun for cause, node in ended.items()):
        yield "a kept signal that is taken"
    for (_, signal_id), event_id in tables.taken.items():
        yield "a signal that is taken" if event_id in ended else "a signal that is not taken"
        if event_id in ended and ended[event_id] != tables.events[event_id]["node_id"]:
            yield "a signal that another wait takes"
        if str(tables.signals[signal_id]["sender"]).startswith("execution"):
            yield "a signal of a step"
