"""Invalid events are recorded, and affect neither the daemon nor another execution."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from tests.bad_events import BAD, FORK, assert_healthy, begin, insert, outcomes
from tests.brokers import complete_jobs, drain, execute, register, rows, start, value
from tests.postgres import Database

STRANGER = 999
LONG = "x" * 100_000
VAST = json.dumps({"x": "y" * 10_000_000})

# Name, the columns that replace those of a good completion of step `a`, and the outcome.
EVENTS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown execution's": ({"execution_id": STRANGER, "node_id": f"{STRANGER}:a"}, "unknown_execution"),
    "a negative execution's": ({"execution_id": -1}, "unknown_execution"),
    "a cancel of an unknown execution": (
        {"execution_id": STRANGER, "event_type": "execution_cancel"}, "unknown_execution",
    ),
    "a deadline of an unknown execution": (
        {"execution_id": STRANGER, "event_type": "execution_deadline"}, "unknown_execution",
    ),
    "of unknown type": ({"event_type": "action_exploded"}, "unknown_type"),
    "of no type": ({"event_type": ""}, "unknown_type"),
    "of a very long type": ({"event_type": LONG}, "unknown_type"),
    "of a type in another script": ({"event_type": "дело_завершено"}, "unknown_type"),
    "what a NoETL server notes of an error": ({"event_type": "error"}, "recorded"),
    "the broker's own kind": ({"event_type": "step_completed"}, "recorded"),
    "somebody's end": ({"event_type": "execution_complete"}, "recorded"),
    "a child's iteration": ({"event_type": "iteration_completed", "result": "[1]"}, "recorded"),
    "a second start": ({"event_type": "execution_start", "context": '{"workload": {"n": 2}}'}, "duplicate"),
    "a second start under an alias": ({"event_type": "PLAYBOOK_STARTED"}, "duplicate"),
    "of an unknown step": ({"node_id": "VICTIM:nowhere", "node_name": "nowhere"}, "unknown_step"),
    "of no step at all": ({"node_id": None, "node_name": None}, "unknown_step"),
    "of an empty node": ({"node_id": "", "node_name": ""}, "unknown_step"),
    "of a huge node name": ({"node_id": f"VICTIM:{LONG}", "node_name": LONG}, "unknown_step"),
    "of a visit that nobody made": ({"node_id": "VICTIM:a#2"}, "not_open"),
    "of a visit past all integers": ({"node_id": "VICTIM:a#99999999999999999999"}, "unknown_step"),
    "of a negative visit": ({"node_id": "VICTIM:a#-1", "node_name": "nowhere"}, "unknown_step"),
    "of a visit in other digits": ({"node_id": "VICTIM:a#²", "node_name": "nowhere"}, "unknown_step"),
    "of a node with many marks": ({"node_id": "VICTIM:a#1#2:b#", "node_name": "nowhere"}, "unknown_step"),
    "of a visit before the first": ({"node_id": "VICTIM:a#0"}, "unknown_step"),
    "of a node of another execution": ({"node_id": "999:a"}, "unknown_step"),
    "of a node that names nothing": ({"node_id": "nonsense"}, "unknown_step"),
    "of a step that has no action": ({"node_id": "VICTIM:end", "node_name": "end"}, "not_open"),
    "of a start that is over": ({"node_id": "VICTIM:start", "node_name": "start"}, "duplicate"),
    "without a node_id": ({"node_id": None}, "decided"),
    "with the index of an item": ({"meta": '{"index": 0}'}, "decided"),
    "with meta that is a list": ({"meta": "[1]"}, "decided"),
    "with meta that is text": ({"meta": '"x"'}, "decided"),
    "with an attempt that is text": ({"meta": '{"attempt": "many"}'}, "decided"),
    "with an attempt that is an object": ({"meta": '{"attempt": {}, "retryable": "no", "queue_id": []}'}, "decided"),
    "with an attempt past all integers": ({"meta": '{"attempt": 1e300}'}, "decided"),
    "with an index past all integers": (
        {"meta": '{"child_execution_id": 1, "index": 123456789012345678901234567890}'}, "decided",
    ),
    "with the first index past an int4": ({"meta": '{"child_execution_id": 1, "index": 2147483648}'}, "decided"),
    "with a fractional attempt": ({"meta": '{"attempt": 1.5}'}, "decided"),
    "with an attempt that is true": ({"meta": '{"attempt": true}'}, "decided"),
    "a failure of an attempt past all integers": (
        {"event_type": "action_failed", "meta": '{"attempt": 123456789012345678901234567890}'}, "decided",
    ),
    "a failure without an error": ({"event_type": "action_failed"}, "decided"),
    "a failure whose error is a list": ({"event_type": "action_failed", "error": "[1]"}, "decided"),
    "a failure whose message is a number": ({"event_type": "action_failed", "error": '{"message": 1}'}, "decided"),
    "a failure whose error names another step": (
        {"event_type": "action_failed", "error": '{"message": "m", "step": ["b"], "at": 1}'}, "decided",
    ),
    "a failure with a huge error": ({"event_type": "action_failed", "error": f'{{"message": "{LONG}"}}'}, "decided"),
    "with a result of huge numbers": ({"result": f"[1e400, -1e400, 1{'0' * 5000}, 0.{'1' * 5000}]"}, "decided"),
    "with a result of 5,000 levels": ({"result": "[" * 5000 + "]" * 5000}, "decided"),
    "with an envelope of 5,000 levels": ({"result": '{"data":' + "[" * 5000 + "]" * 5000 + "}"}, "decided"),
    "with a result of 300 levels": ({"result": '{"n":' * 300 + "1" + "}" * 300}, "decided"),
    "with a huge result": ({"result": json.dumps([LONG] * 5)}, "decided"),
    "with a result of 10 MB": ({"result": VAST}, "decided"),
    "a failure with an error of 10 MB": ({"event_type": "action_failed", "error": VAST}, "decided"),
    "a second start with a workload of 10 MB": (
        {"event_type": "execution_start", "context": f'{{"workload": {VAST}}}'}, "duplicate",
    ),
    "with a wide result": ({"result": json.dumps(list(range(100_000)))}, "decided"),
    "with a result of strange keys": ({"result": '{"": 1, "data": {"__class__": 1, "n": {"self": 2}}}'}, "decided"),
    "with a context that is a list": ({"context": "[[]]"}, "decided"),
    "of the far past": ({"created_at": "1900-01-01Z"}, "decided"),
    "of the far future": ({"created_at": "9000-01-01Z"}, "decided"),
    "of the farthest future": ({"created_at": "9999-01-01Z"}, "decided"),
    "with a parent that is not there": ({"parent_event_id": 5, "parent_execution_id": 6, "catalog_id": 7}, "decided"),
}  # fmt: skip


async def test_each_bad_event_has_one_turn_and_affects_no_other_execution(database: Database) -> None:
    """The turn has the reason; the other executions end. Each event goes to an execution of its own."""
    await register(database, FORK)
    bystander, *victims = await start(database, count=1 + len(EVENTS))
    await drain(database)
    names = dict(enumerate(EVENTS, BAD))
    for event_id, victim in zip(names, victims, strict=True):
        columns, _ = EVENTS[names[event_id]]
        if isinstance(node := columns.get("node_id"), str):
            columns = {**columns, "node_id": node.replace("VICTIM", str(victim))}
        await insert(database, victim, {**columns, "event_id": event_id})
    await assert_healthy(database, bystander)
    read = "select event_id, outcome from noetl.turn where event_id = any($1::bigint[]) order by event_id"
    found = [(names[event_id], outcome) for event_id, outcome in await rows(database, read, list(names))]
    assert found == [(name, outcome) for name, (_, outcome) in EVENTS.items()]


async def test_a_very_long_error_is_shortened_in_later_events(database: Database) -> None:
    """In the events of the step and of the execution, and in its row. The event itself stays complete."""
    length = 70_000
    victim, bystander = await begin(database)
    await insert(database, victim, {"event_type": "action_failed", "error": json.dumps({"message": "y" * length})})
    await assert_healthy(database, bystander)
    statement = """
        select event_type, octet_length(error::text) from noetl.event where execution_id = $1 and error is not null
        union all
        select status, octet_length(error::text) from noetl.execution where execution_id = $1"""
    lengths = dict(await rows(database, statement, victim))
    assert lengths.pop("action_failed") > length
    assert sorted(lengths) == ["FAILED", "execution_failed", "step_failed"]
    assert max(lengths.values()) < 5_000


async def test_a_failure_with_another_lease_changes_nothing(database: Database) -> None:
    """A client inserts it with an attempt that is not the job's: the holder of the lease goes on."""
    victim, bystander = await begin(database)
    lease = "update noetl.queue set status = 'leased', attempts = 1, worker_id = 'w' where execution_id = $1"
    await execute(database, lease, victim)
    await insert(database, victim, {"event_type": "action_failed", "meta": '{"attempt": 7}'})
    await drain(database)
    complete = """
        select noetl.complete_job(queue_id, 'w', 1, '{"n": 1}')
        from noetl.queue
        where execution_id = $1 and worker_id = 'w'"""
    assert await value(database, complete, victim)
    await assert_healthy(database, bystander)
    assert await outcomes(database) == ["stale"]


async def test_a_time_beyond_the_range_of_programs_is_refused(database: Database) -> None:
    """A check of the table refuses it, so its sender sees the error."""
    for instant in ("infinity", "-infinity", "290000-01-01Z", "0044-03-15 BC"):
        with pytest.raises(asyncpg.CheckViolationError, match="event_created_at_check"):
            await insert(database, 1, {"created_at": instant})


async def test_mail_of_a_deleted_event_is_recorded(database: Database) -> None:
    """Its content is unknown."""
    victim, bystander = await begin(database)
    await insert(database, victim, {})
    await execute(database, "delete from noetl.event where event_id = $1", BAD)
    await assert_healthy(database, bystander)
    assert await outcomes(database) == ["unknown_type"]


async def test_an_event_after_the_end_changes_nothing(database: Database) -> None:
    """The execution stays as it ended."""
    kinds = ("action_completed", "action_failed", "execution_cancel", "execution_deadline")
    victim, bystander = await begin(database)
    await complete_jobs(database, {"n": 1})
    await drain(database)
    before = await rows(database, "select * from noetl.execution order by execution_id")
    for event_id, kind in enumerate(kinds, BAD):
        await insert(database, victim, {"event_type": kind, "event_id": event_id})
    await assert_healthy(database, bystander)
    late = "select outcome from noetl.turn where event_id between $1 and $1 + 3"
    assert await rows(database, late, BAD) == [("after_end",)] * len(kinds)
    assert await rows(database, "select * from noetl.execution order by execution_id") == before
