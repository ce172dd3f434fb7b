"""Events that no worker should send: each is accounted for, and neither the daemon nor another execution notices."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.brokers import broken_invariants, complete_jobs, drain, execute, register, rows, start, value
from tests.postgres import Database

FORK = """
workflow:
- {step: start, next: [a, b]}
- {step: a, type: python, code: x, next: [{when: "{{ a.n | default(1) == 1 }}", step: end}, {else: [end]}]}
- {step: b, type: python, code: x, retry: {max_attempts: 3, initial_delay: 0}, next: end}
- {step: end}
"""
STRANGER = 999
BAD = 77  # the id of the bad event
LONG = "x" * 100_000

# Each with what it is called, the columns that are set on an otherwise good completion of step `a`, and the outcome.
EVENTS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown execution's": ({"execution_id": STRANGER, "node_id": f"{STRANGER}:a"}, "unknown_execution"),
    "a negative execution's": ({"execution_id": -1}, "unknown_execution"),
    "a cancel of an unknown execution": ({"execution_id": STRANGER, "event_type": "execution_cancel"}, "unknown_execution"),
    "a deadline of an unknown execution": (
        {"execution_id": STRANGER, "event_type": "execution_deadline"}, "unknown_execution",
    ),
    "of unknown type": ({"event_type": "action_exploded"}, "unknown_type"),
    "of no type": ({"event_type": ""}, "unknown_type"),
    "of a very long type": ({"event_type": LONG}, "unknown_type"),
    "of a type in another script": ({"event_type": "дело_завершено"}, "unknown_type"),
    "the broker's own kind": ({"event_type": "step_completed"}, "recorded"),
    "somebody's end": ({"event_type": "execution_complete"}, "recorded"),
    "a child's iteration": ({"event_type": "iteration_completed", "result": "[1]"}, "recorded"),
    "a second start": ({"event_type": "execution_start", "context": '{"workload": {"n": 2}}'}, "duplicate"),
    "a second start under an alias": ({"event_type": "PLAYBOOK_STARTED"}, "duplicate"),
    "of an unknown step": ({"node_id": "1:nowhere", "node_name": "nowhere"}, "unknown_step"),
    "of no step at all": ({"node_id": None, "node_name": None}, "unknown_step"),
    "of an empty node": ({"node_id": "", "node_name": ""}, "unknown_step"),
    "of a huge node name": ({"node_id": f"1:{LONG}", "node_name": LONG}, "unknown_step"),
    "of a visit that nobody made": ({"node_id": "1:a#2"}, "not_open"),
    "of a visit past all integers": ({"node_id": "1:a#99999999999999999999", "node_name": "nowhere"}, "unknown_step"),
    "of a negative visit": ({"node_id": "1:a#-1", "node_name": "nowhere"}, "unknown_step"),
    "of a visit in other digits": ({"node_id": "1:a#²", "node_name": "nowhere"}, "unknown_step"),
    "of a node with many marks": ({"node_id": "1:a#1#2:b#", "node_name": "nowhere"}, "unknown_step"),
    "of a step that has no action": ({"node_id": "1:end", "node_name": "end"}, "not_open"),
    "of a start that is over": ({"node_id": "1:start", "node_name": "start"}, "duplicate"),
    "without a node_id": ({"node_id": None}, "decided"),
    "with meta that is a list": ({"meta": "[1]"}, "decided"),
    "with meta that is text": ({"meta": '"x"'}, "decided"),
    "with an attempt that is text": ({"meta": '{"attempt": "many"}'}, "decided"),
    "with an attempt that is an object": ({"meta": '{"attempt": {}, "retryable": "no", "queue_id": []}'}, "decided"),
    "with an attempt past all integers": ({"meta": '{"attempt": 1e300}'}, "decided"),
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
    "with a wide result": ({"result": json.dumps(list(range(100_000)))}, "decided"),
    "with a result of strange keys": ({"result": '{"": 1, "data": {"__class__": 1, "n": {"self": 2}}}'}, "decided"),
    "with a context that is a list": ({"context": "[[]]"}, "decided"),
    "of the far past": ({"created_at": "1900-01-01Z"}, "decided"),
    "of the far future": ({"created_at": "9000-01-01Z"}, "decided"),
    "of the farthest future": ({"created_at": "9999-01-01Z"}, "decided"),
    "with a parent that is not there": ({"parent_event_id": 5, "parent_execution_id": 6, "catalog_id": 7}, "decided"),
}  # fmt: skip


async def insert(database: Database, execution_id: int, columns: dict[str, Any]) -> None:
    """Insert the event `BAD`: a completion of step `a` with these columns instead of its own."""
    event = {
        "execution_id": execution_id,
        "event_id": BAD,
        "event_type": "action_completed",
        "node_id": f"{execution_id}:a",
        "node_name": "a",
        **columns,
    }
    names = ", ".join(event)
    places = ", ".join(f"${n}::text::{_type(name)}" for n, name in enumerate(event, 1))
    values = [None if value is None else str(value) for value in event.values()]
    await execute(database, f"insert into noetl.event ({names}) values ({places})", *values)


def _type(name: str) -> str:
    if name.endswith("_id") and name != "node_id":
        return "bigint"
    kinds = {"created_at": "timestamptz", "meta": "jsonb", "result": "jsonb", "error": "jsonb", "context": "jsonb"}
    return kinds.get(name, "text")


async def begin(database: Database) -> tuple[int, int]:
    """Two executions that wait for their jobs: the one that the bad event is for, and a bystander."""
    await register(database, FORK)
    victim, bystander = await start(database, count=2)
    await drain(database)
    return victim, bystander


async def assert_healthy(database: Database, bystander: int) -> None:
    """Drain; the bystander ends well, nothing was set aside, and every invariant holds."""
    await drain(database)
    assert await value(database, "select count(*) from noetl.inbox") == 0
    while await complete_jobs(database, {"n": 1}):
        await drain(database)
    assert await value(database, "select status from noetl.execution where execution_id = $1", bystander) == "COMPLETED"
    assert await value(database, "select count(*) from noetl.execution where status = 'RUNNING'") == 0
    # an end or a completion that somebody else wrote is one too many by itself
    strangers = {"I1 each visit ends once", "I3 one end per execution"}
    assert await broken_invariants(database, but=strangers) == {}


async def outcomes(database: Database) -> list[str]:
    """What came of the bad event, in each turn that read it."""
    return [row[0] for row in await rows(database, "select outcome from noetl.turn where event_id = $1", BAD)]


@pytest.mark.parametrize("columns, outcome", EVENTS.values(), ids=EVENTS.keys())
async def test_a_bad_event_has_one_turn_and_harms_nobody(
    database: Database, columns: dict[str, Any], outcome: str
) -> None:
    """Accounted for with the reason; the executions beside it go on to their end."""
    victim, bystander = await begin(database)
    await insert(database, victim, columns)
    await assert_healthy(database, bystander)
    assert await outcomes(database) == [outcome]


@pytest.mark.parametrize("instant", ["infinity", "-infinity", "290000-01-01Z", "0044-03-15 BC"])
async def test_a_time_that_no_program_can_hold_is_refused(database: Database, instant: str) -> None:
    """By a check of the table: its sender hears of it."""
    with pytest.raises(Exception, match="event_created_at_check"):
        await insert(database, 1, {"created_at": instant})


async def test_an_event_that_was_deleted_before_it_was_read_is_accounted_for(database: Database) -> None:
    """Its mail is still there: nobody knows any more what it said."""
    victim, bystander = await begin(database)
    await insert(database, victim, {})
    await execute(database, "delete from noetl.event where event_id = $1", BAD)
    await assert_healthy(database, bystander)
    assert await outcomes(database) == ["unknown_type"]


async def test_an_event_twice_is_decided_once(database: Database) -> None:
    """With ids of their own, in one statement."""
    victim, bystander = await begin(database)
    await execute(
        database,
        """insert into noetl.event (execution_id, event_id, event_type, node_id, node_name)
        select $1::bigint, n, 'action_completed', $1::bigint || ':a', 'a' from generate_series(1, 3) n""",
        victim,
    )
    await assert_healthy(database, bystander)
    read = await rows(database, "select event_id, outcome from noetl.turn where event_id < 4 order by turn")
    assert read == [(1, "decided"), (2, "duplicate"), (3, "duplicate")]


@pytest.mark.parametrize("kind", ["action_completed", "action_failed", "execution_cancel", "execution_deadline"])
async def test_an_event_after_the_end_changes_nothing(database: Database, kind: str) -> None:
    """The execution stays as it ended."""
    victim, bystander = await begin(database)
    await complete_jobs(database, {"n": 1})
    await drain(database)
    before = await rows(database, "select * from noetl.execution order by execution_id")
    await insert(database, victim, {"event_type": kind})
    await assert_healthy(database, bystander)
    assert await outcomes(database) == ["after_end"]
    assert await rows(database, "select * from noetl.execution order by execution_id") == before


async def test_a_completion_before_its_execution_starts_is_accounted_for(database: Database) -> None:
    """Out of order: the start comes later, and the execution runs from there."""
    await register(database, FORK)
    await insert(database, 5, {})
    await drain(database)
    assert await outcomes(database) == ["unknown_execution"]
    await start_by_hand(database, 5, '{"path": "story"}')
    await assert_healthy(database, 5)
    told = await rows(
        database, "select turn, outcome from noetl.turn where execution_id = 5 and turn < 3 order by turn"
    )
    assert told == [(1, "unknown_execution"), (2, "decided")]


async def test_a_completion_in_one_batch_before_its_start_is_accounted_for(database: Database) -> None:
    """Both lie in the inbox, in the wrong order."""
    await register(database, FORK)
    await insert(database, 5, {})
    await start_by_hand(database, 5, '{"path": "story"}')
    await assert_healthy(database, 5)
    assert await outcomes(database) == ["unknown_execution"]


async def test_two_starts_at_once_start_one_execution(database: Database) -> None:
    """The second is a duplicate, also with another payload."""
    await register(database, FORK)
    await start_by_hand(database, 5, '{"path": "story", "workload": {"n": 1}}')
    await start_by_hand(database, 5, '{"path": "story", "workload": {"n": 2}}')
    await assert_healthy(database, 5)
    assert await value(database, "select workload ->> 'n' from noetl.execution") == "1"
    assert await value(database, "select count(*) from noetl.queue") == 2


@pytest.mark.parametrize(
    "context, catalog_id, message",
    [
        ('{"path": "nowhere"}', None, "no playbook nowhere is registered"),
        ('{"path": "story", "version": 7}', None, "no playbook story version 7 is registered"),
        ('{"path": "story"}', 404, "no playbook story is registered"),
        ("{}", None, "no playbook"),
        (None, None, "no playbook"),
        ('["story"]', None, "no playbook"),
        ('"story"', None, "no playbook"),
        ('{"path": {"a": 1}}', None, "no playbook"),
        ('{"path": "story", "workload": [1]}', None, "is no mapping"),
        ('{"path": "story", "workload": "text"}', None, "is no mapping"),
        ('{"path": "story", "workload": 0}', None, "is no mapping"),
        ('{"path": "story", "workload": false}', None, "is no mapping"),
        ('{"path": "story", "workload": ' + '{"a":' * 500 + "1" + "}" * 501, None, "is no mapping"),
    ],
)
async def test_a_start_that_cannot_start_fails_with_a_reason(
    database: Database, context: str | None, catalog_id: int | None, message: str
) -> None:
    """The execution is there, failed, and says why; what comes for it afterwards is after its end."""
    _, bystander = await begin(database)
    await start_by_hand(database, 5, context, catalog_id)
    await drain(database)
    [(status, error)] = await rows(database, "select status, error from noetl.execution where execution_id = 5")
    assert status == "FAILED"
    assert message in error["message"]
    assert await rows(database, "select event_type from noetl.event where execution_id = 5 and event_type <> 'execution_start'") == [("execution_failed",)]  # fmt: skip
    await insert(database, 5, {})
    await assert_healthy(database, bystander)
    assert await outcomes(database) == ["after_end"]


@pytest.mark.parametrize(
    "context",
    [
        '{"path": "story"}',
        '{"path": "story", "version": null}',
        '{"path": "story", "version": "1"}',
        '{"path": "story", "version": "latest"}',
        '{"path": "story", "version": 1.0}',
        '{"path": "story", "version": 99999999999999}',
        '{"path": "story", "version": [1]}',
        '{"path": "story", "workload": null}',
    ],
)
async def test_a_start_without_a_catalog_id_finds_its_playbook(database: Database, context: str) -> None:
    """By path and, where it is one, by version."""
    await register(database, FORK)
    await start_by_hand(database, 5, context)
    await assert_healthy(database, 5)


async def start_by_hand(
    database: Database, execution_id: int, context: str | None, catalog_id: int | None = None
) -> None:
    """Insert an `execution_start` as any program may."""
    await execute(
        database,
        """insert into noetl.event (execution_id, catalog_id, event_type, context)
        values ($1, $2, 'execution_start', $3::text::jsonb)""",
        execution_id, catalog_id, context,
    )  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["data", "status", "error", "message", "attempt", "retryable", "queue_id", "workload", "n", "path"])
        | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=4),
        inner, max_size=4,
    ),
    max_leaves=8,
)  # fmt: skip
EVENT = st.fixed_dictionaries({
    "event_type": st.sampled_from(
        ["action_completed", "action_failed", "action_error", "execution_start", "execution_cancel", "step_result", "odd"]
    ),
    "node_id": st.sampled_from(["{}:a", "{}:b", "{}:a#2", "{}:end", "{}", "a", ":", "#", None]),
    "node_name": st.sampled_from(["a", "b", "start", "", None]),
    "result": JSON, "error": JSON, "context": JSON, "meta": JSON,
})  # fmt: skip


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENT, min_size=1, max_size=25))
async def test_whatever_is_inserted_each_event_has_one_turn(database: Database, events: list[dict[str, Any]]) -> None:
    """Random JSON in every column, all at once: nothing is set aside, and a bystander ends well."""
    await execute(database, "truncate noetl.catalog, noetl.event, noetl.queue, noetl.execution, noetl.execution_state")
    await execute(database, "truncate noetl.turn, noetl.inbox, noetl.workflow, noetl.transition, noetl.dead_letter")
    victim, bystander = await begin(database)
    rows_of_json = [
        {**event, "event_id": n, "node_id": event["node_id"] and event["node_id"].format(victim)}
        for n, event in enumerate(events, 1)
    ]
    await execute(
        database,
        """insert into noetl.event (execution_id, event_id, event_type, node_id, node_name, result, error, context, meta)
        select $1, event_id, event_type, node_id, node_name, result, error, context, meta
        from jsonb_to_recordset($2::text::jsonb) r (
            event_id int, event_type text, node_id text, node_name text, result jsonb, error jsonb, context jsonb, meta jsonb
        )""",
        victim, json.dumps(rows_of_json),
    )  # fmt: skip
    await assert_healthy(database, bystander)
    asked = sum(event["event_type"] != "step_result" for event in events)
    assert await value(database, "select count(*) from noetl.turn where event_id < 100") == asked
