"""Random JSON in every column of inserted events: the daemon goes on."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.bad_events import assert_healthy, begin, clear
from tests.brokers import execute, value
from tests.postgres import Database

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["data", "status", "error", "message", "attempt", "retryable", "queue_id", "workload", "n"])
        | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=4),
        inner, max_size=4,
    ),
    max_leaves=8,
)  # fmt: skip
EVENT = st.fixed_dictionaries({
    "event_type": st.sampled_from(
        ["action_completed", "action_failed", "action_error", "execution_start", "execution_cancel", "step_result"]
    ),
    "node_id": st.sampled_from(["{}:a", "{}:b", "{}:a#2", "{}:end", "{}", "a", ":", "#", None]),
    "node_name": st.sampled_from(["a", "b", "start", "", None]),
    "result": JSON, "error": JSON, "context": JSON, "meta": JSON,
})  # fmt: skip


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENT, min_size=1, max_size=25))
async def test_each_random_event_has_one_turn(database: Database, events: list[dict[str, Any]]) -> None:
    """No mail becomes a dead letter, and another execution ends."""
    await clear(database)
    victim, bystander = await begin(database)
    rows_of_json = [
        {**event, "event_id": n, "node_id": event["node_id"] and event["node_id"].format(victim)}
        for n, event in enumerate(events, 1)
    ]
    await execute(
        database,
        """insert into noetl.event
          (execution_id, event_id, event_type, node_id, node_name, result, error, context, meta)
        select $1, event_id, event_type, node_id, node_name, result, error, context, meta
        from jsonb_to_recordset($2::text::jsonb) r (
            event_id int, event_type text, node_id text, node_name text,
            result jsonb, error jsonb, context jsonb, meta jsonb
        )""",
        victim, json.dumps(rows_of_json),
    )  # fmt: skip
    await assert_healthy(database, bystander)
    count = sum(event["event_type"] != "step_result" for event in events)
    assert await value(database, "select count(*) from noetl.turn where event_id < 100") == count
