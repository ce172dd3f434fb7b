"""Random arguments of the SQL functions and random text in TEXT columns: each is refused with a reason, or recorded."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.bad_events import assert_healthy, begin, clear
from tests.brokers import drain, execute, rows, value
from tests.postgres import Database
from tests.sessions import refused

# Errors that a sender may get: ours, and Postgres' about the value (22…), its size (54…) or a type's limits.
REFUSALS = ("NB400", "NB404", "NB409", "22", "54", "23514")
TEXTS = st.sampled_from([
    "story", "", "nowhere", "x" * 10_000, "a\\u0000b", "дело", "a\nb", "'; drop table noetl.event; --", "\u202e",
]) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)  # fmt: skip
NUMBERS = st.sampled_from([0, -1, 1, 2**31 - 1, -(2**31)])
IDS = NUMBERS | st.sampled_from([2**63 - 1, -(2**63), 77])
DOCUMENTS = st.sampled_from([
    "{}", "null", "[]", "1", '"x"', '{"message": "m"}', '{"message": 1}', '{"n": 1e400}',
    '{"n": NaN}', '{"n": -Infinity}',
    '{"n": 1' + "0" * 10_000 + "}", '{"n": "\\u0000"}', '{"n": "\\ud800"}', '{"n": ', "", "no json", '{"n": 1, "n": 2}',
    '{"n":' * 189 + "1" + "}" * 189, '{"n":' * 400 + "1" + "}" * 400, "[" * 10_000 + "]" * 10_000, '{"n":' * 10_000,
    json.dumps({"n": "x" * 1_000_000}), '{"data": {"n": 1}, "status": 7}', '{"n": 0.1e-400}', '{"": {"": []}}',
])  # fmt: skip
TYPES = st.none() | st.lists(TEXTS | st.none(), max_size=3)

CALLS: dict[str, tuple[str, list[st.SearchStrategy[Any]]]] = {
    "start_execution": (
        "select noetl.start_execution($1, $2::text::jsonb, $3, $4)",
        [TEXTS | st.none(), DOCUMENTS | st.none(), NUMBERS | st.none(), TEXTS | st.none()],
    ),
    "cancel_execution": ("select noetl.cancel_execution($1, $2)", [IDS | st.none(), TEXTS | st.none()]),
    "lease_jobs": (
        "select queue_id from noetl.lease_jobs($1, $2, $3, $4)",
        [TEXTS | st.none(), NUMBERS | st.none(), st.sampled_from([0, -1, 1, None]), TYPES],
    ),
    "heartbeat_job": (
        "select noetl.heartbeat_job($1, $2, $3, $4)",
        [IDS | st.none(), TEXTS | st.none(), NUMBERS | st.none(), NUMBERS],
    ),
    "complete_job": (
        "select noetl.complete_job($1, $2, $3, $4::text::jsonb)",
        [IDS | st.none(), TEXTS | st.none(), NUMBERS | st.none(), DOCUMENTS | st.none()],
    ),
    "complete_jobs": (
        "select noetl.complete_jobs($1, $2, $3, $4::text[]::jsonb[])",
        [
            TEXTS | st.none(),
            st.lists(IDS | st.none(), max_size=3) | st.none(),
            st.lists(NUMBERS | st.none(), max_size=3) | st.none(),
            st.lists(DOCUMENTS | st.none(), max_size=3) | st.none(),
        ],
    ),
    "fail_job": (
        "select noetl.fail_job($1, $2, $3, $4::text::jsonb, $5)",
        [IDS | st.none(), TEXTS | st.none(), NUMBERS | st.none(), DOCUMENTS | st.none(), st.booleans() | st.none()],
    ),
    "wait_for_child": (
        "select noetl.wait_for_child($1, $2, $3, $4, $5)",
        [IDS | st.none(), TEXTS | st.none(), NUMBERS | st.none(), IDS | st.none(), NUMBERS | st.none()],
    ),
}  # fmt: skip
CALL = st.one_of([st.tuples(st.just(name), st.tuples(*arguments)) for name, (_, arguments) in CALLS.items()])
RELAXED = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@RELAXED
@given(calls=st.lists(CALL, min_size=1, max_size=20))
async def test_random_arguments_are_refused_or_harmless(
    database: Database, calls: list[tuple[str, tuple[Any, ...]]]
) -> None:
    """Every error is about the value; no mail becomes a dead letter, and another execution ends."""
    await clear(database)
    _, bystander = await begin(database)
    strange = []
    for name, arguments in calls:
        try:
            await rows(database, CALLS[name][0], *arguments)
        except asyncpg.PostgresError as error:
            if not str(error.sqlstate).startswith(REFUSALS):
                strange.append((name, arguments, error))
        except asyncpg.DataError:
            pass  # text with NUL, which the driver itself refuses
    assert strange == []
    await execute(database, "update noetl.queue set lease_until = now() - interval '1 hour' where status = 'leased'")
    await rows(database, "select requeued from noetl.reap(1000, 5)")
    await assert_healthy(database, bystander)


ANSWERS = st.lists(st.tuples(st.sampled_from(["complete", "fail"]), DOCUMENTS), min_size=2, max_size=2)
FAILURE = '{"message": "m"}'


@RELAXED
@given(answers=ANSWERS)
@example(answers=[("fail", FAILURE), ("fail", FAILURE)])
async def test_an_execution_survives_random_answers(database: Database, answers: list[tuple[str, str]]) -> None:
    """A document that the database accepts is a result or an error; any other can be corrected."""
    await clear(database)
    _, bystander = await begin(database)
    calls = {
        "complete": "select noetl.complete_job($1, 'w', $2, $3::text::jsonb)",
        "fail": "select noetl.fail_job($1, 'w', $2, $3::text::jsonb)",
    }
    states: list[str] = []
    await execute(database, "update noetl.queue set available_at = 'infinity' where execution_id = $1", bystander)
    for way, document in answers:
        for queue_id, attempt in await rows(database, "select queue_id, attempts from noetl.lease_jobs('w')"):
            try:
                await rows(database, calls[way], queue_id, attempt, document)
            except asyncpg.PostgresError as error:
                states.append(str(error.sqlstate))
                assert await value(database, "select noetl.complete_job($1, 'w', $2, '1')", queue_id, attempt)
        await drain(database)
    assert [state for state in states if not state.startswith(REFUSALS)] == []
    await execute(database, "update noetl.queue set available_at = now() where execution_id = $1", bystander)
    await assert_healthy(database, bystander)


@RELAXED
@given(
    events=st.lists(
        st.tuples(st.sampled_from(["result", "context", "meta", "error"]), DOCUMENTS), min_size=1, max_size=9
    )
)
async def test_random_text_in_text_columns_is_recorded(database: Database, events: list[tuple[str, str]]) -> None:
    """On the database of a NoETL server, where JSON is text: each event has one turn."""
    await clear(database)
    for column in ("result", "context"):
        await execute(database, f"alter table noetl.event alter column {column} type text")
    victim, bystander = await begin(database)
    states: list[str] = []
    for number, (column, document) in enumerate(events, 1):
        kind = "text" if column in ("result", "context") else "jsonb"
        try:
            await execute(
                database,
                f"insert into noetl.event (execution_id, event_id, event_type, node_id, node_name, {column})"
                f" values ($1, $2, 'action_completed', $3, 'a', $4::text::{kind})",
                victim, number, f"{victim}:a", document,
            )  # fmt: skip
        except asyncpg.PostgresError as error:
            states.append(str(error.sqlstate))
    assert [state for state in states if not state.startswith(REFUSALS)] == []
    sent = await value(database, "select count(*) from noetl.event where event_id < 10")
    await assert_healthy(database, bystander)
    assert await value(database, "select count(*) from noetl.turn where event_id < 10") == sent


async def test_a_payload_that_is_nested_too_deeply_is_refused_at_the_start(database: Database) -> None:
    """At the limit, the execution starts and ends."""
    _, bystander = await begin(database)
    statement = "select noetl.start_execution('story', $1::text::jsonb)"
    await rows(database, statement, '{"n":' * 190 + "1" + "}" * 190)
    for levels in (191, 5000):
        async with refused("NB400", "nests deeper than 190 levels"):
            await rows(database, statement, '{"n":' * levels + "1" + "}" * levels)
    await assert_healthy(database, bystander)
