"""Checks of an ended simulation: equality with the reference, replay, and the invariants."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import orjson

from noetl_broker.daemon.playbook_cache import PlaybookCache
from noetl_broker.history.replay import ReplayedTurn, replay_history, sentences
from noetl_broker.history.story import format_story
from noetl_broker.playbook.diagnostics import PlaybookRules
from noetl_broker.store.history import Versions, load_histories
from tests.simulation.connection import Connection
from tests.simulation.effects import ENDS, effects_of, reference_event
from tests.simulation.plans import Plan
from tests.simulation.reference import Reference
from tests.simulation.reference_model import Effect
from tests.simulation.reference_run import End, run_reference
from tests.simulation.reference_undo import UndoRow
from tests.simulation.signals import broken_rules
from tests.simulation.simulator import Simulator
from tests.simulation.tables import LIVE, Row
from tests.simulation.undo_checks import broken_undos

VISIT_ENDS = frozenset({"step_completed", "step_failed", "step_cancelled"})


class ReplayedExecution(NamedTuple):
    """One execution, replayed: its turns, and the events that they read."""

    row: Row
    plan: Plan
    turns: list[ReplayedTurn]
    events: list[Row]

    def story(self) -> str:
        """Return its story."""
        return format_story((turn.recorded.event, turn.decision) for turn in self.turns)


class Difference(NamedTuple):
    """A fault that was found, with its execution if it is of one execution."""

    message: str
    execution: ReplayedExecution | None = None


class CompiledVersions(Versions):
    """The playbooks that the brokers of a simulation have compiled: half of a replay's time is their compilation."""

    def __init__(self, playbooks: PlaybookCache) -> None:
        """`playbooks`: those of the brokers."""
        super().__init__(PlaybookRules())
        self._playbooks = playbooks

    async def load(self, connection: Any, catalog_ids: set[int]) -> None:
        """Compile the versions that no broker has compiled."""
        known = ((catalog_id, self._playbooks.compiled(catalog_id)) for catalog_id in catalog_ids)
        self._kept |= {catalog_id: playbook for catalog_id, playbook in known if playbook is not None}
        await super().load(connection, catalog_ids)


def replayed_executions(simulator: Simulator) -> Iterator[tuple[ReplayedExecution, list[str]]]:
    """Yield each execution with the differences that its replay found."""
    plans = simulator.scenario.plan.by_path()
    tables = simulator.tables
    connection: Any = Connection(simulator.server)
    # An event may be of an execution that does not exist.
    owners = [execution_id for execution_id in tables.states if execution_id in tables.executions]
    histories = _result(load_histories(connection, owners, CompiledVersions(simulator.playbooks)))
    by_owner = {history.execution_id: history for history in histories}
    read = {owner: [*turns] for owner, turns in groupby(sorted(tables.turns), key=itemgetter(0))}
    for owner in owners:
        execution = tables.executions[owner]
        replayed, found = replay_history(by_owner[owner])
        events = [tables.events[tables.turns[key]["event_id"]] for key in read[owner]]
        yield ReplayedExecution(execution, plans[execution["path"]], replayed, events), sentences(found)


def _result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration as end:
        return end.value


def differences(simulator: Simulator) -> Iterator[Difference]:
    """Yield all faults, those that explain most first."""
    references: dict[int, Reference] = {}
    for execution, replay_differences in replayed_executions(simulator):
        message = reference_difference(execution, simulator.server.leases_seen, references)
        if message is not None:
            yield Difference(message, execution)
        for text in replay_differences:
            yield Difference(f"replay: {text}", execution)
    for message in (*broken_invariants(simulator), *order_differences(simulator)):
        yield Difference(message)


# The reference.


def reference_difference(
    execution: ReplayedExecution, leases: Mapping[int, int], references: dict[int, Reference]
) -> str | None:
    """Return the first turn on which core and reference differ; `leases`: by event, how many its job had.

    `references` are those of earlier executions; this one is added.
    """
    reference = references[execution.row["execution_id"]] = Reference(execution.plan, execution.row["execution_id"])
    for turn, event in zip(execution.turns, execution.events, strict=True):
        known = reference_event(event, leases.get(event["event_id"], 0))
        is_undo = "undo" in (event["meta"] or {}) and not reference.undo.is_own  # its start may come twice
        if known is not None and known.kind == "start" and is_undo:
            known = known._replace(
                undone=_taken_over(event["meta"]["undo"], reference, references, event["parent_execution_id"])
            )
        if known is not None and turn.recorded.event.path_paused:
            known = known._replace(path_is_paused=True)
        if known is not None and known.kind == "signal" and turn.recorded.event.stale:
            known = None  # it came by another event
        expected = [] if known is None else reference.apply(known)
        decided = [*effects_of(turn.decision)]
        if _sorted(expected) != _sorted(decided):
            return (
                f"turn {turn.recorded.turn.number} on {event['event_type']} {event['node_id']}:"
                f"\n    reference: {_text(expected)}\n    core:      {_text(decided)}  ({turn.decision.outcome})"
            )
    status = execution.row["status"]
    return None if status == reference.status else f"it is {status}, in the reference {reference.status}"


def _taken_over(
    undo: Row, reference: Reference, references: Mapping[int, Reference], parent: int | None
) -> tuple[UndoRow, ...]:
    """Return the rows that an undo execution takes over from another one, with the error of that one."""
    source = references[undo["execution_id"]]
    reference.error = references[undo["execution_id"] if parent is None else parent].undo_error
    statuses = {"open", "failed", "unknown"} if undo.get("unknown") else {"open", "failed"}
    sources = [source]
    for one in sources:
        sources += [taker for taker in one.takers if taker not in sources]
    ended = [one for one in sources if one.status not in LIVE]
    for one in ended:
        one.takers.append(reference)
    return tuple(row for one in ended for row in one.undo.rows if row.status in statuses)


def _sorted(effects: list[Effect]) -> list[bytes]:
    return sorted(_plain([*effect]) for effect in effects)


def _plain(value: Any) -> bytes:
    """Return a value as JSON: 1 and true differ."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _text(effects: list[Effect]) -> str:
    return (
        "; ".join(f"{what} {node} {'' if detail is None else detail}".strip() for what, node, detail in effects)
        or "nothing"
    )


def order_differences(simulator: Simulator) -> Iterator[str]:
    """Yield each execution of a stable scenario that ends otherwise in the reference with another order."""
    if not simulator.scenario.stable:
        return
    for owner, execution in simulator.tables.executions.items():
        if "root" in execution:
            expected = run_reference(simulator.scenario, execution["root"])
            found = End(execution["status"], execution["result"])
            if found.status != expected.status or _plain(found.result) != _plain(expected.result):
                yield f"execution {owner} ended with {found}, in another order with {expected}"


# The invariants.


def broken_invariants(simulator: Simulator) -> Iterator[str]:
    """Yield each broken invariant that the tables show; the replay checks the others."""
    tables = simulator.tables
    turns = Counter((row["execution_id"], row["event_id"]) for row in tables.turns.values())
    ends: Counter[tuple[int, str]] = Counter()
    closes: Counter[int] = Counter()
    completions: Counter[tuple[int, int]] = Counter()
    numbers = {(row["execution_id"], row["event_id"]): row["turn"] for row in tables.turns.values()}
    for event in tables.events.values():
        owner, kind, meta = event["execution_id"], event["event_type"].lower(), event["meta"] or {}
        is_lease = kind == "action_started" and event["event_id"] not in simulator.copies
        # compared by id: the time of a lease may be set ahead by a microsecond
        if is_lease and event["event_id"] > tables.executions[owner].get("over_id", math.inf):
            yield f"I4: {event['node_id']} was leased after the end"
        if "turn" not in meta:
            if kind not in {"action_started", "step_result"} and turns[owner, event["event_id"]] != 1:
                yield f"I1: {kind} {event['event_id']} has {turns[owner, event['event_id']]} turns"
            if kind == "action_completed" and "queue_id" in meta and event["event_id"] not in simulator.copies:
                completions[meta["queue_id"], meta["attempt"]] += 1
            continue
        ends[owner, event["node_id"]] += kind in VISIT_ENDS
        closes[owner] += kind in ENDS
        cause = tables.events.get(event["parent_event_id"])
        if cause is None or cause["created_at"] >= event["created_at"]:
            yield f"I8: {kind} {event['node_id']} is not later than its cause"
        if numbers.get((owner, event["parent_event_id"])) != meta["turn"]:
            yield f"I8: {kind} {event['node_id']} of turn {meta['turn']} was caused by another turn's event"
    yield from (f"I1: visit {node} ended {count} times" for (_, node), count in ends.items() if count > 1)
    yield from (f"I9: job and attempt {key} completed {count} times" for key, count in completions.items() if count > 1)
    yield from (f"I5: unread mail {row}" for row in tables.inbox.values())
    yield from (f"dead letter: {row}" for row in tables.dead_letters)
    yield from (f"job {node} was leased while its execution was paused" for node in tables.leased_while_paused)
    yield from (f"I2: wait {node} is left {wait['status']}" for node, wait in tables.waits.items() if _is_open(wait))
    yield from (f"I2: timer {timer} is left" for timer in tables.timers)
    yield from (*simulator.lost, *broken_rules(tables))
    yield from broken_undos(tables, simulator.scenario.plan.by_path())
    yield from _of_executions(simulator, closes)
    yield from _of_jobs(simulator, ends)


def _is_open(wait: Row) -> bool:
    return wait["status"] in {"open", "signalled"}


def _of_executions(simulator: Simulator, closes: Counter[int]) -> Iterator[str]:
    tables = simulator.tables
    plans = simulator.scenario.plan.by_path()
    for owner, execution in tables.executions.items():
        if execution["status"] in LIVE or closes[owner] != 1:
            yield f"I3: execution {owner} is {execution['status']} with {closes[owner]} ends"
        rows = [row for key, row in tables.turns.items() if key[0] == owner]
        if sorted(row["turn"] for row in rows) != [*range(1, len(rows) + 1)]:
            yield f"I7: the turns of {owner} have gaps"
        visits = sum(row["visits"] for key, row in tables.workflow.items() if key[0] == owner)
        if visits > plans[execution["path"]].max_visits:
            yield f"I10: execution {owner} has {visits} visits"
        after = [row["turn"] for row in rows if row["decided_at"] > (execution["ended_at"] or row["decided_at"])]
        yield from (
            f"I4: turn {turn} of {owner} decided after the end"
            for turn in after
            if tables.turns[owner, turn]["outcome"] == "decided"
        )


def _of_jobs(simulator: Simulator, ends: Counter[tuple[int, str]]) -> Iterator[str]:
    tables = simulator.tables
    ended = tables.events.values()
    closed = {(event["execution_id"], event["node_id"]) for event in ended if event["event_type"] == "step_cancelled"}
    for (owner, node), job in tables.queue.items():
        begun = tables.events.get(job["event_id"])
        if begun is None or begun["event_type"] not in {"step_started", "iteration_started", "compensation_started"}:
            yield f"I2: job {node} has no step_started"
        completed = tables.executions[owner]["status"] == "COMPLETED"
        # After the end of its visit, an answer changes nothing: the job keeps the status that the worker wrote.
        visit = tables.queue.get((owner, node.partition(".")[0].removesuffix("#1")), job)
        given_up = not completed or (visit is not job and visit["status"] == "dead")
        given_up |= (owner, visit["node_id"]) in closed
        if job["status"] not in {"done", "dead", "cancelled"} | ({"failed"} if given_up else set()):
            yield f"I2: job {node} of an execution that is {tables.executions[owner]['status']} is {job['status']}"
        if completed and begun is not None and begun["event_type"] == "step_started" and ends[owner, node] != 1:
            yield f"I1: visit {node} ended {ends[owner, node]} times"
