"""What must hold when a simulation is over: equality with the reference, replay, and the invariants of section 8."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from noetl_broker.broker.model import Decision, Emitted
from noetl_broker.broker.replay import Retaken, compare_end, retake
from noetl_broker.broker.story import tell
from noetl_broker.playbook.findings import Rules as PlaybookRules
from noetl_broker.store.history import load_history
from tests.simulation.alone import End, play_alone
from tests.simulation.connection import Connection
from tests.simulation.plans import Plan
from tests.simulation.reference import Reference
from tests.simulation.tables import Row
from tests.simulation.tokens import Happened, Said
from tests.simulation.world import World

KINDS = {
    "execution_start": "start",
    "execution_started": "start",
    "playbook_started": "start",
    "execution_cancel": "cancel",
    "execution_deadline": "deadline",
    "action_completed": "completed",
    "action_failed": "failed",
    "action_error": "failed",
    "execution_complete": "completed",
    "execution_failed": "failed",
    "iterator_completed": "gathered",
    "iteration_due": "more",
    "child_due": "due",
}
VISIT_ENDS = frozenset({"step_completed", "step_failed"})
ENDS = frozenset({"execution_complete", "execution_failed", "execution_cancelled"})


class Telling(NamedTuple):
    """One execution as it went: its turns taken again, and the events that they read."""

    execution: Row
    plan: Plan
    retaken: list[Retaken]
    events: list[Row]

    def story(self) -> str:
        """Return it as text."""
        return tell((turn.recorded.event, turn.decision) for turn in self.retaken)


class Difference(NamedTuple):
    """Something that must not be; with the execution that shows it, where it is one alone."""

    message: str
    telling: Telling | None = None


def tellings(world: World) -> Iterator[tuple[Telling, list[str]]]:
    """Yield each execution with the differences that its replay finds."""
    plans = {plan.path: plan for plan in world.scenario.plan.family()}
    for execution_id in world.tables.states:
        execution = world.tables.executions.get(execution_id)
        if execution is None:  # somebody spoke of an execution that never was
            continue
        connection: Any = Connection(world.server)
        history = _result(load_history(connection, execution_id, PlaybookRules()))
        retaken = [*retake(history)]
        found = [text for turn in retaken for text in turn.differences]
        found += compare_end(history, retaken)
        turns = sorted(key for key in world.tables.turns if key[0] == execution_id)
        events = [world.tables.events[world.tables.turns[key]["event_id"]] for key in turns]
        yield Telling(execution, plans[execution["path"]], retaken, events), found


def _result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits for anybody."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration as end:
        return end.value


def differences(world: World) -> Iterator[Difference]:
    """Yield all that must not be, the most telling first."""
    for telling, replayed in tellings(world):
        message = unlike_reference(telling, world.server.leases_seen)
        if message is not None:
            yield Difference(message, telling)
        for text in replayed:
            yield Difference(f"replay: {text}", telling)
    for message in (*broken_invariants(world), *unlike_alone(world)):
        yield Difference(message)


# The reference.


def unlike_reference(telling: Telling, leases: Mapping[int, int]) -> str | None:
    """Return the first turn on which the core and the reference do not agree; `leases` of the jobs, by event."""
    reference = Reference(telling.plan)
    for turn, event in zip(telling.retaken, telling.events, strict=True):
        happened = happened_of(event, leases.get(event["event_id"], 0))
        expected = [] if happened is None else reference.take(happened)
        decided = [*said_by(turn.decision)]
        if _sorted(expected) != _sorted(decided):
            return (
                f"turn {turn.recorded.turn.number} on {event['event_type']} {event['node_id']}:"
                f"\n    reference: {_told(expected)}\n    core:      {_told(decided)}  ({turn.decision.outcome})"
            )
    status = telling.execution["status"]
    return None if status == reference.status else f"it ended {status}, in the reference {reference.status}"


def happened_of(event: Row, leases: int) -> Happened | None:
    """Return what an event says, read without the broker's own code; None where it asks for nothing."""
    kind = KINDS.get(event["event_type"].lower())
    if kind is None:
        return None
    meta = event["meta"] or {}
    node, index = "", meta.get("index")
    if not event["event_type"].lower().startswith(("execution_start", "execution_cancel", "execution_deadline")):
        node = (event["node_id"] or "").partition(":")[2]
        node, dot, place = node.partition(".")
        if dot:
            index = int(place)
        node = node.removesuffix("#1")
    if index is not None:
        kind = f"item_{kind}"
    value = (event["context"] or {}).get("workload") or {} if kind == "start" else event["result"]
    if kind in {"failed", "item_failed"}:
        value = event["error"] or {}
    return Happened(
        kind, node, index, value, meta.get("retryable") is not False, meta.get("attempt"), leases, "queue_id" in meta
    )


def said_by(decision: Decision) -> Iterator[Said]:
    """Yield what a decision of the core says, in the words of the reference."""
    for event in decision.events:
        yield Said(event.type, _node(event.step, event.visit), _detail(event))
    for job in decision.jobs:
        if not job.delegated:
            inputs = job.action.get("args", {})
            detail = inputs if job.place is None else (job.place, None, inputs)
            yield Said("job", _node(job.step, job.visit), detail)
    for child in decision.children:
        yield Said("child", _node(child.step, child.visit), (child.place, child.path, child.payload))
    for post in decision.posts:
        yield Said("post", _node(post.step, post.visit), post.type)


def _node(step: str | None, visit: int) -> str:
    return "" if step is None else step if visit == 1 else f"{step}#{visit}"


def _detail(event: Emitted) -> Any:
    if event.type == "action_retry" and event.meta:
        return float(event.meta["delay_seconds"])
    if event.type == "iterator_started" and event.context:
        return event.context["total"]
    return event.context["index"] if event.context else event.result


def _sorted(said: list[Said]) -> list[bytes]:
    return sorted(_plain([*one]) for one in said)


def _plain(value: Any) -> bytes:
    """Return a value as text, in which 1 and true are not the same."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _told(said: list[Said]) -> str:
    return (
        "; ".join(f"{what} {node} {'' if detail is None else detail}".strip() for what, node, detail in said)
        or "nothing"
    )


def unlike_alone(world: World) -> Iterator[str]:
    """Yield each execution of a calm scenario that the reference alone, in another order, ends in another way."""
    if not world.scenario.calm:
        return
    for owner, execution in world.tables.executions.items():
        if "root" in execution:
            expected = play_alone(world.scenario, execution["root"])
            found = End(execution["status"], execution["result"])
            if found.status != expected.status or _plain(found.result) != _plain(expected.result):
                yield f"execution {owner} ended with {found}, in another order with {expected}"


# The invariants.


def broken_invariants(world: World) -> Iterator[str]:
    """Yield each invariant of section 8 that is broken, as far as the tables show it (the rest is replay's)."""
    tables = world.tables
    turns = Counter((row["execution_id"], row["event_id"]) for row in tables.turns.values())
    ends: Counter[tuple[int, str]] = Counter()
    closes: Counter[int] = Counter()
    completions: Counter[tuple[int, int]] = Counter()
    numbers = {(row["execution_id"], row["event_id"]): row["turn"] for row in tables.turns.values()}
    for event in tables.events.values():
        owner, kind, meta = event["execution_id"], event["event_type"].lower(), event["meta"] or {}
        is_lease = kind == "action_started" and event["event_id"] not in world.copies
        # by ids: of a row that is leased a moment after it was written, the time is set a microsecond ahead
        if is_lease and event["event_id"] > tables.executions[owner].get("over_id", math.inf):
            yield f"I4: a worker was given {event['node_id']} after the end"
        if "turn" not in meta:
            if kind not in {"action_started", "step_result"} and turns[owner, event["event_id"]] != 1:
                yield f"I1: {kind} {event['event_id']} has {turns[owner, event['event_id']]} turns"
            if kind == "action_completed" and "queue_id" in meta and event["event_id"] not in world.copies:
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
    yield from (f"set aside: {row}" for row in tables.dead_letters)
    yield from _of_executions(world, closes)
    yield from _of_jobs(world, ends)


def _of_executions(world: World, closes: Counter[int]) -> Iterator[str]:
    tables = world.tables
    plans = {plan.path: plan for plan in world.scenario.plan.family()}
    for owner, execution in tables.executions.items():
        if execution["status"] == "RUNNING" or closes[owner] != 1:
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


def _of_jobs(world: World, ends: Counter[tuple[int, str]]) -> Iterator[str]:
    tables = world.tables
    for (owner, node), job in tables.queue.items():
        begun = tables.events.get(job["event_id"])
        if begun is None or begun["event_type"] not in {"step_started", "iteration_started"}:
            yield f"I2: job {node} has no step_started"
        completed = tables.executions[owner]["status"] == "COMPLETED"
        # What a worker reports after the end of its visit changes nothing, so its job stays as the worker left it.
        visit = tables.queue.get((owner, node.partition(".")[0].removesuffix("#1")), job)
        given_up = not completed or (visit is not job and visit["status"] == "dead")
        if job["status"] not in {"done", "dead", "cancelled"} | ({"failed"} if given_up else set()):
            yield f"I2: job {node} of an execution that is {tables.executions[owner]['status']} is {job['status']}"
        if completed and begun is not None and begun["event_type"] == "step_started" and ends[owner, node] != 1:
            yield f"I1: visit {node} ended {ends[owner, node]} times"
